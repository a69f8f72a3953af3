//! One room and clients of every protocol in it. Each is told the same events in the same order, and each rule means the same to
//! all of them; on one node, and on three over NATS with the clients spread over them.

mod crowd;
mod ends;
mod entering;
mod heard;
mod listener;
mod presence;
mod rules;
mod starts;
mod told;

use roomcast::gateway::Config;
use roomcast::transport::socketio;

use crate::support::nats::NatsServer;
use crate::support::{Caller, Encoding, Node, OneOf, User};

use self::entering::Start;
use self::heard::Kind;
use self::listener::{Entered, Listener};

/// Runs each story on one node, and on three.
macro_rules! on_one_and_on_three {
    ($($story:ident),* $(,)?) => {
        mod on_one {
            $(#[tokio::test]
            async fn $story() {
                Box::pin(super::$story(1)).await;
            })*
        }
        mod on_three {
            $(#[tokio::test]
            async fn $story() {
                Box::pin(super::$story(3)).await;
            })*
        }
    };
}
use on_one_and_on_three;

/// Nodes that speak every protocol.
struct House {
    node: Node,
    count: usize,
    // Ends behind the nodes.
    _broker: Option<NatsServer>,
}

impl House {
    async fn new(count: usize) -> Self {
        Self::with(count, |_| {}).await
    }

    async fn with(count: usize, change: fn(&mut Config)) -> Self {
        let broker = if count > 1 {
            Some(NatsServer::start().await)
        } else {
            None
        };
        let url = broker.as_ref().map(NatsServer::url);
        let node = Node::several(Encoding::Json, count, move |config| {
            config.protocols = socketio::register(&config.protocols, &config.sockets.socketio);
            if let Some(nats) = &mut config.nats {
                nats.servers = url.clone().into_iter().collect();
            }
            change(config);
        })
        .await;
        Self {
            node,
            count,
            _broker: broker,
        }
    }

    /// A node; those behind the last are counted from the first again.
    fn at(&self, number: usize) -> OneOf<'_> {
        self.node.of_several(number % self.count)
    }

    fn backend(&self, number: usize) -> Caller {
        self.at(number).backend()
    }

    /// A client of each kind in a room, each at the next node.
    async fn enter_all(&self, room: &str, user: impl Fn(Kind) -> User, start: &Start) -> Vec<(Listener, Entered)> {
        let mut all = Vec::new();
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            let entered = Listener::enter(&self.at(number), kind, &user(kind), room, start.clone()).await;
            all.push(entered.unwrap_or_else(|reason| panic!("{kind:?} is refused: {reason}")));
        }
        all
    }

    async fn finish(self) {
        self.node.finish().await;
    }
}
