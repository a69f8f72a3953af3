//! Requests of a client that polls, each on a connection of its own.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Gone;

/// A poll that waits. It goes on while nobody asks for its answer: one that is given up ends the connection.
#[derive(Debug)]
pub struct Poll(JoinSet<Result<String, Gone>>);

impl Poll {
    pub fn begin(address: SocketAddr, query: String) -> Self {
        let mut poll = JoinSet::new();
        poll.spawn(async move { request(address, "GET", &query, "").await });
        Self(poll)
    }

    /// The answer.
    pub async fn finished(&mut self) -> Result<String, Gone> {
        let finished = self.0.join_next().await.expect("a poll is asked for its answer once");
        finished.expect("a poll does not break")
    }

    pub async fn body(mut self) -> Result<String, Gone> {
        self.finished().await
    }
}

/// The body of a good answer.
pub async fn request(address: SocketAddr, method: &str, query: &str, body: &str) -> Result<String, Gone> {
    let gone = |_| Gone(None);
    let mut stream = TcpStream::connect(address).await.map_err(gone)?;
    stream.set_nodelay(true).map_err(gone)?;
    let head = format!(
        "{method} /socket.io/?{query} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .map_err(gone)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(gone)?;
    let answer = String::from_utf8(answer).map_err(|_| Gone(None))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(Gone(None))?;
    let length = head.to_lowercase();
    let length = length
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next());
    let is_whole = length.and_then(|length| length.parse().ok()) == Some(body.len());
    if head.starts_with("HTTP/1.1 200 ") && is_whole {
        Ok(body.to_owned())
    } else {
        Err(Gone(None))
    }
}
