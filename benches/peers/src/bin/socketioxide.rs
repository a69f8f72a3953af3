//! Socket.IO in Rust: socketioxide on axum and hyper.
//!
//! A client emits `join` with a list of rooms and is acknowledged once it is in them; what is published goes out as
//! `io.to(room).emit("event", text)`.
//!
//! Tuned: WebSocket only, as the clients speak nothing else; `TCP_NODELAY`; a queue for each socket that holds the bursts of
//! the measurements (packets beyond it would be lost; it takes memory as it fills). Its read buffer is 4 KiB by default,
//! and its writer flushes once its queue is empty, so bursts coalesce without our doing.

use std::{convert::Infallible, io, pin::pin};

use axum::{Router, serve::ListenerExt as _};
use roomcast_peers::control;
use socketioxide::{
    SocketIo, TransportType,
    extract::{AckSender, Data, SocketRef},
    handler::ConnectHandler as _,
};
use tokio::net::{TcpListener, TcpStream};

/// Packets that may wait for one socket.
const QUEUE_MAX: usize = 16_384;

#[tokio::main]
async fn main() -> io::Result<()> {
    let ports = roomcast_peers::Ports::of_process();
    let members = roomcast_peers::listen(ports.members)?;
    let control = roomcast_peers::listen(ports.control)?;
    roomcast_peers::announce_rooms("/socket.io/?EIO=4&transport=websocket", &members, &control)?;

    let (layer, io) = SocketIo::builder()
        .transports([TransportType::Websocket])
        .max_buffer_size(QUEUE_MAX)
        .build_layer();
    // Listening starts in a middleware: the connect handler runs as a task of its own, and a client's `join` may be faster.
    io.ns("/", (async || {}).with(listen_for_join));

    let listener = TcpListener::from_std(members)?.tap_io(|stream| {
        // One that left meanwhile is found by its next read.
        let _ = stream.set_nodelay(true);
    });
    let members = tokio::spawn(axum::serve(listener, Router::new().layer(layer)).into_future());
    let control = TcpListener::from_std(control)?;
    let controls = tokio::spawn(async move {
        loop {
            let (stream, _) = control.accept().await?;
            tokio::spawn(publish_from(stream, io.clone()));
        }
    });
    tokio::select! {
        ended = pin!(members) => ended?,
        ended = pin!(controls) => ended?,
    }
}

async fn listen_for_join(socket: SocketRef) -> Result<(), Infallible> {
    socket.on(
        "join",
        async |socket: SocketRef, Data(rooms): Data<Vec<String>>, ack: AckSender| {
            socket.join(rooms);
            // No arguments: `()` would be one, null. A client that left meanwhile needs no answer.
            let _ = ack.send(&[(); 0]);
        },
    );
    Ok(())
}

async fn publish_from(stream: TcpStream, io: SocketIo) -> io::Result<()> {
    let mut publishes = control::Reader::new(stream);
    while let Some((room, text)) = publishes.next().await? {
        if let Err(error) = io.to(room).emit("event", &text).await {
            eprintln!("error: {error}");
        }
    }
    Ok(())
}
