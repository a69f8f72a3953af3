//! Byte sequences of clients that the test suite has no program for, as their sources and reports describe them, replayed.

use serde_json::json;

use super::speakers::{Wire, answer, node, request, send_request};
use crate::support::{Node, user};

/// The steps of a client that polls first and upgrades by itself.
struct Replayed {
    /// The query of the first request; `transport` comes last.
    query: &'static str,
    /// The packet that opens the session, without its data.
    connect: &'static str,
    /// What is posted while the WebSocket is probed.
    posted: Option<&'static str>,
    /// The end of polling.
    upgrade: &'static str,
    /// The event that joins a room.
    join: &'static str,
}

/// Replays a client, which sees each event once and in order, whatever the transport.
async fn replay(node: &Node, client: &Replayed) {
    let polling = format!("{}&transport=polling", client.query);
    let (status, body, _) = request(node, "GET", &polling, "", "").await;
    assert_eq!(status, 200, "{body}");
    let sid = body.split('"').nth(3).unwrap();
    let poll = format!("{polling}&sid={sid}");
    let auth = json!({"token": user("ada").token()});
    let connect = format!("{}{auth}", client.connect);
    assert_eq!(request(node, "POST", &poll, "", &connect).await.0, 200);
    let (_, connected, _) = request(node, "GET", &poll, "", "").await;
    assert!(connected.starts_with("40{\"sid\":"), "{connected}");
    assert_eq!(request(node, "POST", &poll, "", client.join).await.0, 200);
    let (_, joined, _) = request(node, "GET", &poll, "", "").await;
    assert!(joined.starts_with("430[{\"ok\":true,\"room\":\"r\""), "{joined}");
    let backend = node.backend();
    backend.publish("r", "polled", json!(1)).await;
    assert_eq!(request(node, "GET", &poll, "", "").await.1, "42[\"polled\",1]");

    // One poll stays open while the WebSocket is probed.
    let mut open = node.raw().await;
    send_request(&mut open, "GET", &poll, "", "").await;
    let mut wire = Wire::upgrade(node, &format!("{}&transport=websocket&sid={sid}", client.query)).await;
    wire.say("2probe").await;
    assert_eq!(wire.hear().await, "3probe");
    if let Some(posted) = client.posted {
        assert_eq!(request(node, "POST", &poll, "", posted).await.0, 200);
    }
    assert_eq!(answer(&mut open).await.1, "6");
    backend.publish("r", "probed", json!(2)).await;
    wire.say(client.upgrade).await;
    assert_eq!(wire.hear().await, "42[\"probed\",2]");
    backend.publish("r", "upgraded", json!(3)).await;
    assert_eq!(wire.hear().await, "42[\"upgraded\",3]");
    wire.say("41/,").await;
    wire.say(&connect).await;
    assert!(wire.hear().await.starts_with("40{\"sid\":"));
    wire.close().await;
    node.until_connections(0).await;
}

#[tokio::test]
async fn swift_is_served_byte_for_byte() {
    let node = node().await;
    let swift = Replayed {
        // Parameters of the application stand among those of the engine.
        query: "b64=1&device=phone%207&EIO=4",
        connect: "40/,",
        posted: Some("6"),
        upgrade: "5",
        join: r#"420["roomcast:join",{"room":"r"}]"#,
    };
    replay(&node, &swift).await;
    node.finish().await;
}

#[tokio::test]
async fn java_is_served_byte_for_byte() {
    let node = node().await;
    let java = Replayed {
        query: "EIO=4&t=PXr3abc&app=1",
        connect: "40",
        posted: None,
        upgrade: "5",
        join: r#"420["roomcast:join",{"room":"r"}]"#,
    };
    replay(&node, &java).await;
    node.finish().await;
}

#[tokio::test]
async fn data_behind_an_upgrade_and_named_main_namespaces_are_taken() {
    let node = node().await;
    let others = Replayed {
        query: "EIO=4&EIO=4&&x",
        connect: "40/,",
        posted: Some("3"),
        upgrade: "52",
        join: r#"42/,0["roomcast:join",{"room":"r"}]"#,
    };
    replay(&node, &others).await;
    node.finish().await;
}
