//! Roomcast: a gRPC-fronted realtime gateway. See `ARCHITECTURE.md` for the map.

pub mod proto;
