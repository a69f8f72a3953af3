//! Engine.IO alone, over a server that gives each message back. What its protocol document says of messages is told here; the
//! rest is in `polling` and `upgrade`.

use roomcast::transport::socketio::{Application, Config};

use super::speakers::{Poller, Wire, node_with};

fn echo(settings: &mut Config) {
    settings.application = Application::Echo;
}

#[tokio::test]
async fn messages_come_back_over_a_websocket() {
    let node = node_with(echo).await;
    let mut wire = Wire::open(&node).await;
    wire.say("4hello").await;
    assert_eq!(wire.hear().await, "4hello");
    wire.say_bytes(&[1, 2, 3, 4]).await;
    assert_eq!(wire.hear_bytes().await, [1, 2, 3, 4]);
    wire.say("").await;
    assert_eq!(wire.close_code().await, 1002);
    node.finish().await;
}

#[tokio::test]
async fn messages_come_back_to_polls_as_they_were_posted() {
    let node = node_with(echo).await;
    let poller = Poller::open(&node).await;
    for packets in [
        "4hello",
        "4",
        "4test1\u{1e}4test2\u{1e}4test3",
        "4hello\u{1e}bAQIDBA==",
        "b",
        "4\u{2028}ü",
    ] {
        poller.post(packets).await;
        assert_eq!(poller.poll().await, packets);
    }
    poller.post("1").await;
    node.finish().await;
}

#[tokio::test]
async fn an_upgraded_connection_goes_on_where_polling_ended() {
    let node = node_with(echo).await;
    let poller = Poller::open(&node).await;
    let mut wire = Wire::upgrade(&node, &format!("EIO=4&transport=websocket&sid={}", poller.sid)).await;
    wire.say("2probe").await;
    assert_eq!(wire.hear().await, "3probe");
    assert_eq!(poller.poll().await, "6");
    poller.post("4before").await;
    // Some clients send data with it.
    wire.say_all(&["52", "4after"]).await;
    assert_eq!(wire.hear().await, "4before");
    assert_eq!(wire.hear().await, "4after");
    assert_eq!(poller.try_poll().await.0, 400);
    wire.close().await;
    node.finish().await;
}
