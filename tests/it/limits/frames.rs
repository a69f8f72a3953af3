//! What comes over a WebSocket.

use std::time::Duration;

use roomcast::gateway::Config;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::payload::Content;
use roomcast::proto::client_v1::{ErrorCode, Join, Payload, Ping, Publish};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::raw::{BINARY, CLOSE, CONTINUATION, FIN, LONG, MASK, PING, PONG, Raw, TEXT, head, masked};
use crate::support::{Client, Encoding, InRoom as _, Node, ToRoom as _, over_encodings, over_nats_in_protobuf, user};

over_encodings! {
    a_message_above_the_limit_ends_the_connection_and_one_at_the_limit_does_not,
    the_fourth_message_that_cannot_be_read_ends_the_connection,
    what_is_refused_and_what_is_unknown_never_ends_a_connection,
    json_that_would_hurt_its_readers_is_refused,
    vandals_hurt_nobody_but_themselves,
}

over_nats_in_protobuf! {
    the_fourth_message_that_cannot_be_read_ends_the_connection,
    what_is_refused_and_what_is_unknown_never_ends_a_connection,
}

async fn upgraded(node: &Node) -> Raw {
    let mut raw = node.raw().await;
    raw.upgrade(&[]).await;
    raw
}

#[tokio::test]
async fn who_breaks_the_websocket_protocol_is_closed() {
    let node = Node::start(Encoding::Json).await;
    let unmasked = [head(FIN | TEXT, 2, false), b"{}".to_vec()].concat();
    let long_ping = masked(FIN | PING, &[0; 126]);
    let padded = [&[FIN | TEXT, 0x80 | LONG, 0, 2, 1, 2, 3, 4][..], b"{}"].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("not masked", unmasked, 1002),
        ("a reserved bit", masked(FIN | 0x40 | TEXT, b"{}"), 1002),
        ("two reserved bits", masked(FIN | 0x30 | TEXT, b"{}"), 1002),
        ("a reserved opcode", masked(FIN | 0x03, b""), 1002),
        ("a reserved control opcode", masked(FIN | 0x0b, b""), 1002),
        ("a fragmented ping", masked(PING, b""), 1002),
        ("a long ping", long_ping, 1002),
        ("a continuation of nothing", masked(FIN | CONTINUATION, b"{}"), 1002),
        (
            "a message within a message",
            [masked(TEXT, b"{"), masked(FIN | TEXT, b"{}")].concat(),
            1002,
        ),
        (
            "a close code nobody may send",
            masked(FIN | CLOSE, &1005u16.to_be_bytes()),
            1002,
        ),
        (
            "a close code below 1000",
            masked(FIN | CLOSE, &999u16.to_be_bytes()),
            1002,
        ),
        ("half a close code", masked(FIN | CLOSE, &[3]), 1002),
        ("text that is no UTF-8", masked(FIN | TEXT, b"\"\xff\""), 1007),
        ("text cut within a character", masked(FIN | TEXT, b"\"\xc3"), 1007),
        ("a surrogate in UTF-8", masked(FIN | TEXT, b"\"\xed\xa0\x80\""), 1007),
        (
            "a close reason that is no UTF-8",
            masked(FIN | CLOSE, &[0x03, 0xe8, 0xff]),
            1007,
        ),
        ("bytes", masked(FIN | BINARY, b"{}"), 1003),
    ];
    for (what, bytes, code) in cases {
        let mut raw = upgraded(&node).await;
        raw.send(&bytes).await;
        assert_eq!(raw.close_code().await, code, "{what}");
        raw.until_closed().await;
    }
    // Not wrong, only unusual: a length written longer than it must be is refused by some and read by others.
    let mut raw = upgraded(&node).await;
    raw.send(&padded).await;
    raw.next_frame().await;
    node.finish().await;
}

/// A publish command whose frame has exactly so many bytes.
fn sized(encoding: Encoding, bytes: usize) -> Message {
    let message = |padding: usize| {
        let publish = Publish {
            payload: Some(Payload {
                content: Some(Content::Json(format!("\"{}\"", "x".repeat(padding)))),
            }),
            ..Publish::to("r", "large", json!({}))
        };
        let frame = roomcast::proto::client_v1::ClientFrame {
            id: 4000,
            command: Some(Command::Publish(publish)),
        };
        encoding.encode(&frame)
    };
    let rest = message(bytes - 200).len() - (bytes - 200);
    let message = message(bytes - rest);
    assert_eq!(message.len(), bytes);
    message
}

async fn a_message_above_the_limit_ends_the_connection_and_one_at_the_limit_does_not(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    let mut ben = node.connect(user("ben")).await;
    ben.join("r").await;
    ada.say_raw(sized(encoding, 64 * 1024)).await;
    ada.reply(4000).await.unwrap();
    ben.expect_event("r", "large").await;
    ada.say_raw(sized(encoding, 64 * 1024 + 1)).await;
    ada.expect_close(1009).await;
    node.backend().publish("r", "end", json!({})).await;
    ben.expect_nothing_before("end").await;
    node.finish().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_its_head_before_it_comes() {
    let node = Node::start(Encoding::Json).await;
    for len in [64 * 1024 + 1, 1 << 32, u64::MAX >> 1] {
        let mut raw = upgraded(&node).await;
        raw.send(&[head(FIN | TEXT, len, true), MASK.to_vec()].concat()).await;
        assert_eq!(raw.close_code().await, 1009, "{len}");
    }
    // Over all its fragments together.
    let mut raw = upgraded(&node).await;
    raw.frame(TEXT, &vec![b' '; 40 * 1024]).await;
    let rest = head(FIN | CONTINUATION, 40 * 1024, true);
    raw.send(&[rest, MASK.to_vec()].concat()).await;
    assert_eq!(raw.close_code().await, 1009);
    node.finish().await;
}

#[tokio::test]
async fn endless_fragments_and_slow_messages_are_closed() {
    let hurried = |config: &mut Config| config.sockets.frames.message_duration_max = Duration::from_millis(400);
    let node = Node::with(Encoding::Json, hurried).await;
    let mut many = upgraded(&node).await;
    many.frame(TEXT, b"").await;
    for _ in 0..64 {
        many.frame(CONTINUATION, b"").await;
    }
    assert_eq!(many.close_code().await, 1008);
    // A fragment now and then does not keep a message alive, nor does half a frame.
    let mut slow = upgraded(&node).await;
    slow.frame(TEXT, b"{").await;
    let mut half = upgraded(&node).await;
    half.send(&masked(FIN | TEXT, b"{\"id\":1}")[..9]).await;
    assert_eq!(slow.close_code().await, 1008);
    assert_eq!(half.close_code().await, 1008);
    node.connect(user("ada")).await.join("r").await;
    node.finish().await;
}

#[tokio::test]
async fn a_flood_of_pings_is_closed_and_a_few_are_answered() {
    let node = Node::start(Encoding::Json).await;
    let mut polite = upgraded(&node).await;
    polite.frame(FIN | PING, b"are you there").await;
    assert_eq!(polite.next_frame().await, (FIN | PONG, b"are you there".to_vec()));
    for control in [PING, PONG] {
        let mut flooding = upgraded(&node).await;
        for _ in 0..60 {
            flooding.frame(FIN | control, b"x").await;
        }
        assert_eq!(flooding.close_code().await, 4005);
    }
    node.finish().await;
}

#[tokio::test]
async fn who_gives_no_sign_of_life_is_closed_and_who_does_is_not() {
    let quick = |config: &mut Config| {
        config.session.heartbeat_interval = Duration::from_secs(1);
        config.session.heartbeat_grace = Duration::from_secs(5);
        config.session.authentication_timeout = Duration::from_secs(60);
    };
    let node = Node::with(Encoding::Json, quick).await;
    let mut alive = node.connect(user("ada")).await;
    alive.join("r").await;
    let mut dead = upgraded(&node).await;
    let mut pings = 0;
    let code = loop {
        // A client that reads answers pings by itself; this one reads and does not.
        tokio::select! {
            frame = dead.next_frame() => match frame {
                (first, payload) if first == FIN | CLOSE => break u16::from_be_bytes([payload[0], payload[1]]),
                (first, _) => pings += u32::from(first == FIN | PING),
            },
            ended = alive.end() => panic!("who answers is closed: {ended:?}"),
        }
    };
    assert_eq!(code, 4003);
    assert!(pings > 0, "it was asked before");
    alive.join("s").await;
    node.finish().await;
}

/// The code and reason of what came without a command's id.
async fn complaint(client: &mut Client) -> (ErrorCode, String) {
    match client.push().await {
        roomcast::proto::client_v1::server_frame::Message::Error(refusal) => (refusal.code(), refusal.reason),
        other => panic!("a complaint: {other:?}"),
    }
}

/// Commands of another version, and values that are not acceptable: as many as anybody may send, good ones between.
async fn what_is_refused_and_what_is_unknown_never_ends_a_connection(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let unknown = |id: u8| match encoding {
        Encoding::Json => Message::text(format!("{{\"id\":{id},\"fly\":{{}}}}")),
        // The id, and field 99 with an empty message.
        Encoding::Protobuf => Message::binary(vec![0x08, id, 0x9a, 0x06, 0]),
    };
    for n in 0..8 {
        let refused = Publish {
            payload: Some(Payload {
                content: Some(Content::Json("\"\\ud83d\"".to_owned())),
            }),
            ..Publish::to("r", "bad", json!({}))
        };
        assert_eq!(ada.try_publish(refused).await.unwrap_err().reason, "invalid_argument");
        ada.say_raw(unknown(100 + n)).await;
        let refusal = ada.reply(u32::from(100 + n)).await.unwrap_err();
        assert_eq!(
            (refusal.code(), refusal.reason.as_str()),
            (ErrorCode::Unimplemented, "unsupported")
        );
        ada.ask(Command::Ping(Ping {})).await.unwrap();
    }
    ada.publish("r", "fine", json!({})).await;
    ada.expect_event("r", "fine").await;
    node.finish().await;
}

async fn the_fourth_message_that_cannot_be_read_ends_the_connection(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ada = node.connect(user("ada")).await;
    ada.join("r").await;
    let junk = |text: &'static str| match encoding {
        Encoding::Json => Message::text(text),
        Encoding::Protobuf => Message::binary([&[0xff, 0xff, 0xff][..], text.as_bytes()].concat()),
    };
    for text in ["", "{", "[1,2]"] {
        ada.say_raw(junk(text)).await;
        assert_eq!(
            complaint(&mut ada).await,
            (ErrorCode::Invalid, "malformed".to_owned()),
            "{text:?}"
        );
    }
    // What can be read is still carried out.
    ada.publish("r", "fine", json!({})).await;
    ada.expect_event("r", "fine").await;
    ada.say_raw(junk("null")).await;
    ada.expect_close(4500).await;
    node.finish().await;
}

#[tokio::test]
async fn a_command_with_its_id_that_cannot_be_read_is_answered_under_the_id() {
    let node = Node::start(Encoding::Json).await;
    let texts = [
        (r#"{"id":91,"join":{"room":"r","colour":1}}"#, "unsupported"),
        (r#"{"id":92,"join":{"room":"r"},"join":{"room":"s"}}"#, "malformed"),
        (r#"{"id":93,"join":{"room":"r"},"leave":{"room":"s"}}"#, "malformed"),
        (r#"{"id":94,"join":{"room":"r","room":"s"}}"#, "malformed"),
        (r#"{"id":95,"fly":{}}"#, "unsupported"),
        (
            r#"{"id":96,"publish":{"room":"r","eventName":"e"}}"#,
            "invalid_argument",
        ),
        (
            r#"{"id":97,"publish":{"room":"r","eventName":"e","payload":1,"binary":"AA=="}}"#,
            "invalid_argument",
        ),
        (
            r#"{"id":98,"publish":{"room":"r","eventName":"e","binary":"?"}}"#,
            "invalid_argument",
        ),
        (
            r#"{"id":99,"publish":{"room":"r","eventName":"e","payload":1,"retention":"fast"}}"#,
            "unsupported",
        ),
    ];
    for (text, reason) in texts {
        let mut ada = node.connect(user("ada")).await;
        ada.say_raw(Message::text(text)).await;
        let id = text[6..8].parse().unwrap();
        let refusal = ada.reply(id).await.unwrap_err();
        assert_eq!(refusal.reason, reason, "{text}: {refusal:?}");
        ada.join("r").await;
    }
    // No id, and ids that are none.
    let mut ada = node.connect(user("ada")).await;
    for text in [
        r#"{"ping":{}}"#,
        r#"{"id":0,"ping":{}}"#,
        r#"{"id":4294967296,"ping":{}}"#,
    ] {
        ada.say_raw(Message::text(text)).await;
        assert_eq!(complaint(&mut ada).await.1, "malformed", "{text}");
    }
    ada.ask(Command::Ping(Ping {})).await.unwrap();
    node.finish().await;
}

async fn json_that_would_hurt_its_readers_is_refused(encoding: Encoding) {
    let node = Node::start(encoding).await;
    let mut ben = node.connect(user("ben")).await;
    ben.join("r").await;
    let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
    let bomb = "[".repeat(30_000);
    let objects = format!("{}1{}", "{\"a\":".repeat(33), "}".repeat(33));
    let texts = [
        deep.as_str(),
        &bomb,
        &objects,
        r#""\ud800""#,
        r#"{"\udfff":1}"#,
        r#"{"__proto__":{"admin":true}}"#,
        r#"[{"a":{"\u005f_proto__":1}}]"#,
    ];
    let payload = |text: &str| Payload {
        content: Some(Content::Json(text.to_owned())),
    };
    for text in texts {
        let mut ada = node.connect(user("ada")).await;
        let publish = Publish {
            payload: Some(payload(text)),
            ..Publish::to("r", "bad", json!({}))
        };
        let what = &text[..text.len().min(40)];
        let refusal = ada.try_publish(publish).await.unwrap_err();
        assert!(
            matches!(&*refusal.reason, "invalid_argument" | "malformed"),
            "{what}: {refusal:?}"
        );
        let state = Join {
            state_json: Some(text.to_owned()),
            ..Join::in_room("r")
        };
        let refusal = ada.try_join(state).await.unwrap_err();
        assert!(
            matches!(&*refusal.reason, "invalid_argument" | "malformed"),
            "{what}: {refusal:?}"
        );
    }
    let fine = format!("{}1{}", "[".repeat(32), "]".repeat(32));
    let mut ada = node.connect(user("ada")).await;
    let publish = Publish {
        payload: Some(payload(&fine)),
        ..Publish::to("r", "deep enough", json!({}))
    };
    ada.try_publish(publish).await.unwrap();
    ben.expect_nothing_before("deep enough").await;
    node.finish().await;
}

/// A small generator, so that a run that fails can be run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.roll(256)).unwrap()).collect()
    }
}

async fn vandals_hurt_nobody_but_themselves(encoding: Encoding) {
    let node = Node::with(encoding, |config| config.connections.per_address_max = 10_000).await;
    let mut ben = node.connect(user("ben")).await;
    ben.join("r").await;
    let mut dice = Dice(7);
    for seed in 0..150 {
        let mut vandal = node.raw().await;
        let bytes = dice.roll(200);
        match dice.roll(4) {
            0 => vandal.send(&dice.bytes(bytes)).await,
            kind => {
                vandal
                    .upgrade(&[("sec-websocket-protocol", encoding.subprotocol())])
                    .await;
                let first = u8::try_from(dice.roll(256)).unwrap();
                let junk = dice.bytes(bytes);
                let message = if encoding == Encoding::Json { TEXT } else { BINARY };
                match kind {
                    1 => vandal.send(&junk).await,
                    2 => vandal.frame(first, &junk).await,
                    _ => vandal.frame(FIN | message, &junk).await,
                }
            }
        }
        node.backend().publish("r", "n", json!(seed)).await;
        ben.expect_nothing_before("n").await;
    }
    node.finish().await;
}
