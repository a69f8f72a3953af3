//! What a server says about itself, over its monitoring port. HTTP by hand: one request, one connection.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that is paused takes a request and never answers.
const ANSWER: Duration = Duration::from_secs(2);

/// The answer to a request, if it is a good one.
pub(super) async fn get(monitor: SocketAddr, path: &str) -> Option<Value> {
    timeout(ANSWER, ask(monitor, path)).await.ok()?
}

async fn ask(monitor: SocketAddr, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(monitor).await.ok()?;
    // Version 1.0: the answer comes in one piece and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?;
    if status != "200" {
        return None;
    }
    serde_json::from_str(body).ok()
}
