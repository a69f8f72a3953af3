//! The API over real connections: a tonic client, the listener on a port of its own, and the in-process bus behind it.

mod bodies;
mod bounds;
mod calls;
mod cost;
mod credentials;
mod features;
mod health;
mod history;
mod http;
mod limits;
mod places;
mod protocol;
mod publish;
mod rooms;
mod spans;
mod stream;
mod subscribe;
mod support;
mod tls;
mod unread;
mod watch;
mod web;
