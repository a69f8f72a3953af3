//! Everything that is tested from outside of the crate: one program, so that it links once.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod admin;
mod apply;
mod architecture;
mod chaos;
mod cli;
mod config;
mod config_docs;
mod contract;
mod deploy;
mod dev;
mod drain;
mod fuzz;
mod language;
mod leaks;
mod limits;
mod logs;
mod native;
mod nats;
mod nats_server;
mod negotiation;
mod one_room;
mod orders;
mod permission;
mod presence;
mod protocols;
mod proxy;
mod publish;
mod resume;
mod session;
mod socketio;
mod sse;
mod stress;
mod subscribe;
mod support;
mod telemetry;
mod third_party;
mod tools;
mod trace;
