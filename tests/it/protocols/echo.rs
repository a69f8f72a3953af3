//! A protocol that answers each message with itself: by it the Autobahn suite tests the frame codec in a shard's own socket loop.

use std::sync::Arc;
use std::time::Duration;

use roomcast::event::Event;
use roomcast::gateway::Config;
use roomcast::session::{Encoder, Frame, Message};
use roomcast::transport::carrier::Limits;
use roomcast::transport::protocol::{self, Decoded, Protocol, Protocols};
use roomcast::transport::websocket::frame;

use crate::support::{Encoding, Node};
use crate::tools;

/// The largest message of the suite.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

#[derive(Debug)]
struct Echo;

impl Protocol for Echo {
    fn decode(&self, message: protocol::Message<'_>) -> Decoded {
        Decoded::Reply(match message {
            protocol::Message::Text(text) => frame::text_frame(text),
            protocol::Message::Binary(bytes) => frame::binary_frame(bytes),
        })
    }
}

/// Its sessions never open, so they are told nothing.
impl Encoder for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn message(&self, _: u32, _: &Message) -> Frame {
        Frame::new()
    }

    fn heartbeat(&self) -> Frame {
        frame::ping()
    }

    fn event(&self, _: &Event) -> Frame {
        Frame::new()
    }

    fn passed(&self, _: &Event) -> Option<Frame> {
        None
    }
}

/// The limits of the gateway are not what the suite tests.
fn unlimited(config: &mut Config) {
    const HOUR: Duration = Duration::from_secs(3600);
    let echo: [Arc<dyn Protocol>; 1] = [Arc::new(Echo)];
    config.protocols = Protocols::new(echo);
    config.session.authentication_timeout = HOUR;
    config.sockets.control.frames_per_second_max = u32::MAX;
    config.sockets.frames = Limits {
        message_bytes_max: MESSAGE_BYTES_MAX,
        fragments_max: u32::MAX,
        message_duration_max: HOUR,
    };
    config.sockets.outbox.outbox_bytes_max = 4 * MESSAGE_BYTES_MAX;
}

#[tokio::test]
async fn every_case_of_the_autobahn_suite_passes_in_the_shards_socket_loop() {
    let node = Node::with(Encoding::Json, unlimited).await;
    let url = format!("ws://{}/v1/ws", node.client_address());
    let run = move || tools::bash("scripts/autobahn.sh").arg(url).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // The suite has 301 such cases in the pinned version: none may get lost on the way.
    assert!(said.contains("autobahn: 301 passed, 0 failed, 0 non-strict"), "{said}");
    node.finish().await;
}
