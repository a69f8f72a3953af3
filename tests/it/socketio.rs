//! Socket.IO by its bytes: what the protocol documents of Engine.IO 4 and Socket.IO 5 say that a server does. Stock clients are
//! in `third_party`.

/// Runs each story on one gateway, and on two over NATS that the requests of a client reach by turns.
macro_rules! alone_and_over_nats {
    ($($story:ident),* $(,)?) => {
        mod alone {
            $(#[tokio::test]
            async fn $story() {
                super::$story().await;
            })*
        }
        mod nats {
            $(#[tokio::test]
            async fn $story() {
                crate::support::over_nats(super::$story()).await;
            })*
        }
    };
}

mod asks;
mod bundle;
mod engine;
mod lifecycle;
mod limits;
mod nodes;
mod polling;
mod recovery;
mod replayed;
mod speakers;
mod upgrade;
mod wire;
