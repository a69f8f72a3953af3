//! Asks of backends, which clients of Socket.IO see as events with an acknowledgement.

use roomcast::proto::v1;
use roomcast::proto::v1::ask_response::Answer as Told;
use roomcast::proto::v1::payload::Content;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::speakers::{Poller, WEBSOCKET, Wire, connect_packet, node};
use crate::support::{Caller, Node, ask_of, reason, user};

fn asking(node: &Node, request: v1::AskRequest) -> tokio::task::JoinHandle<Result<Told, Status>> {
    let backend: Caller = node.backend();
    TaskTracker::new().spawn(async move { backend.ask(request).await })
}

/// The id of a connection in the answer to its CONNECT packet.
fn id_in(packet: &str) -> String {
    let (_, data) = packet.split_once('{').unwrap();
    let data: Value = serde_json::from_str(&format!("{{{data}")).unwrap();
    data["sid"].as_str().unwrap().to_owned()
}

/// A client with a session, and its id.
async fn connect(node: &Node) -> (Wire, String) {
    let mut wire = Wire::open(node).await;
    wire.say(&connect_packet(&user("ada"))).await;
    let id = id_in(&wire.hear().await);
    (wire, id)
}

/// The number under which an event is to be acknowledged: what stands between the packet's beginning and its name.
fn ack_of(packet: &str, begin: &str, rest: &str) -> u32 {
    let ack = packet.strip_prefix(begin).and_then(|packet| packet.strip_suffix(rest));
    ack.unwrap_or_else(|| panic!("{packet}")).parse().unwrap()
}

fn told(json: &str) -> Told {
    Told::Payload(v1::Payload {
        content: Some(Content::Json(json.to_owned())),
    })
}

#[tokio::test]
async fn an_acknowledgement_answers_with_any_number_of_arguments() {
    let node = node().await;
    let (mut ada, id) = connect(&node).await;
    for (acknowledged, expected) in [
        ("[]", "null"),
        ("[null]", "null"),
        (r#"[{"z":1.50,"a":[]}]"#, r#"{"z":1.50,"a":[]}"#),
        (r#"["a",{"b":1}]"#, r#"["a",{"b":1}]"#),
    ] {
        let asked = asking(&node, ask_of(&id, "confirm", &json!({"n": 1})));
        let ack = ack_of(&ada.hear().await, "42", r#"["confirm",{"n":1}]"#);
        ada.say(&format!("43{ack}{acknowledged}")).await;
        assert_eq!(asked.await.unwrap().unwrap(), told(expected), "{acknowledged}");
    }
    ada.close().await;
    node.finish().await;
}

#[tokio::test]
async fn an_attachment_may_be_the_question_and_the_answer() {
    let node = node().await;
    let (mut ada, id) = connect(&node).await;
    let bytes = v1::Payload {
        content: Some(Content::Binary(b"\x04data".to_vec().into())),
    };
    let request = v1::AskRequest {
        payload: Some(bytes.clone()),
        ..ask_of(&id, "sign", &json!(0))
    };
    let asked = asking(&node, request.clone());
    let placeholder = r#"{"_placeholder":true,"num":0}"#;
    let event = format!(r#"["sign",{placeholder}]"#);
    let ack = ack_of(&ada.hear().await, "451-", &event);
    assert_eq!(ada.hear_bytes().await, b"\x04data");
    ada.say(&format!("461-{ack}[{placeholder}]")).await;
    ada.say_bytes(b"\x04data").await;
    assert_eq!(asked.await.unwrap().unwrap(), Told::Payload(bytes));
    // Anywhere else it is refused: to the backend, and to the client.
    for acknowledged in [
        format!(r#"["a",{placeholder}]"#),
        format!(r#"[{{"file":{placeholder}}}]"#),
    ] {
        let asked = asking(&node, request.clone());
        let ack = ack_of(&ada.hear().await, "451-", &event);
        ada.hear_bytes().await;
        ada.say(&format!("461-{ack}{acknowledged}")).await;
        ada.say_bytes(b"x").await;
        let refused = asked.await.unwrap().unwrap_err();
        assert_eq!(reason(&refused), "ANSWER_INVALID", "{acknowledged}");
        let error = ada.hear().await;
        assert!(error.starts_with(r#"42["roomcast:error",{"code":"invalid""#), "{error}");
    }
    ada.close().await;
    node.finish().await;
}

#[tokio::test]
async fn acknowledgements_that_nobody_waits_for_are_ignored() {
    let node = node().await;
    let (mut ada, id) = connect(&node).await;
    let asked = asking(&node, ask_of(&id, "confirm", &json!(1)));
    let ack = ack_of(&ada.hear().await, "42", r#"["confirm",1]"#);
    ada.say_all(&[
        &format!("43{}[0]", ack + 1),
        "430[0]",
        &format!("43{ack}[1]"),
        &format!("43{ack}[2]"),
    ])
    .await;
    assert_eq!(asked.await.unwrap().unwrap(), told("1"));
    // Nothing is said about them, and the connection goes on.
    assert_eq!(ada.command(0, "ping", &json!({})).await["ok"], json!(true));
    // A name of the gateway's own cannot be imitated.
    let asked = asking(&node, ask_of(&id, "roomcast:roomLeft", &json!(1)));
    let ack = ack_of(&ada.hear().await, "42", r#"["roomcast:roomcast:roomLeft",1]"#);
    ada.say(&format!("43{ack}[]")).await;
    asked.await.unwrap().unwrap();
    ada.close().await;
    node.finish().await;
}

#[tokio::test]
async fn each_namespace_is_asked_for_itself() {
    let node = node().await;
    let (mut ada, id) = connect(&node).await;
    ada.say(&connect_packet(&user("ada")).replacen("40", "40/custom,", 1))
        .await;
    let custom = id_in(&ada.hear().await);
    let main = asking(&node, ask_of(&id, "confirm", &json!(1)));
    let main_ack = ack_of(&ada.hear().await, "42", r#"["confirm",1]"#);
    let other = asking(&node, ask_of(&custom, "confirm", &json!(2)));
    let ack = ack_of(&ada.hear().await, "42/custom,", r#"["confirm",2]"#);
    // An answer in the other namespace is none.
    ada.say(&format!("43{ack}[0]")).await;
    ada.say(&format!("43/custom,{main_ack}[0]")).await;
    ada.say(&format!("43/custom,{ack}[2]")).await;
    assert_eq!(other.await.unwrap().unwrap(), told("2"));
    // One that is left takes its asks along.
    let other = asking(&node, ask_of(&custom, "confirm", &json!(3)));
    ada.hear().await;
    ada.say("41/custom,").await;
    assert_eq!(reason(&other.await.unwrap().unwrap_err()), "CONNECTION_LOST");
    ada.say(&format!("43{main_ack}[1]")).await;
    assert_eq!(main.await.unwrap().unwrap(), told("1"));
    ada.close().await;
    node.finish().await;
}

#[tokio::test]
async fn a_client_that_polls_is_asked_before_during_and_after_its_upgrade() {
    let node = node().await;
    let ada = Poller::open(&node).await;
    ada.post(&connect_packet(&user("ada"))).await;
    let id = id_in(&ada.poll().await);
    let rest = r#"["confirm",1]"#;
    let asked = asking(&node, ask_of(&id, "confirm", &json!(1)));
    let ack = ack_of(&ada.poll().await, "42", rest);
    ada.post(&format!("43{ack}[1]")).await;
    assert_eq!(asked.await.unwrap().unwrap(), told("1"));
    // Asked by a poll, and answered during the probe by a post.
    let first = asking(&node, ask_of(&id, "confirm", &json!(1)));
    let first_ack = ack_of(&ada.poll().await, "42", rest);
    let mut wire = Wire::upgrade(&node, &format!("{WEBSOCKET}&sid={}", ada.sid)).await;
    wire.say("2probe").await;
    assert_eq!(wire.hear().await, "3probe");
    ada.post(&format!("43{first_ack}[2]")).await;
    assert_eq!(first.await.unwrap().unwrap(), told("2"));
    // Asked during the probe: it comes over the WebSocket.
    let second = asking(&node, ask_of(&id, "confirm", &json!(1)));
    wire.say("5").await;
    let ack = ack_of(&wire.hear().await, "42", rest);
    wire.say(&format!("43{ack}[3]")).await;
    assert_eq!(second.await.unwrap().unwrap(), told("3"));
    wire.close().await;
    node.finish().await;
}
