//! A reader of event streams that comes to its end when the connection does.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// An event that was dispatched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatched {
    pub name: String,
    pub data: String,
    /// The last event id at that moment.
    pub id: String,
}

impl Dispatched {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The text of a stream on its way to events, as a browser reads it.
#[derive(Debug, Default)]
pub struct Dispatcher {
    text: String,
    /// The last event id.
    pub id: String,
    pub retry_ms: Option<u64>,
}

impl Dispatcher {
    pub fn after(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            ..Self::default()
        }
    }

    pub fn push(&mut self, text: &str) {
        self.text += text;
    }

    /// The beginning of a block that has not come to its end.
    pub fn rest(&self) -> &str {
        &self.text
    }

    /// The next event of the whole blocks.
    pub fn dispatch(&mut self) -> Option<Dispatched> {
        while let Some((block, rest)) = self.text.split_once("\n\n") {
            let (block, rest) = (block.to_owned(), rest.to_owned());
            self.text = rest;
            if let Some(event) = self.block(&block) {
                return Some(event);
            }
        }
        None
    }

    fn block(&mut self, block: &str) -> Option<Dispatched> {
        let (mut name, mut data) = (None, Vec::new());
        for line in block.lines() {
            match line.split_once(": ").unwrap_or((line, "")) {
                ("id", id) => id.clone_into(&mut self.id),
                ("event", value) => name = Some(value.to_owned()),
                ("data", line) => data.push(line),
                ("retry", retry) => self.retry_ms = Some(retry.parse().unwrap()),
                (":", "") => {}
                other => panic!("{other:?} in {block:?}"),
            }
        }
        let event = Dispatched {
            name: name?,
            data: data.join("\n"),
            id: self.id.clone(),
        };
        assert!(!data.is_empty(), "{block:?}");
        Some(event)
    }
}

/// A stream. [`Self::next`] may be given up and called again.
#[derive(Debug)]
pub struct EventStream {
    stream: TcpStream,
    bytes: Vec<u8>,
    pub read: Dispatcher,
    is_over: bool,
}

impl EventStream {
    /// Opens a stream from where another one was, if it was; `None` when there is none. One that is `narrow` has little room
    /// in the kernel.
    pub async fn open(address: SocketAddr, query: &str, token: &str, after: &str, narrow: bool) -> Option<Self> {
        let socket = TcpSocket::new_v4().expect("a socket is made");
        if narrow {
            socket.set_recv_buffer_size(4096).expect("a size is set");
        }
        let mut stream = socket.connect(address).await.ok()?;
        let after_line = match after {
            "" => String::new(),
            id => format!("last-event-id: {id}\r\n"),
        };
        let request = format!(
            "GET /v1/events{query} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n{after_line}\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        head.starts_with(b"HTTP/1.1 200 ").then(|| Self {
            stream,
            bytes: Vec::new(),
            read: Dispatcher::after(after),
            is_over: false,
        })
    }

    /// The next event; `None` at the end, also one in the midst of an event.
    pub async fn next(&mut self) -> Option<Dispatched> {
        loop {
            if let Some(event) = self.read.dispatch() {
                return Some(event);
            }
            match self.chunk() {
                Some(chunk) => {
                    self.is_over |= chunk.is_empty();
                    self.read.push(&chunk);
                }
                None if self.is_over || self.stream.read_buf(&mut self.bytes).await.ok()? == 0 => return None,
                None => {}
            }
        }
    }

    /// The next whole chunk of what was read (RFC 9112 section 7.1).
    fn chunk(&mut self) -> Option<String> {
        let line = self.bytes.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&self.bytes[..line]).expect("a size is text");
        let size = usize::from_str_radix(size, 16).expect("a size is a number");
        let (start, end) = (line + 2, line + 2 + size);
        if self.bytes.len() < end + 2 {
            return None;
        }
        let chunk = String::from_utf8(self.bytes[start..end].to_vec()).expect("a stream is text");
        self.bytes.drain(..end + 2);
        Some(chunk)
    }
}
