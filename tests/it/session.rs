//! From the upgrade to the end of a session: tokens, their ways in, their end and their renewal.

mod renewal;
mod upgrade;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use roomcast::gateway::Config;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::{Connect, ErrorCode, ErrorReply, Join, Refresh};
use serde_json::json;

use crate::support::{Client, Encoding, InRoom as _, Node, SECRET, User, home_rooms, in_seconds, over_encodings, user};

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
    who_lacks_the_claim_of_a_home_room_is_not_let_in,
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
