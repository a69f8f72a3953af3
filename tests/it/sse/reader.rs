//! A reader of event streams, as a browser is one.

use std::ops::Deref;

use crate::support::event_stream::{Dispatched, Dispatcher};
use crate::support::raw::Raw;
use crate::support::{Node, User};

/// A request for a stream.
#[derive(Debug, Clone)]
pub struct Asking {
    query: String,
    headers: Vec<(String, String)>,
}

impl Asking {
    /// With a token, for what the query says.
    pub fn of(user: &User, query: &str) -> Self {
        Self::anonymous(query).header("authorization", &format!("Bearer {}", user.token()))
    }

    /// Without a token.
    pub fn anonymous(query: &str) -> Self {
        Self {
            query: query.to_owned(),
            headers: Vec::new(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// From where a stream was.
    pub fn after(self, id: &str) -> Self {
        self.header("last-event-id", id)
    }

    pub fn request(&self, method: &str, version: &str) -> String {
        let headers = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let headers: String = headers.collect();
        let query = &self.query;
        format!("{method} /v1/events{query} HTTP/{version}\r\nhost: x\r\n{headers}\r\n")
    }

    /// The status and the head of the answer to it, and the connection.
    pub async fn asked(&self, node: &Node, method: &str, version: &str) -> (Raw, u16, String) {
        let mut raw = node.raw().await;
        raw.send(self.request(method, version).as_bytes()).await;
        let (status, head) = raw.head().await;
        (raw, status, head)
    }

    /// Opens the stream.
    pub async fn open(&self, node: &Node) -> Reader {
        let (raw, status, head) = self.asked(node, "GET", "1.1").await;
        assert_eq!(status, 200, "{head}");
        for line in [
            "content-type: text/event-stream\r\n",
            "cache-control: no-store, no-transform\r\n",
            "x-accel-buffering: no\r\n",
            "transfer-encoding: chunked\r\n",
            "connection: close\r\n",
        ] {
            assert!(head.contains(line), "{line} is not in {head}");
        }
        let id = self.headers.iter().find(|(name, _)| name == "last-event-id");
        Reader {
            raw,
            read: Dispatcher::after(id.map_or("", |(_, id)| id)),
        }
    }

    /// Opens the stream and reads until these rooms are joined; whether each was recovered.
    pub async fn join<const N: usize>(&self, node: &Node, rooms: [&str; N]) -> (Reader, [bool; N]) {
        let mut reader = self.open(node).await;
        assert_eq!(reader.next().await.name, "roomcast:connected");
        let mut recovered = [false; N];
        for (room, recovered) in rooms.iter().zip(&mut recovered) {
            // Between them may be what the room before has missed; the caller asks for those rooms one by one.
            let joined = reader.next().await;
            assert_eq!(joined.name, "roomcast:joined", "{joined:?}");
            assert_eq!(joined.json()["room"], *room);
            *recovered = joined.json()["recovered"].as_bool().expect("it is always said");
        }
        (reader, recovered)
    }
}

/// A stream. What was read of it (its last event id, among others) is its own as well.
#[derive(Debug)]
pub struct Reader {
    pub raw: Raw,
    read: Dispatcher,
}

impl Deref for Reader {
    type Target = Dispatcher;

    fn deref(&self) -> &Dispatcher {
        &self.read
    }
}

impl Reader {
    /// Ends the connection as a lost one does, and does not wait for what that comes to.
    pub async fn cut(mut self) {
        self.raw.end_own_side().await;
    }

    /// The next event; `None` at the end of the body.
    pub async fn next_or_end(&mut self) -> Option<Dispatched> {
        loop {
            if let Some(event) = self.read.dispatch() {
                return Some(event);
            }
            let chunk = self.raw.chunk().await;
            if chunk.is_empty() {
                assert_eq!(self.read.rest(), "", "the body ends between two blocks");
                return None;
            }
            self.read.push(&chunk);
        }
    }

    pub async fn next(&mut self) -> Dispatched {
        self.next_or_end().await.expect("the stream goes on")
    }

    /// The next event, which has this name.
    pub async fn expect(&mut self, name: &str) -> Dispatched {
        let event = self.next().await;
        assert_eq!(event.name, name, "{event:?}");
        event
    }

    /// Reads the end of the stream; its reason, and whether a browser may come back.
    pub async fn expect_closing(&mut self) -> (String, bool) {
        let closing = self.expect("roomcast:closing").await.json();
        assert_eq!(self.next_or_end().await, None);
        assert_eq!(self.raw.until_closed().await, b"");
        let reconnect = closing["reconnect"].as_bool().unwrap();
        assert_eq!(self.id.starts_with('!'), !reconnect);
        (closing["reason"].as_str().unwrap().to_owned(), reconnect)
    }
}
