//! Somebody with a WebSocket. Reads only when asked to, so a client that does not read is one that is left alone.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::Shutdown;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::server_frame::Message as Said;
use roomcast::proto::client_v1::*;
use serde_json::Value;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::Error as WsError;

use super::chain::Chains;
use super::node::Traces;
use super::{Encoding, InRoom as _, ToRoom as _, User, within};

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With a close frame.
    Closed { code: u16, reason: String },
    /// Without.
    Gone,
}

/// Somebody with a WebSocket.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    encoding: Encoding,
    traces: Arc<Traces>,
    user: String,
    tenant: String,
    /// The connection, as the server names it.
    pub id: String,
    command: u32,
    replies: HashMap<u32, Said>,
    pushes: VecDeque<Said>,
    chains: Chains,
    /// Where it has said it left off.
    since: HashMap<String, Position>,
    ended: Option<Ended>,
}

impl Client {
    /// Somebody who has not said anything yet.
    pub fn new(socket: WebSocketStream<TcpStream>, encoding: Encoding, traces: Arc<Traces>) -> Self {
        Self {
            socket,
            encoding,
            traces,
            user: String::new(),
            tenant: String::new(),
            id: String::new(),
            command: 0,
            replies: HashMap::new(),
            pushes: VecDeque::new(),
            chains: Chains::default(),
            since: HashMap::new(),
            ended: None,
        }
    }

    /// Says who it is. The first command of a connection.
    pub async fn authenticate(&mut self, user: &User, resume: Vec<RoomPosition>) -> Result<Connected, ErrorReply> {
        let connect = Connect {
            client: "tests/1".to_owned(),
            resume,
            ..Connect::default()
        };
        self.authenticate_with(user, connect).await
    }

    /// The same with everything that the command can say; the token is the user's.
    pub async fn authenticate_with(&mut self, user: &User, connect: Connect) -> Result<Connected, ErrorReply> {
        self.user.clone_from(&user.id);
        self.tenant = user.tenant_name();
        for at in &connect.resume {
            self.since
                .insert(at.room.clone(), at.position.clone().unwrap_or_default());
        }
        let connect = Connect {
            token: user.token(),
            ..connect
        };
        match self.ask(Command::Connect(connect)).await? {
            Said::Connected(connected) => Ok(self.is_connected(connected)),
            other => panic!("connected: {other:?}"),
        }
    }

    /// The session that a token in the upgrade opened.
    pub async fn expect_connected(&mut self, user: &User) -> Connected {
        self.user.clone_from(&user.id);
        self.tenant = user.tenant_name();
        match self.push().await {
            Said::Connected(connected) => self.is_connected(connected),
            other => panic!("{self} is not connected: {other:?}"),
        }
    }

    fn is_connected(&mut self, connected: Connected) -> Connected {
        assert_eq!(connected.user_id, self.user);
        self.id.clone_from(&connected.connection_id);
        for room in &connected.rooms {
            self.is_in(&room.room);
        }
        connected
    }

    fn is_in(&self, room: &str) {
        let room = (self.tenant.clone(), room.to_owned());
        self.traces.rooms.lock().unwrap().insert(room);
    }

    /// Joins a room.
    pub async fn join(&mut self, room: &str) -> Joined {
        self.try_join(Join::in_room(room)).await.expect("the join is accepted")
    }

    /// Joins a room from a position on.
    pub async fn join_since(&mut self, room: &str, since: &Position) -> Joined {
        let join = Join {
            since: Some(since.clone()),
            ..Join::in_room(room)
        };
        self.try_join(join).await.expect("the join is accepted")
    }

    /// Joins a room to see who is there.
    pub async fn join_to_see(&mut self, room: &str) -> Presence {
        let join = Join {
            presence: PresenceMode::Members.into(),
            ..Join::in_room(room)
        };
        let joined = self.try_join(join).await.expect("the join is accepted");
        joined.presence.expect("who asks for presence gets it")
    }

    /// Joins as the command says.
    pub async fn try_join(&mut self, join: Join) -> Result<Joined, ErrorReply> {
        let room = join.room.clone();
        match &join.since {
            Some(since) => self.since.insert(room.clone(), since.clone()),
            None => self.since.remove(&room),
        };
        match self.ask(Command::Join(join)).await? {
            Said::Joined(joined) => {
                assert_eq!(joined.room, room);
                self.is_in(&room);
                Ok(joined)
            }
            other => panic!("joined: {other:?}"),
        }
    }

    /// Leaves a room.
    pub async fn leave(&mut self, room: &str) {
        let leave = Leave { room: room.to_owned() };
        match self.ask(Command::Leave(leave)).await {
            Ok(Said::Left(left)) => assert_eq!(left.room, room),
            other => panic!("{self} does not leave `{room}`: {other:?}"),
        }
    }

    /// Publishes an event.
    pub async fn publish(&mut self, room: &str, event: &str, json: Value) -> Published {
        let publish = Publish::to(room, event, json);
        self.try_publish(publish).await.expect("the event is accepted")
    }

    /// Publishes as the command says.
    pub async fn try_publish(&mut self, publish: Publish) -> Result<Published, ErrorReply> {
        match self.ask(Command::Publish(publish)).await? {
            Said::Published(published) => Ok(published),
            other => panic!("published: {other:?}"),
        }
    }

    /// Sends a command and waits for its reply. Pushes that come meanwhile are kept.
    pub async fn ask(&mut self, command: Command) -> Result<Said, ErrorReply> {
        let id = self.say(command).await;
        self.reply(id).await
    }

    /// Sends a command; the answer is its id.
    pub async fn say(&mut self, command: Command) -> u32 {
        self.command += 1;
        let frame = ClientFrame {
            id: self.command,
            command: Some(command),
        };
        self.say_raw(self.encoding.encode(&frame)).await;
        self.command
    }

    /// Sends a message as it is. That the other side has ended already is not an error here: it is read as the end.
    pub async fn say_raw(&mut self, message: Message) {
        match within("a message to be sent", self.socket.send(message)).await {
            Ok(())
            | Err(WsError::Io(_) | WsError::ConnectionClosed | WsError::AlreadyClosed | WsError::Protocol(_)) => {}
            Err(error) => panic!("{self} cannot send: {error}"),
        }
    }

    /// The reply to a command.
    pub async fn reply(&mut self, id: u32) -> Result<Said, ErrorReply> {
        let what = format!("the reply to command {id} of {self}");
        let reply = within(&what, async {
            loop {
                if let Some(reply) = self.replies.remove(&id) {
                    return reply;
                }
                self.receive().await;
                assert!(
                    self.ended.is_none() || self.replies.contains_key(&id),
                    "{what}: {:?}",
                    self.ended
                );
            }
        });
        match reply.await {
            Said::Error(refusal) => Err(refusal),
            reply => Ok(reply),
        }
    }

    /// The reply to a command, if it has come.
    pub fn reply_if_any(&mut self, id: u32) -> Option<Result<Said, ErrorReply>> {
        match self.replies.remove(&id)? {
            Said::Error(refusal) => Some(Err(refusal)),
            reply => Some(Ok(reply)),
        }
    }

    /// The next push, whatever it is.
    pub async fn push(&mut self) -> Said {
        let pushed = self.push_or_end().await;
        pushed.unwrap_or_else(|ended| panic!("a push to {self}, but it ended: {ended:?}"))
    }

    /// The next push, or the end of the connection when there is none before.
    pub async fn push_or_end(&mut self) -> Result<Said, Ended> {
        let what = format!("a push to {self}");
        within(&what, async {
            loop {
                if let Some(push) = self.pushes.pop_front() {
                    return Ok(push);
                }
                if let Some(ended) = &self.ended {
                    return Err(ended.clone());
                }
                self.receive().await;
            }
        })
        .await
    }

    /// Goes on reading for as long as it is polled: whoever does not read answers no heartbeat, and is closed for its
    /// silence. What comes waits for [`Self::push`].
    pub async fn read_on(&mut self) -> Infallible {
        loop {
            self.receive().await;
            assert!(self.ended.is_none(), "{self} ended: {:?}", self.ended);
        }
    }

    /// The next push, which is an event.
    pub async fn event(&mut self) -> Event {
        match self.push().await {
            Said::Event(event) => event,
            other => panic!("{self} waits for an event and gets {other:?}"),
        }
    }

    /// The next pushes, which are events.
    pub async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            events.push(self.event().await);
        }
        events
    }

    /// The next push is this event.
    pub async fn expect_event(&mut self, room: &str, name: &str) -> Event {
        let event = self.event().await;
        assert_eq!(
            (event.room.as_str(), event.event_name.as_str()),
            (room, name),
            "{self}: {event:?}"
        );
        event
    }

    /// The next push is an event of this name: nothing came before it.
    pub async fn expect_nothing_before(&mut self, marker: &str) -> Event {
        match self.push().await {
            Said::Event(event) if event.event_name == marker => event,
            other => panic!("{self} gets something before `{marker}`: {other:?}"),
        }
    }

    /// The next push tells of an event that is not for this client.
    pub async fn expect_passed(&mut self, room: &str) -> Passed {
        match self.push().await {
            Said::Passed(passed) if passed.room == room => passed,
            other => panic!("{self} waits for a passed event of `{room}` and gets {other:?}"),
        }
    }

    /// The server closes with this code, whatever it sends before.
    pub async fn expect_close(&mut self, code: u16) -> String {
        match self.end().await {
            Ended::Closed { code: was, reason } if was == code => reason,
            other => panic!(
                "{self} is to be closed with {code} and was {other:?}; before it: {:?}",
                self.pushes
            ),
        }
    }

    /// How the connection ends, whatever comes before. What came is kept.
    pub async fn end(&mut self) -> Ended {
        let what = format!("the end of {self}");
        within(what, async {
            loop {
                if let Some(ended) = &self.ended {
                    return ended.clone();
                }
                self.receive().await;
            }
        })
        .await
    }

    /// What was pushed and not looked at yet.
    pub fn take_pushes(&mut self) -> Vec<Said> {
        self.pushes.drain(..).collect()
    }

    /// The position last seen in a room: what a client gives as `since` when it comes back.
    pub fn position(&self, room: &str) -> Position {
        self.chains.last(room)
    }

    /// Ends the connection as a client does that is done.
    pub async fn close(mut self) {
        within("a close frame to be sent", self.socket.close(None))
            .await
            .expect("the connection still works");
        self.end().await;
    }

    /// Loses the connection without a word, as it also does when it is dropped.
    pub fn crash(self) {
        drop(self);
    }

    /// Reads one message, and sorts it.
    async fn receive(&mut self) {
        let frame = match self.socket.next().await {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return,
            Some(Ok(Message::Close(close))) => {
                self.ended = Some(close.map_or(Ended::Gone, |close| Ended::Closed {
                    code: close.code.into(),
                    reason: close.reason.to_string(),
                }));
                return;
            }
            Some(Ok(message)) => self.encoding.decode(&message),
            Some(Err(_)) | None => {
                self.ended.get_or_insert(Ended::Gone);
                return;
            }
        };
        let message = frame.message.expect("a frame of the server has a message");
        self.chains.note(&message, &self.since);
        if let Said::RoomJoined(RoomJoined {
            joined: Some(joined), ..
        }) = &message
        {
            self.is_in(&joined.room);
        }
        if frame.id == 0 {
            self.pushes.push_back(message);
        } else {
            let other = self.replies.insert(frame.id, message);
            assert!(other.is_none(), "two replies to one command: {other:?}");
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The node holds on to the socket as well, so closing this end alone would end nothing. It may have ended already.
        let _ = SockRef::from(self.socket.get_ref()).shutdown(Shutdown::Both);
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?})", self.user, self.encoding)
    }
}
