//! The harness: a whole gateway in this process, and people, backends and vandals around it.
//!
//! A test reads as a story and waits for facts. Every wait ends after [`wait::PATIENCE`] with a sentence that says what did
//! not happen. What did *not* happen is shown by a later event that did: [`Client::expect_nothing_before`].
//!
//! Everything a client receives is checked beside what the test asks for: the chain of offsets of each room, that nothing
//! comes of a room it is not in, and that the frames say what the contract says they may.

mod application;
mod caller;
mod chain;
mod client;
mod encoding;
pub mod event_stream;
mod gateway;
mod identity;
mod json;
pub mod nats;
mod node;
mod opening;
pub mod proxy;
pub mod raw;
pub mod round_robin;
mod shorthand;
pub mod socketio;
mod wait;

pub use application::{Answer, Application, allow, deny};
pub use caller::{Caller, ROOT, TENANT, ask_of, draft, payload, reason, retry_after, revocation_of, to_room};
pub use client::{Client, Ended};
pub use encoding::Encoding;
pub use gateway::{Gateway, GatewayOptions};
pub use identity::{SECRET, User, in_seconds, user};
pub use node::{Node, OneOf, home_rooms, over_nats, rule, usual};
pub use opening::{NotOpen, Opening};
pub use shorthand::{Carries, InRoom, ToRoom};
pub use wait::{eventually, within};

/// Runs each story once for each encoding a client may speak, and once with two gateways over NATS; those after `alone` not
/// over NATS.
macro_rules! over_encodings {
    ($($story:ident),* $(,)? $(; alone: $($alone:ident),+ $(,)?)?) => {
        mod json {
            $(#[tokio::test]
            async fn $story() {
                super::$story(crate::support::Encoding::Json).await;
            })*
            $($(#[tokio::test]
            async fn $alone() {
                super::$alone(crate::support::Encoding::Json).await;
            })+)?
        }
        mod protobuf {
            $(#[tokio::test]
            async fn $story() {
                super::$story(crate::support::Encoding::Protobuf).await;
            })*
            $($(#[tokio::test]
            async fn $alone() {
                super::$alone(crate::support::Encoding::Protobuf).await;
            })+)?
        }
        mod nats {
            $(#[tokio::test]
            async fn $story() {
                crate::support::over_nats(super::$story(crate::support::Encoding::Json)).await;
            })*
        }
    };
}

/// Runs each story once more, over two gateways over NATS, with clients that speak protobuf: [`over_encodings`] has them
/// speak JSON there.
macro_rules! over_nats_in_protobuf {
    ($($story:ident),* $(,)?) => {
        mod nats_protobuf {
            $(#[tokio::test]
            async fn $story() {
                crate::support::over_nats(super::$story(crate::support::Encoding::Protobuf)).await;
            })*
        }
    };
}

/// Runs each story on one gateway, and on two over NATS that a client reaches by turns.
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

pub(crate) use {alone_and_over_nats, over_encodings, over_nats_in_protobuf};
