//! A client of Socket.IO by its bytes, as far as a stock one goes: by polls, over a WebSocket, or from the one to the other.
//! Written from the protocol documents of Engine.IO 4 and Socket.IO 5. It is in the main namespace.

mod http;

use std::collections::VecDeque;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use self::http::Poll;

/// The transport of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    WebSocket,
    Polling,
    /// From the first to the second.
    Upgraded,
}

/// The end of a connection, with the code of a close frame if there was one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone(pub Option<u16>);

/// A packet of the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Packet {
    /// The session is open; the data of the packet.
    Connected(Value),
    /// The session is refused; the data of the packet.
    Refused(Value),
    /// An event, its arguments as they stand in the packet.
    Event {
        name: String,
        arguments: Vec<String>,
        attachments: Vec<Bytes>,
    },
    /// The acknowledgement of a command.
    Acknowledged { ack: u32, arguments: Vec<String> },
    /// The end of the session, while the connection stays.
    Disconnected,
}

#[derive(Debug)]
enum Transport {
    WebSocket(Box<WebSocketStream<TcpStream>>),
    Polling(Option<Poll>),
}

/// A packet whose attachments are still to come.
#[derive(Debug)]
struct Partial {
    text: String,
    owed: usize,
    attachments: Vec<Bytes>,
}

/// A part of what the server sends.
#[derive(Debug)]
enum Part {
    Text(String),
    Binary(Bytes),
}

/// A client. [`Self::next`] may be given up and called again.
#[derive(Debug)]
pub struct SocketIo {
    address: SocketAddr,
    /// The secret id of the connection.
    pub sid: String,
    transport: Transport,
    parts: VecDeque<Part>,
    partial: Option<Partial>,
    kept: VecDeque<Packet>,
    owes_pong: bool,
    acks: u32,
}

impl SocketIo {
    /// Opens a connection. One that is `narrow` has little room in the kernel, so that what is not read piles up in the
    /// gateway.
    pub async fn open(address: SocketAddr, way: Way, narrow: bool) -> Result<Self, Gone> {
        let mut client = Self {
            address,
            sid: String::new(),
            transport: Transport::Polling(None),
            parts: VecDeque::new(),
            partial: None,
            kept: VecDeque::new(),
            owes_pong: false,
            acks: 0,
        };
        if way == Way::WebSocket {
            let mut socket = websocket(address, "EIO=4&transport=websocket", narrow).await?;
            let opened = text_of(&mut socket).await?;
            client.opened(&opened)?;
            client.transport = Transport::WebSocket(Box::new(socket));
            return Ok(client);
        }
        let opened = http::request(address, "GET", "EIO=4&transport=polling", "").await?;
        client.opened(&opened)?;
        if way == Way::Upgraded {
            client.upgrade().await?;
        }
        Ok(client)
    }

    fn opened(&mut self, packet: &str) -> Result<(), Gone> {
        let data = packet.strip_prefix('0').ok_or(Gone(None))?;
        let data: Value = serde_json::from_str(data).expect("the first packet has data");
        data["sid"]
            .as_str()
            .expect("the first packet has an id")
            .clone_into(&mut self.sid);
        Ok(())
    }

    /// Goes on over a WebSocket, in the steps of a stock client.
    pub async fn upgrade(&mut self) -> Result<(), Gone> {
        let query = format!("EIO=4&transport=websocket&sid={}", self.sid);
        let mut socket = websocket(self.address, &query, false).await?;
        socket.send("2probe".into()).await.map_err(|_| Gone(None))?;
        assert_eq!(text_of(&mut socket).await?, "3probe");
        // The poll that waits is released, with packets or with nothing.
        if let Transport::Polling(poll) = &mut self.transport
            && let Some(poll) = poll.take()
        {
            let body = poll.body().await?;
            self.body(&body);
        }
        socket.send("5".into()).await.map_err(|_| Gone(None))?;
        self.transport = Transport::WebSocket(Box::new(socket));
        Ok(())
    }

    /// Opens the session; the data of the server's packet, or of its refusal.
    pub async fn connect(&mut self, auth: &Value) -> Result<Result<Value, Value>, Gone> {
        self.say(&format!("40{auth}")).await?;
        loop {
            match self.receive().await? {
                Packet::Connected(data) => return Ok(Ok(data)),
                Packet::Refused(data) => return Ok(Err(data)),
                other => self.kept.push_back(other),
            }
        }
    }

    /// Sends a command, and returns the number of its acknowledgement.
    pub async fn emit(&mut self, name: &str, data: &str) -> Result<u32, Gone> {
        self.acks += 1;
        self.say(&format!("42{}[\"roomcast:{name}\",{data}]", self.acks))
            .await?;
        Ok(self.acks)
    }

    /// Sends a command with an attachment, for which a placeholder stands in its data.
    pub async fn emit_binary(&mut self, name: &str, data: &str, attachment: &[u8]) -> Result<u32, Gone> {
        self.acks += 1;
        let header = format!("451-{}[\"roomcast:{name}\",{data}]", self.acks);
        match &mut self.transport {
            Transport::WebSocket(socket) => {
                let both = [Message::text(header), Message::binary(attachment.to_vec())];
                for message in both {
                    socket.send(message).await.map_err(|_| Gone(None))?;
                }
            }
            Transport::Polling(_) => {
                let body = format!("{header}\u{1e}b{}", STANDARD.encode(attachment));
                self.post(&body).await?;
            }
        }
        Ok(self.acks)
    }

    /// The object that acknowledges a command. Packets that come before it are kept.
    pub async fn acknowledged(&mut self, ack: u32) -> Result<Value, Gone> {
        loop {
            match self.receive().await? {
                Packet::Acknowledged { ack: other, arguments } if other == ack => {
                    return Ok(serde_json::from_str(&arguments[0]).expect("an acknowledgement is JSON"));
                }
                other => self.kept.push_back(other),
            }
        }
    }

    /// Sends a command and waits for its acknowledgement.
    pub async fn command(&mut self, name: &str, data: &Value) -> Result<Value, Gone> {
        let ack = self.emit(name, &data.to_string()).await?;
        self.acknowledged(ack).await
    }

    /// The next packet, which may have been kept.
    pub async fn next(&mut self) -> Result<Packet, Gone> {
        match self.kept.pop_front() {
            Some(packet) => Ok(packet),
            None => self.receive().await,
        }
    }

    /// Closes the connection as a client does that is done.
    pub async fn close(self) {
        match self.transport {
            Transport::WebSocket(mut socket) => drop(socket.as_mut().close(None).await),
            Transport::Polling(poll) => {
                let query = format!("EIO=4&transport=polling&sid={}", self.sid);
                drop(http::request(self.address, "POST", &query, "1").await);
                drop(poll);
            }
        }
    }

    async fn say(&mut self, packet: &str) -> Result<(), Gone> {
        match &mut self.transport {
            Transport::WebSocket(socket) => socket.send(Message::text(packet)).await.map_err(|_| Gone(None)),
            Transport::Polling(_) => self.post(packet).await,
        }
    }

    async fn post(&self, body: &str) -> Result<(), Gone> {
        let query = format!("EIO=4&transport=polling&sid={}", self.sid);
        let answer = http::request(self.address, "POST", &query, body).await?;
        assert_eq!(answer, "ok");
        Ok(())
    }

    /// Reads a packet from the connection.
    async fn receive(&mut self) -> Result<Packet, Gone> {
        loop {
            if self.owes_pong {
                self.say("3").await?;
                self.owes_pong = false;
            }
            while let Some(part) = self.parts.pop_front() {
                match self.part(part)? {
                    Some(packet) => return Ok(packet),
                    None if self.owes_pong => break,
                    None => {}
                }
            }
            if !self.owes_pong {
                self.read().await?;
            }
        }
    }

    /// Reads parts from the connection. What is given up here is not lost.
    async fn read(&mut self) -> Result<(), Gone> {
        match &mut self.transport {
            Transport::WebSocket(socket) => match socket.next().await {
                Some(Ok(Message::Text(text))) => self.parts.push_back(Part::Text(text.as_str().to_owned())),
                Some(Ok(Message::Binary(bytes))) => self.parts.push_back(Part::Binary(bytes)),
                Some(Ok(Message::Close(close))) => return Err(Gone(close.map(|close| close.code.into()))),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(Gone(None)),
            },
            Transport::Polling(poll) => {
                let query = format!("EIO=4&transport=polling&sid={}", self.sid);
                let waiting = poll.get_or_insert_with(|| Poll::begin(self.address, query));
                let body = waiting.finished().await;
                *poll = None;
                let body = body?;
                self.body(&body);
            }
        }
        Ok(())
    }

    fn body(&mut self, body: &str) {
        let parts = body.split('\u{1e}').map(|part| match part.strip_prefix('b') {
            Some(text) => Part::Binary(STANDARD.decode(text).expect("bytes are base64").into()),
            None => Part::Text(part.to_owned()),
        });
        self.parts.extend(parts);
    }

    fn part(&mut self, part: Part) -> Result<Option<Packet>, Gone> {
        match part {
            Part::Text(text) => match text.split_at(1) {
                ("1", "") => Err(Gone(None)),
                ("2", "") => {
                    self.owes_pong = true;
                    Ok(None)
                }
                ("6", "") => Ok(None),
                ("4", packet) => {
                    assert!(self.partial.is_none(), "{packet:?} among attachments");
                    Ok(self.packet(packet))
                }
                _ => panic!("no packet of a server: {text:?}"),
            },
            Part::Binary(bytes) => {
                let mut partial = self.partial.take().expect("an attachment is announced");
                partial.attachments.push(bytes);
                if partial.attachments.len() == partial.owed {
                    return Ok(Some(parsed(&partial.text, partial.attachments)));
                }
                self.partial = Some(partial);
                Ok(None)
            }
        }
    }

    fn packet(&mut self, packet: &str) -> Option<Packet> {
        if !packet.starts_with(['5', '6']) {
            return Some(parsed(packet, Vec::new()));
        }
        let (count, _) = packet[1..].split_once('-').expect("attachments are counted");
        self.partial = Some(Partial {
            text: packet.to_owned(),
            owed: count.parse().expect("a count is a number"),
            attachments: Vec::new(),
        });
        None
    }
}

/// A packet of the main namespace.
fn parsed(packet: &str, attachments: Vec<Bytes>) -> Packet {
    let (kind, mut rest) = packet.split_at(1);
    if matches!(kind, "5" | "6") {
        rest = rest.split_once('-').expect("attachments are counted").1;
    }
    assert!(!rest.starts_with('/'), "another namespace: {packet}");
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (ack, data) = rest.split_at(digits);
    let object = || serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {packet}"));
    let list = || -> Vec<String> {
        let list: Vec<&RawValue> = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {packet}"));
        list.into_iter().map(|value| value.get().to_owned()).collect()
    };
    match kind {
        "0" => Packet::Connected(object()),
        "1" => Packet::Disconnected,
        "4" => Packet::Refused(object()),
        "2" | "5" => {
            let mut arguments = list();
            let name = serde_json::from_str(&arguments.remove(0)).expect("an event has a name");
            Packet::Event {
                name,
                arguments,
                attachments,
            }
        }
        "3" | "6" => Packet::Acknowledged {
            ack: ack.parse().expect("an acknowledgement has a number"),
            arguments: list(),
        },
        _ => panic!("no packet of a server: {packet}"),
    }
}

async fn websocket(address: SocketAddr, query: &str, narrow: bool) -> Result<WebSocketStream<TcpStream>, Gone> {
    let socket = TcpSocket::new_v4().expect("a socket is made");
    if narrow {
        socket.set_recv_buffer_size(4096).expect("a size is set");
    }
    let stream = socket.connect(address).await.map_err(|_| Gone(None))?;
    stream.set_nodelay(true).map_err(|_| Gone(None))?;
    let url = format!("ws://{address}/socket.io/?{query}");
    let request = url.into_client_request().expect("an address is a URL");
    let upgraded = tokio_tungstenite::client_async(request, stream).await;
    Ok(upgraded.map_err(|_| Gone(None))?.0)
}

async fn text_of(socket: &mut WebSocketStream<TcpStream>) -> Result<String, Gone> {
    match socket.next().await {
        Some(Ok(Message::Text(text))) => Ok(text.as_str().to_owned()),
        Some(Ok(Message::Close(close))) => Err(Gone(close.map(|close| close.code.into()))),
        _ => Err(Gone(None)),
    }
}
