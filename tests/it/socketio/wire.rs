//! Packets over a WebSocket.

use serde_json::{Value, json};

use super::speakers::{POLLING, Poller, WEBSOCKET, Wire, connect_packet, node, request};
use crate::support::{Carries as _, user};

#[tokio::test]
async fn a_client_connects_joins_publishes_and_receives() {
    let node = node().await;
    let mut ada = Wire::connect(&node, &user("ada")).await;
    let mut bob = node.connect(user("bob")).await;
    bob.join("r").await;
    let joined = ada
        .command(0, "join", &json!({"room": "r", "presence": "members"}))
        .await;
    assert_eq!((&joined["ok"], &joined["room"]), (&json!(true), &json!("r")));
    assert_eq!(joined["presence"]["memberCount"], json!(2));
    // Digits and the order of keys are kept.
    let payload = r#"{"z":1.50,"a":12345678901234567890,"t":"ü \ud83d\ude00"}"#;
    ada.say(&format!(
        r#"421["roomcast:publish",{{"room":"r","eventName":"said","payload":{payload}}}]"#
    ))
    .await;
    let heard = [ada.hear().await, ada.hear().await];
    assert!(heard.contains(&format!("42[\"said\",{payload}]")), "{heard:?}");
    assert!(
        heard
            .iter()
            .any(|packet| packet.starts_with("431[{\"ok\":true,\"position\":")),
        "{heard:?}"
    );
    let event = bob.expect_event("r", "said").await;
    assert_eq!(event.json()["t"], json!("ü 😀"));
    node.backend().publish("r", "news", json!(7)).await;
    assert_eq!(ada.hear().await, "42[\"news\",7]");
    let left = ada.command(2, "leave", &json!({"room": "r"})).await;
    assert_eq!(left, json!({"ok": true, "room": "r"}));
    ada.close().await;
    node.finish().await;
}

#[tokio::test]
async fn binary_data_follows_its_packet() {
    let node = node().await;
    let mut ada = Wire::connect(&node, &user("ada")).await;
    ada.command(0, "join", &json!({"room": "r"})).await;
    // What begins like a packet is data all the same, and there may be none.
    for data in [&b"\x04data"[..], b"4", b"b", b""] {
        ada.say(r#"451-1["roomcast:publish",{"room":"r","eventName":"file","payload":{"_placeholder":true,"num":0}}]"#)
            .await;
        ada.say_bytes(data).await;
        let mut packets = Vec::new();
        while packets.len() < 2 {
            let packet = ada.hear().await;
            if packet.starts_with("451-") {
                assert_eq!(packet, r#"451-["file",{"_placeholder":true,"num":0}]"#);
                assert_eq!(ada.hear_bytes().await, data);
            }
            packets.push(packet);
        }
    }
    ada.close().await;
    node.finish().await;
}

#[tokio::test]
async fn an_event_nobody_handles_is_answered() {
    let node = node().await;
    let mut ada = Wire::connect(&node, &user("ada")).await;
    ada.say(r#"425["chat",{"a":1},"b"]"#).await;
    let refused = r#"{"code":"unimplemented","reason":"unhandled_event","message":"nothing here handles this event"}"#;
    assert_eq!(ada.hear().await, format!("435[{{\"error\":{refused}}}]"));
    // Without an acknowledgement it is an event.
    ada.say(r#"42["chat"]"#).await;
    let told = ada.hear().await;
    assert!(
        told.starts_with("42[\"roomcast:error\",{\"code\":\"unimplemented\","),
        "{told}"
    );
    // A command without one is carried out, and only its refusal is told.
    ada.say(r#"42["roomcast:join",{"room":"r"}]"#).await;
    ada.say(r#"42["roomcast:join",{"room":""}]"#).await;
    let told = ada.hear().await;
    assert!(
        told.starts_with("42[\"roomcast:error\",{\"code\":\"invalid\",\"reason\":\"invalid_room\""),
        "{told}"
    );
    node.backend().publish("r", "news", json!(1)).await;
    assert_eq!(ada.hear().await, "42[\"news\",1]");
    ada.close().await;
    node.finish().await;
}

#[tokio::test]
async fn each_namespace_is_a_session_of_its_own() {
    let node = node().await;
    let mut ada = Wire::connect(&node, &user("ada")).await;
    let other = connect_packet(&user("eve")).replacen("40", "40/custom,", 1);
    ada.say(&other).await;
    assert!(ada.hear().await.starts_with("40/custom,{\"sid\":"));
    ada.say(r#"42/custom,0["roomcast:join",{"room":"r"}]"#).await;
    assert!(ada.hear().await.starts_with("43/custom,0[{\"ok\":true"));
    node.backend().publish("r", "news", json!(1)).await;
    assert_eq!(ada.hear().await, "42/custom,[\"news\",1]");
    ada.say("40/nowhere,{}").await;
    assert_eq!(ada.hear().await, "44/nowhere,{\"message\":\"Invalid namespace\"}");
    // Left and entered again in one write, while the other goes on.
    ada.say("41/custom,").await;
    ada.say(&other).await;
    ada.say(r#"420["roomcast:ping"]"#).await;
    let heard = [ada.hear().await, ada.hear().await];
    assert!(
        heard.iter().any(|packet| packet.starts_with("430[{\"ok\":true")),
        "{heard:?}"
    );
    assert!(
        heard.iter().any(|packet| packet.starts_with("40/custom,{\"sid\":")),
        "{heard:?}"
    );
    // It is a new session, which is in no room.
    ada.say(r#"42/custom,1["roomcast:join",{"room":"r"}]"#).await;
    assert!(ada.hear().await.starts_with("43/custom,1[{\"ok\":true"));
    // After the last session the connection stays.
    ada.say("41").await;
    ada.say("41/custom").await;
    ada.say(&connect_packet(&user("ada"))).await;
    assert!(ada.hear().await.starts_with("40{"));
    ada.close().await;
    node.finish().await;
}

#[tokio::test]
async fn an_impatient_connect_is_one_session_and_a_late_one_a_fault() {
    let node = node().await;
    let mut ada = Wire::open(&node).await;
    let connect = connect_packet(&user("ada"));
    // Both are read at once, so the second one comes while the token of the first is being verified.
    ada.say_all(&[&connect, &connect, r#"420["roomcast:ping"]"#]).await;
    assert!(ada.hear().await.starts_with("40{"));
    assert!(ada.hear().await.starts_with("430["));
    ada.say(&connect).await;
    assert_eq!(ada.close_code().await, 1002);
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn what_no_client_sends_ends_the_connection() {
    let node = node().await;
    for packet in [
        "",
        "x",
        "7",
        "0{}",
        "2",
        "2probe",
        "5",
        "4",
        "4x",
        "44{}",
        "47",
        "42{}",
        "42[]",
        "42[{}]",
        "42[\"a\"",
        "42[\"connect\"]",
        "42[\"disconnecting\",1]",
        "42abc[\"a\"]",
        "429999999999[\"a\"]",
        "43[]",
        "431{}",
        "41/custom",
        "42/custom,[\"a\"]",
        "42/nowhere,[\"a\"]",
        "450-[\"a\"]",
        "4511-[\"a\"]",
        "46",
        "40[]",
        "40{",
    ] {
        let mut ada = Wire::connect(&node, &user("ada")).await;
        ada.say(packet).await;
        assert_eq!(ada.close_code().await, 1002, "{packet}");
    }
    // Attachments: text between, one too many, one that nobody announced.
    let header = r#"451-["roomcast:publish",{"room":"r","eventName":"e","payload":{"_placeholder":true,"num":0}}]"#;
    let mut ada = Wire::connect(&node, &user("ada")).await;
    ada.say(header).await;
    ada.say("42[\"roomcast:ping\"]").await;
    assert_eq!(ada.close_code().await, 1002);
    let mut ada = Wire::connect(&node, &user("ada")).await;
    ada.say_bytes(b"data").await;
    assert_eq!(ada.close_code().await, 1002);
    // The largest message, and what is just larger.
    let mut ada = Wire::connect(&node, &user("ada")).await;
    let largest = 100_000 - r#"42["",]"#.len() - 2;
    ada.say(&format!("42[\"\",\"{}\"]", "x".repeat(largest))).await;
    assert!(ada.hear().await.starts_with("42[\"roomcast:error\""));
    ada.say(&format!("42[\"\",\"{}\"]", "x".repeat(largest + 1))).await;
    assert_eq!(ada.close_code().await, 1009);
    node.until_connections(0).await;
    node.finish().await;
}

#[tokio::test]
async fn wrong_requests_are_answered_as_by_the_reference() {
    let node = node().await;
    let sid = Poller::open(&node).await.sid;
    let error = |code: u8, message: &str| json!({"code": code, "message": message});
    let unknown = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for (method, query, expected) in [
        ("GET", "EIO=4".to_owned(), error(0, "Transport unknown")),
        (
            "GET",
            "EIO=4&transport=flashsocket".to_owned(),
            error(0, "Transport unknown"),
        ),
        ("GET", format!("{POLLING}&sid=x"), error(1, "Session ID unknown")),
        (
            "GET",
            format!("{POLLING}&sid={unknown}"),
            error(1, "Session ID unknown"),
        ),
        (
            "POST",
            format!("{POLLING}&sid={unknown}"),
            error(1, "Session ID unknown"),
        ),
        ("POST", POLLING.to_owned(), error(2, "Bad handshake method")),
        ("PUT", POLLING.to_owned(), error(2, "Bad handshake method")),
        ("GET", WEBSOCKET.to_owned(), error(3, "Bad request")),
        ("DELETE", format!("{POLLING}&sid={sid}"), error(3, "Bad request")),
        ("PATCH", format!("{POLLING}&sid={sid}"), error(3, "Bad request")),
        (
            "GET",
            "EIO=3&transport=polling".to_owned(),
            error(5, "Unsupported protocol version"),
        ),
        (
            "GET",
            "transport=polling".to_owned(),
            error(5, "Unsupported protocol version"),
        ),
    ] {
        let (status, body, head) = request(&node, method, &query, "", "").await;
        assert_eq!(status, 400, "{method} {query}: {body}");
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap(),
            expected,
            "{method} {query}"
        );
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
    }
    // Without the slash it is another path.
    let mut raw = node.raw().await;
    raw.send(b"GET /socket.io?EIO=4&transport=polling HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    assert_eq!(raw.head().await.0, 404);
    // Polling clients have no socket of their own that could be cut: this one ends by itself.
    assert_eq!(
        request(&node, "POST", &format!("{POLLING}&sid={sid}"), "", "1").await.0,
        200
    );
    node.finish().await;
}

#[tokio::test]
async fn every_answer_that_has_a_position_says_it() {
    let node = node().await;
    let mut ada = Wire::open(&node).await;
    ada.say(&connect_packet(&user("ada"))).await;
    let connected = ada.hear().await;
    let id = &connected[connected.find("sid\":\"").unwrap() + 6..][..32];
    let joined = ada.command(0, "join", &json!({"room": "r"})).await;
    let epoch = &joined["head"]["epoch"];
    assert!(epoch.is_string(), "{joined}");
    node.backend().publish("r", "news", json!(1)).await;
    assert_eq!(ada.hear().await, "42[\"news\",1]");
    let publish = json!({"room": "r", "eventName": "said", "payload": 2});
    ada.say(&super::speakers::command_packet(1, "publish", &publish)).await;
    let heard = [ada.hear().await, ada.hear().await];
    let answer = heard.iter().find_map(|packet| packet.strip_prefix("431[")).unwrap();
    let published: Value = serde_json::from_str(answer.strip_suffix(']').unwrap()).unwrap();
    assert_eq!(published["position"], json!({"epoch": epoch, "offset": 2}));
    // The position of every event that it got, too: history names each.
    let history = ada.command(2, "history", &json!({"room": "r"})).await;
    assert_eq!(history["head"], published["position"]);
    let offsets = history["events"].as_array().unwrap().iter();
    let offsets: Vec<_> = offsets.map(|event| (&event["epoch"], &event["offset"])).collect();
    assert_eq!(offsets, [(epoch, &json!(1)), (epoch, &json!(2))]);
    // A room that a backend has put it into begins at a position as well.
    let request = roomcast::proto::v1::JoinRoomRequest {
        tenant: crate::support::TENANT.to_owned(),
        room: "s".to_owned(),
        member: Some(roomcast::proto::v1::join_room_request::Member::ConnectionId(
            id.to_owned(),
        )),
        ..Default::default()
    };
    node.backend().rooms.clone().join_room(request).await.unwrap();
    let told = ada.hear().await;
    let data = told.strip_prefix("42[\"roomcast:roomJoined\",").unwrap();
    let moved: Value = serde_json::from_str(data.strip_suffix(']').unwrap()).unwrap();
    assert!(moved["joined"]["head"]["epoch"].is_string(), "{moved}");
    // Each of them is a `since`.
    for since in [&joined["head"], &published["position"], &history["head"]] {
        let again = ada.command(3, "join", &json!({"room": "r", "since": since})).await;
        assert_eq!(again["recovered"], json!(true), "{since}");
        for _ in 0..again["replayed"].as_u64().unwrap_or(0) {
            ada.hear().await;
        }
    }
    ada.close().await;
    node.finish().await;
}
