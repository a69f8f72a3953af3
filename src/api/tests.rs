//! The API over real connections: a tonic client, the listener on a port of its own, and the in-process bus behind it.

mod credentials;
mod publish;
mod support;
