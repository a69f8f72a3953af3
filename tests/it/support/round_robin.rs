//! A load balancer for HTTP/1.1 without sticky sessions: each request goes to the next server, also those of one connection.
//!
//! A client that goes away takes its request with it. An upgrade passes through, and the connection is its own from then on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The balancer; ends with its value.
#[derive(Debug)]
pub struct RoundRobin {
    address: SocketAddr,
    /// Holds the task that accepts, and ends it.
    _accepting: JoinSet<()>,
}

impl RoundRobin {
    /// Stands before these servers.
    pub async fn before(servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::new(servers)));
        Self {
            address,
            _accepting: accepting,
        }
    }

    /// The address to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn accept(listener: TcpListener, servers: Arc<Vec<SocketAddr>>) {
    let (mut connections, turns) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (servers, turns) = (Arc::clone(&servers), Arc::clone(&turns));
        connections.spawn(async move {
            // A side that ends ends the other one.
            let _ = carry(client, &servers, &turns).await;
        });
    }
}

/// Carries the requests of one connection.
async fn carry(client: TcpStream, servers: &[SocketAddr], turns: &AtomicUsize) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = Reader::new(client);
    loop {
        let Some(request) = client.message().await? else {
            return Ok(());
        };
        let turn = turns.fetch_add(1, Ordering::Relaxed) % servers.len();
        let server = TcpStream::connect(servers[turn]).await?;
        server.set_nodelay(true)?;
        let mut server = Reader::new(server);
        server.stream.write_all(&request.bytes).await?;
        if request.has("upgrade", "websocket") {
            let read = std::mem::take(&mut client.read);
            server.stream.write_all(&read).await?;
            copy_bidirectional(&mut client.stream, &mut server.stream).await?;
            return Ok(());
        }
        let response = tokio::select! {
            response = server.message() => response?,
            more = client.more() => {
                // The next request does not come before the answer.
                more?;
                return Ok(());
            }
        };
        let Some(response) = response else {
            // As a balancer says that a server has gone.
            client
                .stream
                .write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
                .await?;
            continue;
        };
        client.stream.write_all(&response.without_close()).await?;
    }
}

/// A request or a response.
struct Message {
    bytes: Vec<u8>,
    head: String,
}

impl Message {
    fn has(&self, name: &str, value: &str) -> bool {
        self.head.contains(&format!("\r\n{name}: {value}\r\n"))
    }

    /// The bytes without the server's wish to close its connection, which is not the client's.
    fn without_close(&self) -> Vec<u8> {
        let line = b"connection: close\r\n";
        let at = self.head.find("connection: close\r\n");
        match at {
            Some(at) => [&self.bytes[..at], &self.bytes[at + line.len()..]].concat(),
            None => self.bytes.clone(),
        }
    }
}

struct Reader {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Reader {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Reads more; returns whether there was anything.
    async fn more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.read).await? > 0)
    }

    /// The next message, with its body; `None` at the end.
    async fn message(&mut self) -> io::Result<Option<Message>> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await? {
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase();
        let length = head.split("\r\ncontent-length:").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.map_or(0, |length| length.trim().parse().expect("a length is a number"));
        assert!(!head.contains("\r\ntransfer-encoding:"), "no chunks here: {head}");
        while self.read.len() < end + length {
            if !self.more().await? {
                return Ok(None);
            }
        }
        let rest = self.read.split_off(end + length);
        let bytes = std::mem::replace(&mut self.read, rest);
        Ok(Some(Message { bytes, head }))
    }
}
