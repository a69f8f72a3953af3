//! No peer but their opposite: many members of one gateway, held by one small process. `benches/million` starts several.
//!
//! It is started as `crowd --url ws://HOST:PORT/PATH --source 127.0.1.0 --first N`, with the secret that `roomcast dev` signs
//! tokens with in `ROOMCAST_DEV_SECRET`. It reads commands from standard input, a line each, and answers each with a line of
//! JSON; it ends, and with it all connections, when standard input closes.
//!
//! - `connect N`: lets N more members in, each with a token of its own, into two rooms, `ten:K` and `thousand:K`, which it
//!   shares with 9 and 999 others. Few connect at once. Answers when all have connected or failed.
//! - `tally`: what has come since the last tally. An event's payload is `{"at":MICROSECONDS}`, the time it was published.
//! - `stop`: lets nobody else in.
//!
//! Per member there are a socket, its place in the epoll set, and some 50 bytes.

mod connection;
mod frames;
mod hall;
mod token;

use std::{
    error::Error,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, mpsc},
    thread,
};

use mio::{Poll, Waker};

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let secret = std::env::var("ROOMCAST_DEV_SECRET")?;
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), hall::COMMANDS)?);
    let (sender, commands) = mpsc::sync_channel(16);
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() || waker.wake().is_err() {
                return;
            }
        }
        // Dropping the sender says that no more will come.
        drop(sender);
        let _ = waker.wake();
    });
    hall::Hall::new(poll, options, &secret).run(&commands)
}

/// Where members connect from and to, and who they are.
struct Options {
    host: String,
    path: String,
    address: SocketAddr,
    /// The first source address; as many follow as are needed.
    source: Ipv4Addr,
    /// The number of the first member.
    first: u32,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let (mut url, mut source, mut first) = (None, Ipv4Addr::LOCALHOST, 0);
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--url" => url = Some(value),
                "--source" => source = value.parse()?,
                "--first" => first = value.parse()?,
                _ => return Err(format!("no such option: {name}").into()),
            }
        }
        let url = url.ok_or("--url is needed")?;
        let (host, path) = url
            .strip_prefix("ws://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or("--url is ws://HOST:PORT/PATH")?;
        Ok(Self {
            address: host.parse()?,
            host: host.to_owned(),
            path: format!("/{path}"),
            source,
            first,
        })
    }
}
