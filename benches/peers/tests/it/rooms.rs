//! One story, for every peer that has rooms.

use std::{io::Write, net::TcpStream, path::Path, process::Command, time::Duration};

use roomcast_peers::control::{self, Publish};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket, client::IntoClientRequest};

use crate::peer::Peer;

/// Enough that texts wait for each other on the way.
const TEXTS: usize = 500;

#[test]
fn raw() {
    story(&mut Command::new(env!("CARGO_BIN_EXE_raw")), plain);
}

#[test]
fn tungstenite() {
    story(&mut Command::new(env!("CARGO_BIN_EXE_tungstenite")), plain);
}

#[test]
fn socketioxide() {
    story(&mut Command::new(env!("CARGO_BIN_EXE_socketioxide")), socketio);
}

#[test]
fn socketio_node() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../socketio-node");
    if !folder.join("node_modules").exists() {
        eprintln!("left out: run npm ci in benches/socketio-node first");
        return;
    }
    story(Command::new("node").arg(folder.join("server.js")), socketio);
}

/// How a member connects to a peer and joins rooms.
type Join = fn(url: &str, rooms: &[&str]) -> Member;

fn story(command: &mut Command, join: Join) {
    let peer = Peer::start(command);
    let url = peer.says("url");
    let mut both = join(url, &["a", "b:1"]);
    let mut first = join(url, &["a"]);
    let mut second = join(url, &["b:1"]);
    let leaver = join(url, &["a", "b:1"]);

    let mut control = TcpStream::connect(peer.says("control")).unwrap();
    drop(leaver);
    let mut messages = Vec::new();
    for number in 0..TEXTS {
        for room in ["a", "b:1", "nobody's"] {
            let text = format!("{room} {number}");
            messages.extend(control::encode(&Publish { room, text: &text }));
        }
    }
    // In two pieces, cut where it hurts.
    let (start, end) = messages.split_at(messages.len() / 2 + 1);
    control.write_all(start).unwrap();
    assert_eq!(both.next_of("a"), "a 0");
    control.write_all(end).unwrap();

    for (member, rooms) in [
        (&mut first, ["a"].as_slice()),
        (&mut second, ["b:1"].as_slice()),
        (&mut both, ["a", "b:1"].as_slice()),
    ] {
        member.expect_rest(rooms);
    }
}

/// A client in some rooms.
struct Member {
    socket: WebSocket<TcpStream>,
    unwrap: fn(&str) -> Option<String>,
    texts: Vec<String>,
}

impl Member {
    /// The next text of a room, which later counts as read.
    fn next_of(&mut self, room: &str) -> String {
        loop {
            self.read();
            if let Some(text) = self.texts.last().filter(|text| text.starts_with(room)) {
                return text.clone();
            }
        }
    }

    /// Everything of these rooms, each in its order, and nothing else.
    fn expect_rest(&mut self, rooms: &[&str]) {
        while self.texts.len() < TEXTS * rooms.len() {
            self.read();
        }
        for room in rooms {
            let got: Vec<_> = self.texts.iter().filter(|text| text.starts_with(room)).collect();
            let expected: Vec<_> = (0..TEXTS).map(|number| format!("{room} {number}")).collect();
            assert!(got.into_iter().eq(&expected), "room {room}");
        }
    }

    fn read(&mut self) {
        let message = self.socket.read().expect("a text comes in time");
        if let Message::Text(text) = message {
            self.texts.extend((self.unwrap)(&text));
        }
    }

    fn send(&mut self, text: &'static str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Reads on until a message starts so.
    fn await_start(&mut self, start: &str) {
        loop {
            let message = self.socket.read().expect("an answer comes in time");
            if message.to_text().unwrap().starts_with(start) {
                return;
            }
        }
    }
}

fn connect(url: &str, unwrap: fn(&str) -> Option<String>) -> Member {
    let request = url.into_client_request().unwrap();
    let stream = TcpStream::connect(request.uri().authority().unwrap().as_str()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (socket, _) = tungstenite::client(request, stream).unwrap();
    Member {
        socket,
        unwrap,
        texts: Vec::new(),
    }
}

fn plain(url: &str, rooms: &[&str]) -> Member {
    let query: Vec<_> = rooms.iter().map(|room| format!("room={room}")).collect();
    connect(&format!("{url}?{}", query.join("&")), |text| Some(text.to_owned()))
}

fn socketio(url: &str, rooms: &[&str]) -> Member {
    let mut member = connect(url, |packet| {
        let (name, text): (String, String) = serde_json::from_str(packet.strip_prefix("42")?).unwrap();
        assert_eq!(name, "event");
        Some(text)
    });
    member.send("40");
    member.await_start("40");
    let join = format!("420{}", serde_json::json!(["join", rooms]));
    member.socket.send(Message::text(join)).unwrap();
    member.await_start("430[]");
    member
}
