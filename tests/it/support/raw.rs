//! A TCP connection that sends what it likes.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::node::Traces;
use super::within;

/// The first byte of a frame: the last one of its message, and its opcode (RFC 6455 section 5.2).
pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A TCP connection to one of the gateway's ports.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
}

impl Raw {
    pub async fn connect(address: SocketAddr, traces: &Arc<Traces>) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream = stream.into_std().unwrap();
        traces.sockets.lock().unwrap().push(stream.try_clone().unwrap());
        Self {
            stream: TcpStream::from_std(stream).unwrap(),
        }
    }

    /// Sends bytes. That the other side has ended already is seen by reading.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = within("bytes to be sent", self.stream.write_all(bytes)).await;
    }

    /// Says that nothing more will be sent.
    pub async fn end_own_side(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// The same, where the other side may have ended already.
    pub async fn try_end_own_side(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Everything up to the end of the connection. A reset is an end as well.
    pub async fn until_closed(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        within("the connection to be closed", async {
            while self.stream.read_buf(&mut all).await.is_ok_and(|count| count > 0) {}
        })
        .await;
        all
    }

    /// The status and the head of an HTTP answer.
    pub async fn head(&mut self) -> (u16, String) {
        let mut head = Vec::new();
        within("the head of an answer", async {
            while !head.ends_with(b"\r\n\r\n") {
                match self.stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(error) => panic!("{error} within {:?}", String::from_utf8_lossy(&head)),
                }
            }
        })
        .await;
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.unwrap_or_else(|| panic!("no status: {head}")), head)
    }

    /// So many bytes, as text.
    pub async fn text(&mut self, count: usize) -> String {
        let mut text = vec![0; count];
        within("a body", self.stream.read_exact(&mut text)).await.unwrap();
        String::from_utf8(text).unwrap()
    }

    /// The next chunk of a body (RFC 9112 section 7.1); an empty one ends it.
    pub async fn chunk(&mut self) -> String {
        let mut size = String::new();
        while !size.ends_with("\r\n") {
            size += &self.text(1).await;
        }
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        let chunk = self.text(size + 2).await;
        chunk.strip_suffix("\r\n").unwrap().to_owned()
    }

    /// Becomes a WebSocket.
    pub async fn upgrade(&mut self, headers: &[(&str, &str)]) {
        self.send(upgrade(headers).as_bytes()).await;
        let (status, head) = self.head().await;
        assert_eq!(status, 101, "{head}");
    }

    /// Sends a frame as a client has to: masked.
    pub async fn frame(&mut self, first: u8, payload: &[u8]) {
        self.send(&masked(first, payload)).await;
    }

    /// The next frame of the server: its first byte and its payload.
    pub async fn next_frame(&mut self) -> (u8, Vec<u8>) {
        self.next_frame_or_end().await.expect("the connection is open")
    }

    /// The same, or the end of the connection.
    pub async fn next_frame_or_end(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let frame = async {
            let first = self.stream.read_u8().await?;
            let len = match self.stream.read_u8().await? {
                126 => u64::from(self.stream.read_u16().await?),
                127 => self.stream.read_u64().await?,
                len => u64::from(len),
            };
            let mut payload = vec![0; usize::try_from(len).unwrap()];
            self.stream.read_exact(&mut payload).await?;
            Ok((first, payload))
        };
        within("a frame", frame).await
    }

    /// Reads up to the close frame; the answer is its code.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            let (first, payload) = self.next_frame().await;
            if first == FIN | CLOSE {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }
}

/// The request for an upgrade, with headers more or other ones; one without a value is left out.
pub fn upgrade(headers: &[(&str, &str)]) -> String {
    let mut all = vec![
        ("host", "gateway.test"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    all.retain(|(name, _)| headers.iter().all(|(other, _)| other != name));
    all.extend(headers.iter().filter(|(_, value)| !value.is_empty()));
    let lines: Vec<String> = all.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET /v1/ws HTTP/1.1\r\n{}\r\n", lines.concat())
}

/// In place of a length: it follows in two bytes.
pub const LONG: u8 = 0x7e;
/// In place of a length: it follows in eight bytes.
const LONGER: u8 = 0x7f;

/// What frames are masked with.
pub const MASK: [u8; 4] = [1, 2, 3, 4];

/// A frame as a client has to send it.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(first, payload.len() as u64, true);
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The head of a frame, up to its mask.
pub fn head(first: u8, len: u64, is_masked: bool) -> Vec<u8> {
    let mask = if is_masked { 0x80 } else { 0 };
    let mut head = vec![first];
    match u8::try_from(len) {
        Ok(len @ 0..126) => head.push(mask | len),
        _ if len <= 0xffff => {
            head.push(mask | LONG);
            head.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        }
        _ => {
            head.push(mask | LONGER);
            head.extend_from_slice(&len.to_be_bytes());
        }
    }
    head
}
