//! Roomcast: a gRPC-fronted realtime gateway.
//!
//! The layers, low to high; a module imports only from lower ones. The table in `ARCHITECTURE.md` says what each must not know, and
//! `tests/it/architecture.rs` holds it:
//!
//! 0. vocabulary: [`room`], [`event`], [`position`], [`identity`], [`error`], [`json`], [`binary`], [`rate`], [`lease`], [`mod@accept`],
//!    [`notice`]; beside it [`proto`], the generated wire types, which only the parts that speak gRPC or protobuf import,
//!    [`headers`] and [`trace`]
//! 1. [`nats`]: connections that several adapters share
//! 2. ports and their adapters: [`auth`], [`policy`], [`bus`], [`presence`], [`backend`], [`relay`]
//! 3. [`hub`], [`admission`], [`rooms`], [`cluster`] and [`session`]
//! 4. [`shard`]
//! 5. edges: [`transport`], [`api`], [`admin`] and what it shows, [`metrics`]
//! 6. composition: [`config`], [`telemetry`], [`gateway`], [`cli`]

pub mod accept;
pub mod binary;
pub mod counters;
pub mod digest;
pub mod error;
pub mod event;
pub mod half_index;
pub mod headers;
pub mod identity;
pub mod json;
pub mod lease;
pub mod notice;
pub mod position;
pub mod proto;
pub mod rate;
pub mod readiness;
pub mod recovery;
pub mod room;
pub mod similar;
pub mod sync;
pub mod trace;
pub mod units;
pub mod url;

pub mod nats;

pub mod auth;
pub mod backend;
pub mod bus;
pub mod policy;
pub mod presence;
pub mod relay;

pub mod admission;
pub mod cluster;
pub mod hub;
pub mod rooms;

pub mod session;

pub mod shard;

pub mod admin;
pub mod api;
pub mod metrics;
pub mod transport;

pub mod cli;
pub mod config;
pub mod gateway;
pub mod telemetry;

#[cfg(test)]
mod testing;
