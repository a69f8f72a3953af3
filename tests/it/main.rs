//! Everything that is tested from outside of the crate: one program, so that it links once.

mod architecture;
mod autobahn;
mod config;
mod tools;
