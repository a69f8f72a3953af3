//! Socket.IO by its bytes: what the protocol documents of Engine.IO 4 and Socket.IO 5 say that a server does. Stock clients are
//! in `third_party`.

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
