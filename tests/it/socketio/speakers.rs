//! Clients of Socket.IO that send what a test wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use roomcast::gateway::Config;
use roomcast::transport::socketio;
use serde_json::Value;

use crate::support::raw::{BINARY, CLOSE, FIN, Raw, TEXT, masked, upgrade};
use crate::support::{Encoding, Node, User};

pub const POLLING: &str = "EIO=4&transport=polling";
pub const WEBSOCKET: &str = "EIO=4&transport=websocket";

/// A gateway that speaks Socket.IO, in two namespaces.
pub async fn node() -> Node {
    node_with(|_| {}).await
}

/// The same with other settings of Socket.IO.
pub async fn node_with(change: fn(&mut socketio::Config)) -> Node {
    Node::with(Encoding::Json, move |config| with_socketio(config, change)).await
}

/// Adds Socket.IO to a gateway.
pub fn with_socketio(config: &mut Config, change: impl FnOnce(&mut socketio::Config)) {
    let mut settings = socketio::Config {
        namespaces: vec!["/".to_owned(), "/custom".to_owned()],
        ..socketio::Config::default()
    };
    change(&mut settings);
    let settings = Arc::new(settings);
    config.protocols = socketio::register(&config.protocols, &settings);
    config.sockets.socketio = settings;
}

/// Pings come quickly, and are to be answered quickly.
pub fn hasty(settings: &mut socketio::Config) {
    settings.ping_interval = Duration::from_millis(200);
    settings.ping_timeout = Duration::from_millis(300);
}

/// One HTTP request on a connection of its own.
pub async fn request(node: &Node, method: &str, query: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut raw = node.raw().await;
    send_request(&mut raw, method, query, headers, body).await;
    answer(&mut raw).await
}

pub async fn send_request(raw: &mut Raw, method: &str, query: &str, headers: &str, body: &str) {
    let length = body.len();
    let head = format!("{method} /socket.io/?{query} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n");
    raw.send(format!("{head}{body}").as_bytes()).await;
}

/// Status, body and head of an answer.
pub async fn answer(raw: &mut Raw) -> (u16, String, String) {
    let (status, head) = raw.head().await;
    let length = head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next());
    let body = raw.text(length.map_or(0, |length| length.parse().unwrap())).await;
    (status, body, head)
}

/// A client that polls.
pub struct Poller<'n> {
    node: &'n Node,
    pub sid: String,
}

impl<'n> Poller<'n> {
    pub async fn open(node: &'n Node) -> Self {
        let (status, body, head) = request(node, "GET", POLLING, "", "").await;
        assert_eq!(status, 200, "{body}");
        assert!(head.contains("cache-control: no-store\r\n"), "{head}");
        let opened: Value = serde_json::from_str(body.strip_prefix('0').unwrap()).unwrap();
        let keys: Vec<&String> = opened.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"]);
        assert_eq!(opened["upgrades"], serde_json::json!(["websocket"]));
        Self {
            node,
            sid: opened["sid"].as_str().unwrap().to_owned(),
        }
    }

    /// A client with a session in the main namespace.
    pub async fn connect(node: &'n Node, user: &User) -> Self {
        let poller = Self::open(node).await;
        poller.post(&connect_packet(user)).await;
        assert!(poller.poll().await.starts_with("40{\"sid\":"));
        poller
    }

    pub fn query(&self) -> String {
        format!("{POLLING}&sid={}", self.sid)
    }

    /// The packets of one poll.
    pub async fn poll(&self) -> String {
        let (status, body) = self.try_poll().await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub async fn try_poll(&self) -> (u16, String) {
        let (status, body, _) = request(self.node, "GET", &self.query(), "", "").await;
        (status, body)
    }

    pub async fn post(&self, packets: &str) {
        assert_eq!(self.try_post(packets).await, (200, "ok".to_owned()));
    }

    pub async fn try_post(&self, packets: &str) -> (u16, String) {
        let (status, body, _) = request(self.node, "POST", &self.query(), "", packets).await;
        (status, body)
    }

    /// Polls until the packets so far hold a text; all of them.
    pub async fn poll_until(&self, text: &str) -> String {
        let mut all = self.poll().await;
        while !all.contains(text) {
            all = format!("{all}\u{1e}{}", self.poll().await);
        }
        all
    }

    /// Sends a command and polls for its acknowledgement.
    pub async fn command(&self, ack: u32, name: &str, data: &Value) -> Value {
        self.post(&command_packet(ack, name, data)).await;
        let mark = format!("43{ack}[");
        let packets = self.poll_until(&mark).await;
        let packet = packets.split('\u{1e}').find_map(|packet| packet.strip_prefix(&mark));
        serde_json::from_str(packet.unwrap().strip_suffix(']').unwrap()).unwrap()
    }
}

pub fn connect_packet(user: &User) -> String {
    format!("40{}", serde_json::json!({"token": user.token()}))
}

pub fn command_packet(ack: u32, name: &str, data: &Value) -> String {
    format!("42{ack}[\"roomcast:{name}\",{data}]")
}

/// A client with a WebSocket.
pub struct Wire {
    raw: Raw,
}

impl Wire {
    /// A WebSocket on which nothing was said.
    pub async fn upgrade(node: &Node, query: &str) -> Self {
        Self::over(node.raw().await, query).await
    }

    /// The same over a connection of the test's own.
    pub async fn over(mut raw: Raw, query: &str) -> Self {
        let request = upgrade(&[]).replace("/v1/ws", &format!("/socket.io/?{query}"));
        raw.send(request.as_bytes()).await;
        let (status, head) = raw.head().await;
        assert_eq!(status, 101, "{head}");
        Self { raw }
    }

    /// A new connection.
    pub async fn open(node: &Node) -> Self {
        Self::open_on(node.raw().await).await
    }

    /// A new connection to a gateway that is a process of its own.
    pub async fn open_at(address: SocketAddr) -> Self {
        Self::open_on(Raw::connect(address, &Arc::default()).await).await
    }

    async fn open_on(raw: Raw) -> Self {
        let mut wire = Self::over(raw, WEBSOCKET).await;
        let opened = wire.hear().await;
        assert!(
            opened.starts_with("0{\"sid\":\"") && opened.contains("\"upgrades\":[],"),
            "{opened}"
        );
        wire
    }

    /// A client with a session in the main namespace.
    pub async fn connect(node: &Node, user: &User) -> Self {
        let mut wire = Self::open(node).await;
        wire.say(&connect_packet(user)).await;
        let connected = wire.hear().await;
        assert!(connected.starts_with("40{\"sid\":"), "{connected}");
        wire
    }

    pub async fn say(&mut self, packet: &str) {
        self.raw.frame(FIN | TEXT, packet.as_bytes()).await;
    }

    /// Says several packets in one write.
    pub async fn say_all(&mut self, packets: &[&str]) {
        let frames = packets.iter().map(|packet| masked(FIN | TEXT, packet.as_bytes()));
        self.raw.send(&frames.collect::<Vec<_>>().concat()).await;
    }

    pub async fn say_bytes(&mut self, bytes: &[u8]) {
        self.raw.frame(FIN | BINARY, bytes).await;
    }

    /// The next packet.
    pub async fn hear(&mut self) -> String {
        let (first, mut payload) = self.raw.next_frame().await;
        if first == TEXT {
            let (last, end) = self.raw.next_frame().await;
            assert_eq!(last, FIN, "the end of a text in two parts");
            payload.extend(end);
        } else {
            assert_eq!(first, FIN | TEXT, "{}", String::from_utf8_lossy(&payload));
        }
        String::from_utf8(payload).unwrap()
    }

    /// The next packet, or the end of the connection.
    pub async fn hear_or_end(&mut self) -> Option<String> {
        let (first, mut payload) = self.raw.next_frame_or_end().await.ok()?;
        if first == TEXT {
            payload.extend(self.raw.next_frame_or_end().await.ok()?.1);
        }
        (first & !FIN == TEXT).then(|| String::from_utf8(payload).unwrap())
    }

    /// Is cut off without a word.
    pub async fn cut(mut self) {
        self.raw.end_own_side().await;
    }

    pub async fn hear_bytes(&mut self) -> Vec<u8> {
        let (first, payload) = self.raw.next_frame().await;
        assert_eq!(first, FIN | BINARY);
        payload
    }

    /// Sends a command; its acknowledgement, which comes next.
    pub async fn command(&mut self, ack: u32, name: &str, data: &Value) -> Value {
        self.say(&command_packet(ack, name, data)).await;
        let heard = self.hear().await;
        let body = heard
            .strip_prefix(&format!("43{ack}["))
            .unwrap_or_else(|| panic!("{heard}"));
        serde_json::from_str(body.strip_suffix(']').unwrap()).unwrap()
    }

    /// Reads up to the close frame; its code.
    pub async fn close_code(&mut self) -> u16 {
        self.raw.close_code().await
    }

    /// The packets up to the close frame.
    pub async fn until_closed(&mut self) -> Vec<String> {
        let mut packets = Vec::new();
        loop {
            let (first, payload) = self.raw.next_frame().await;
            if first == FIN | CLOSE {
                return packets;
            }
            packets.push(String::from_utf8(payload).unwrap());
        }
    }

    /// Reads up to the end, whatever comes.
    pub async fn until_ended(&mut self) {
        self.raw.until_closed().await;
    }

    /// Closes it as clients do.
    pub async fn close(mut self) {
        self.raw.frame(FIN | CLOSE, &1000u16.to_be_bytes()).await;
        self.raw.until_closed().await;
    }
}
