//! From the upgrade to the end of a session: tokens, their ways in, their end and their renewal.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use roomcast::gateway::Config;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{Connect, ErrorCode, ErrorReply, Join, Ping, Refresh};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::raw::{self, FIN, TEXT};
use crate::support::{
    Client, Encoding, Ended, InRoom as _, Node, SECRET, User, home_rooms, in_seconds, over_encodings, user,
};

over_encodings! {
    a_token_comes_in_the_header_the_subprotocols_the_query_or_the_first_command,
    a_token_in_the_query_counts_only_where_that_is_allowed,
    a_token_that_is_not_right_opens_nothing,
    a_token_that_no_revocation_could_name_opens_and_prolongs_nothing,
    an_expired_token_is_told_apart,
    a_token_within_the_leeway_opens_a_session_that_ends_with_the_leeway,
    a_command_before_the_token_ends_the_connection,
    who_says_nothing_is_sent_away,
    a_second_connect_ends_the_connection,
    a_session_is_told_that_it_ends_and_ends_on_time,
    a_refreshed_session_goes_on,
    a_token_of_somebody_else_refreshes_nothing,
    who_lacks_the_claim_of_a_home_room_is_not_let_in,
    a_ping_is_answered,
    a_client_that_closes_gets_its_close_frame_back,
    a_message_of_the_wrong_kind_ends_the_connection,
}

async fn a_token_comes_in_the_header_the_subprotocols_the_query_or_the_first_command(encoding: Encoding) {
    let node = Node::with(encoding, |config| config.client.token_in_query = true).await;
    let ada = user("ada");
    let in_header = node
        .opening()
        .header("authorization", &format!("Bearer {}", ada.token()));
    let offered = format!("{}, bearer.{}", encoding.subprotocol(), ada.token());
    let in_subprotocols = node.opening().header("sec-websocket-protocol", &offered);
    let in_query = node.opening().query(&format!("token={}", ada.token()));
    for opening in [in_header, in_subprotocols, in_query] {
        let mut client = opening.open().await.expect("the upgrade is accepted");
        let connected = client.expect_connected(&ada).await;
        assert_eq!(connected.heartbeat_interval_ms, 25_000);
        assert!((in_seconds(3600) * 1000..=in_seconds(3610) * 1000).contains(&connected.expires_at_ms));
        assert!((in_seconds(-60) * 1000..=in_seconds(1) * 1000).contains(&connected.server_time_ms));
        client.join("r").await;
        // It is connected already.
        let refusal = client.authenticate(&ada, Vec::new()).await.unwrap_err();
        assert_eq!(refusal.reason, "already_connected");
        client.expect_close(4500).await;
    }
    node.connect(ada).await.join("r").await;
    node.finish().await;
}

async fn a_token_in_the_query_counts_only_where_that_is_allowed(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let opening = node.opening().query(&format!("token={}", user("ada").token()));
    let mut client = opening.open().await.unwrap();
    expect_connect_first(&mut client).await;
    node.finish().await;
}

async fn expect_connect_first(client: &mut Client) {
    let refusal = client.try_join(Join::in_room("r")).await.unwrap_err();
    assert_eq!(
        (refusal.code(), refusal.reason.as_str()),
        (ErrorCode::Unauthenticated, "unauthenticated")
    );
    client.expect_close(4501).await;
}

async fn connect_with(client: &mut Client, token: &str) -> Result<Said, ErrorReply> {
    let connect = Connect {
        token: token.to_owned(),
        ..Default::default()
    };
    client.ask(Command::Connect(connect)).await
}

/// Tokens that nobody should take, and what is wrong with each.
fn wrong_tokens() -> Vec<(&'static str, String)> {
    let ada = || user("ada");
    let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = URL_SAFE_NO_PAD.encode(ada().claims());
    let unsigned = |header: serde_json::Value| format!("{}.{claims}.", part(header));
    let signed = |header: Header| ada().signed(&header, SECRET);
    let with_kid = Header {
        kid: Some("../../etc/passwd".to_owned()),
        ..Header::new(Algorithm::HS256)
    };
    let (head, tail) = ada()
        .token()
        .rsplit_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let other_signature = user("eve").token().rsplit_once('.').unwrap().1.to_owned();
    vec![
        ("nothing", String::new()),
        ("no token", "hello".to_owned()),
        ("dots", "..".to_owned()),
        ("alg none", unsigned(json!({"alg": "none", "typ": "JWT"}))),
        ("alg None", unsigned(json!({"alg": "None"}))),
        ("no signature", format!("{head}.")),
        ("a signature of other claims", format!("{head}.{other_signature}")),
        ("a signature cut short", format!("{head}.{}", &tail[..20])),
        (
            "another key",
            ada().signed(&Header::new(Algorithm::HS256), "another secret of at least 32 bytes"),
        ),
        ("another algorithm", signed(Header::new(Algorithm::HS512))),
        ("a key nobody knows", signed(with_kid)),
        ("no exp", ada().without("exp").token()),
        ("exp as text", ada().claim("exp", in_seconds(60).to_string()).token()),
        ("exp below zero", ada().claim("exp", -1).token()),
        ("another issuer", ada().claim("iss", "https://id.evil").token()),
        ("no issuer", ada().without("iss").token()),
        ("another audience", ada().claim("aud", "another").token()),
        ("no audience", ada().without("aud").token()),
        ("not valid yet", ada().claim("nbf", in_seconds(600)).token()),
        ("no user", ada().without("sub").token()),
        ("a user that is no text", ada().claim("sub", json!(["ada"])).token()),
        ("a user with a control character", ada().claim("sub", "a\u{0}b").token()),
        ("no tenant", ada().without("tenant_id").token()),
        (
            "exp in milliseconds",
            ada().claim("exp", in_seconds(60) * 1_000).token(),
        ),
        (
            "exp in microseconds",
            ada().claim("exp", in_seconds(60) * 1_000_000).token(),
        ),
        ("270 years", ada().expires_in(270 * 365 * 86_400).token()),
        ("more than 8 KiB", ada().claim("padding", "x".repeat(9000)).token()),
    ]
}

async fn a_token_that_is_not_right_opens_nothing(encoding: Encoding) {
    let node = Node::start(encoding).await;
    for (what, token) in wrong_tokens() {
        let mut client = node.open().await;
        let refusal = connect_with(&mut client, &token).await.expect_err(what);
        assert_eq!(
            (refusal.code(), refusal.reason.as_str()),
            (ErrorCode::Unauthenticated, "unauthenticated"),
            "{what}"
        );
        client.expect_close(4501).await;
    }
    let jku = Header {
        jku: Some("http://127.0.0.1:1/keys".to_owned()),
        x5u: Some("http://127.0.0.1:1/cert".to_owned()),
        ..Header::new(Algorithm::HS256)
    };
    // An address in the token is not followed; what signs it is what was configured, or nothing.
    let mut client = node.open().await;
    let _ = connect_with(
        &mut client,
        &user("ada").signed(&jku, "a secret that the address would vouch for"),
    )
    .await
    .unwrap_err();
    client.expect_close(4501).await;
    node.finish().await;
}

async fn a_token_that_no_revocation_could_name_opens_and_prolongs_nothing(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut eve = node.connect(user("eve")).await;
    for (claim, value) in [
        ("iat", json!(in_seconds(0) * 1_000)),
        ("iat", json!(in_seconds(0) * 1_000_000)),
        ("iat", json!(in_seconds(60))),
        ("iat", json!("0")),
        ("nbf", json!(in_seconds(0) * 1_000)),
        ("exp", json!(in_seconds(600) * 1_000)),
        ("exp", json!(in_seconds(600) * 1_000_000)),
        ("exp", json!(in_seconds(270 * 365 * 86_400))),
        ("jti", json!(7)),
        ("jti", json!("x".repeat(257))),
    ] {
        let unnamed = user("eve").claim(claim, value);
        let mut client = node.open().await;
        let opened = connect_with(&mut client, &unnamed.token()).await.unwrap_err();
        client.expect_close(4501).await;
        let header = format!("Bearer {}", unnamed.token());
        let mut upgraded = node.opening().header("authorization", &header).open().await.unwrap();
        let Said::Error(in_header) = upgraded.push().await else {
            panic!("no error")
        };
        upgraded.expect_close(4501).await;
        let prolonged = refresh(&mut eve, &unnamed).await.unwrap_err();
        for refusal in [opened, in_header, prolonged] {
            assert_eq!(refusal.code(), ErrorCode::Unauthenticated);
            let named = format!("its `{claim}`");
            assert!(refusal.message.contains(&named), "{claim}: {}", refusal.message);
        }
    }
    // A refresh that is refused changes nothing.
    eve.join("r").await;
    node.finish().await;
}

async fn an_expired_token_is_told_apart(encoding: Encoding) {
    let node = Node::start(encoding).await;
    for seconds in [-3600, -11] {
        let mut client = node.open().await;
        let refusal = client
            .authenticate(&user("ada").expires_in(seconds), Vec::new())
            .await
            .unwrap_err();
        assert_eq!(refusal.reason, "token_expired");
        client.expect_close(4502).await;
    }
    node.finish().await;
}

async fn a_token_within_the_leeway_opens_a_session_that_ends_with_the_leeway(encoding: Encoding) {
    let node = Node::with(encoding, |config| config.auth.leeway = Duration::from_secs(8)).await;
    let exp = in_seconds(-3);
    let ended = user("ada").expires_at(exp);
    let mut ada = node.open().await;
    let connected = ada.authenticate(&ended, Vec::new()).await.unwrap();
    assert_eq!(connected.expires_at_ms, (exp + 8) * 1_000);
    ada.join("r").await;
    // A token of the same age prolongs it no further.
    assert_eq!(refresh(&mut ada, &ended).await.unwrap(), connected.expires_at_ms);
    ada.expect_close(4502).await;
    let late = now_ms() - connected.expires_at_ms;
    assert!(late >= 0, "{late} ms late");
    node.finish().await;
}

async fn a_command_before_the_token_ends_the_connection(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut client = node.open().await;
    expect_connect_first(&mut client).await;
    node.finish().await;
}

async fn who_says_nothing_is_sent_away(encoding: Encoding) {
    let hurried = |config: &mut Config| config.session.authentication_timeout = Duration::from_secs(2);
    let node = Node::with(encoding, hurried).await;
    let mut ada = node.connect(user("ada")).await;
    let mut silent = node.open().await;
    silent.expect_close(4501).await;
    ada.join("r").await;
    node.finish().await;
}

async fn a_second_connect_ends_the_connection(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let refusal = ada.authenticate(&user("ada"), Vec::new()).await.unwrap_err();
    assert_eq!(
        (refusal.code(), refusal.reason.as_str()),
        (ErrorCode::Conflict, "already_connected")
    );
    ada.expect_close(4500).await;
    node.finish().await;
}

async fn a_session_is_told_that_it_ends_and_ends_on_time(encoding: Encoding) {
    let prompt = |config: &mut Config| {
        config.session.expiry_notice = Duration::from_secs(2);
        config.auth.leeway = Duration::from_secs(1);
    };
    let node = Node::with(encoding, prompt).await;
    let ends = in_seconds(8);
    let mut ada = node.connect(user("ada").expires_at(ends - 1)).await;
    ada.join("r").await;
    let Said::SessionExpiring(notice) = ada.push().await else {
        panic!("no notice")
    };
    assert_eq!(notice.expires_at_ms, ends * 1000);
    let told = now_ms();
    assert!(
        told >= ends * 1000 - 2200,
        "told {} ms before the end",
        ends * 1000 - told
    );
    let Said::Error(error) = ada.push().await else {
        panic!("no error")
    };
    assert_eq!(error.reason, "token_expired");
    ada.expect_close(4502).await;
    let late = now_ms() - ends * 1000;
    assert!(late >= 0, "{late} ms late");
    node.until_connections(0).await;
    assert_eq!(node.backend().publish("r", "unheard", json!({})).await.reached, Some(0));
    node.finish().await;
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

async fn refresh(client: &mut Client, user: &User) -> Result<i64, ErrorReply> {
    let refresh = Refresh { token: user.token() };
    match client.ask(Command::Refresh(refresh)).await? {
        Said::Refreshed(refreshed) => Ok(refreshed.expires_at_ms),
        other => panic!("refreshed: {other:?}"),
    }
}

async fn a_refreshed_session_goes_on(encoding: Encoding) {
    let exact = |config: &mut Config| {
        config.session.expiry_notice = Duration::from_secs(1);
        config.auth.leeway = Duration::ZERO;
    };
    let node = Node::with(encoding, exact).await;
    let ends = in_seconds(8);
    let mut ada = node.connect(user("ada").expires_at(ends)).await;
    let mut other = node.connect(user("ada").expires_at(ends)).await;
    ada.join("r").await;
    other.join("r").await;
    let renewed = user("ada").expires_at(ends + 3600);
    assert_eq!(refresh(&mut ada, &renewed).await.unwrap(), (ends + 3600) * 1000);
    // The connection that was not refreshed shows that the time is over.
    other.expect_close(4502).await;
    node.assert_reached(node.backend().publish("r", "still here", json!({})).await.reached, 1);
    ada.expect_nothing_before("still here").await;
    // Nor does a token that was refused change when the session ends.
    let refusal = refresh(&mut ada, &renewed.expires_in(-3600)).await.unwrap_err();
    assert_eq!(refusal.reason, "token_expired");
    ada.join("s").await;
    // A shorter token ends it sooner.
    let soon = in_seconds(5);
    refresh(&mut ada, &user("ada").expires_at(soon)).await.unwrap();
    ada.expect_close(4502).await;
    node.finish().await;
}

async fn a_token_of_somebody_else_refreshes_nothing(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    for other in [user("eve"), user("ada").tenant("other")] {
        let refusal = refresh(&mut ada, &other).await.unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::Forbidden);
    }
    node.backend().publish("r", "end", json!({})).await;
    ada.expect_nothing_before("end").await;
    node.finish().await;
}

async fn who_lacks_the_claim_of_a_home_room_is_not_let_in(encoding: Encoding) {
    let teams = |config: &mut Config| {
        home_rooms(config);
        config.policy.auto_join.push("team:{team}".to_owned());
    };
    let node = Node::with(encoding, teams).await;
    let mut ada = node.open().await;
    let connected = ada
        .authenticate(&user("ada").claim("team", "red"), Vec::new())
        .await
        .unwrap();
    assert_eq!(connected.rooms.len(), 3);
    for eve in [
        user("eve"),
        user("eve").claim("team", ""),
        user("eve").claim("team", 1.5),
    ] {
        let mut client = node.open().await;
        let refusal = client.authenticate(&eve, Vec::new()).await.unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::Forbidden);
        client.expect_close(4505).await;
    }
    node.finish().await;
}

async fn a_ping_is_answered(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let Ok(Said::Pong(pong)) = ada.ask(Command::Ping(Ping {})).await else {
        panic!("no pong")
    };
    assert!((pong.server_time_ms - now_ms()).abs() < 30_000);
    node.finish().await;
}

async fn a_client_that_closes_gets_its_close_frame_back(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    ada.say_raw(Message::Close(Some(
        tokio_tungstenite::tungstenite::protocol::CloseFrame {
            code: 1000.into(),
            reason: "bye".into(),
        },
    )))
    .await;
    let Ended::Closed { code, .. } = ada.end().await else {
        panic!("no close frame")
    };
    assert_eq!(code, 1000);
    node.until_connections(0).await;
    node.finish().await;
}

async fn a_message_of_the_wrong_kind_ends_the_connection(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let wrong = match encoding {
        Encoding::Json => Message::binary(vec![8, 1]),
        Encoding::Protobuf => Message::text("{\"id\":1,\"ping\":{}}"),
    };
    ada.say_raw(wrong).await;
    ada.expect_close(1003).await;
    node.finish().await;
}

#[tokio::test]
async fn who_offers_no_subprotocol_speaks_json_and_who_offers_none_that_is_known_is_refused() {
    let node = Node::start(Encoding::Json).await;
    let mut plain = node.raw().await;
    plain.send(raw::upgrade(&[]).as_bytes()).await;
    let (status, head) = plain.head().await;
    assert_eq!(status, 101);
    assert!(!head.contains("sec-websocket-protocol"), "{head}");
    plain.frame(FIN | TEXT, b"{\"id\":9,\"ping\":{}}").await;
    let (first, payload) = plain.next_frame().await;
    let text = String::from_utf8(payload).unwrap();
    assert!(
        first == FIN | TEXT && text.contains("\"id\":9") && text.contains("unauthenticated"),
        "{text}"
    );
    let mut foreign = node.raw().await;
    foreign
        .send(raw::upgrade(&[("sec-websocket-protocol", "graphql-ws")]).as_bytes())
        .await;
    assert_eq!(foreign.head().await.0, 400);
    node.finish().await;
}

#[tokio::test]
async fn ten_wrong_tokens_take_no_longer_than_it_takes() {
    // A guard against a refusal that waits: everything a stranger can cause is answered at once.
    let node = Node::start(Encoding::Json).await;
    let start = Instant::now();
    for _ in 0..10 {
        let mut client = node.open().await;
        connect_with(&mut client, "hello").await.unwrap_err();
        client.expect_close(4501).await;
    }
    assert!(start.elapsed() < Duration::from_secs(60));
    node.finish().await;
}

#[tokio::test]
async fn who_does_not_wait_for_the_upgrade_is_heard() {
    let node = Node::start(Encoding::Json).await;
    let connect = json!({"id": 1, "connect": {"token": user("ada").token()}}).to_string();
    let join = json!({"id": 2, "join": {"room": "r"}}).to_string();
    let upgrade = raw::upgrade(&[]).into_bytes();
    let frames = [
        raw::masked(FIN | TEXT, connect.as_bytes()),
        raw::masked(FIN | TEXT, join.as_bytes()),
    ]
    .concat();
    // Whole, and cut within a frame.
    for cut in [frames.len(), 100] {
        let mut eager = node.raw().await;
        eager.send(&[&upgrade[..], &frames[..cut]].concat()).await;
        assert_eq!(eager.head().await.0, 101);
        eager.send(&frames[cut..]).await;
        for expected in ["\"connected\"", "\"joined\""] {
            let text = String::from_utf8(eager.next_frame().await.1).unwrap();
            assert!(text.contains(expected), "{text}");
        }
    }
    node.finish().await;
}

#[tokio::test]
async fn who_ends_its_side_without_a_word_is_let_go() {
    let node = Node::start(Encoding::Json).await;
    let mut half = node.raw().await;
    half.upgrade(&[]).await;
    node.until_connections(1).await;
    half.end_own_side().await;
    half.until_closed().await;
    node.until_connections(0).await;
    node.finish().await;
}
