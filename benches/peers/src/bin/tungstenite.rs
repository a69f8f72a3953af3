//! A plain room server on tokio-tungstenite, as a good engineer writes it.
//!
//! A task for each connection selects over its socket and a bounded queue (`mpsc`), and the publisher puts a shared text
//! into the queue of each member. Whose queue is full is dropped: a slow reader must not become memory.
//!
//! Tuned, where the documentation says so and where measurements did: buffers of 4 KiB in place of 128 KiB (the defaults
//! take 136 KiB for each idle connection); one unsplit stream, so that no lock is shared by two halves; what is in the
//! queue already is fed before one flush, so that a burst is one write; the text is shared, not copied, up to the write
//! buffer; `TCP_NODELAY`.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{SinkExt as _, StreamExt as _};
use roomcast_peers::control;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message, Utf8Bytes,
        handshake::server::{Request, Response},
        protocol::WebSocketConfig,
    },
};

const BUFFER_BYTES: usize = 4096;
/// Texts that may wait for one member. The queue takes memory as it fills.
const QUEUE_MAX: usize = 16_384;

/// Who is in which room. Shared by all tasks, never locked over an await.
#[derive(Default)]
struct Rooms(Mutex<HashMap<String, Vec<Member>>>);

struct Member {
    id: u64,
    queue: mpsc::Sender<Utf8Bytes>,
}

impl Rooms {
    fn join(&self, room: &str, id: u64, queue: &mpsc::Sender<Utf8Bytes>) {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.clone();
        rooms.entry(room.to_owned()).or_default().push(Member { id, queue });
    }

    fn leave(&self, room: &str, id: u64) {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(members) = rooms.get_mut(room) else {
            return;
        };
        if let Some(place) = members.iter().position(|member| member.id == id) {
            members.swap_remove(place);
        }
        if members.is_empty() {
            rooms.remove(room);
        }
    }

    /// Queues the text for every member; those whose queue is full leave the room, and end when their queue does.
    fn publish(&self, room: &str, text: &Utf8Bytes) {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(members) = rooms.get_mut(room) {
            members.retain(|member| member.queue.try_send(text.clone()).is_ok());
        }
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let ports = roomcast_peers::Ports::of_process();
    let members = roomcast_peers::listen(ports.members)?;
    let control = roomcast_peers::listen(ports.control)?;
    roomcast_peers::announce_rooms("/", &members, &control)?;

    let rooms = Arc::new(Rooms::default());
    let members = tokio::spawn(accept_members(TcpListener::from_std(members)?, rooms.clone()));
    let control = TcpListener::from_std(control)?;
    let controls = tokio::spawn(async move {
        loop {
            let (stream, _) = control.accept().await?;
            tokio::spawn(publish_from(stream, rooms.clone()));
        }
    });
    // Both run until accepting fails, which means that the limit of open files is too low.
    tokio::select! {
        ended = members => ended?,
        ended = controls => ended?,
    }
}

async fn publish_from(stream: TcpStream, rooms: Arc<Rooms>) -> io::Result<()> {
    let mut publishes = control::Reader::new(stream);
    while let Some((room, text)) = publishes.next().await? {
        rooms.publish(&room, &text.into());
    }
    Ok(())
}

async fn accept_members(listener: TcpListener, rooms: Arc<Rooms>) -> io::Result<()> {
    for id in 0.. {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(member(stream, id, rooms.clone()));
    }
    Ok(())
}

/// One connection, from its upgrade to its end.
async fn member(stream: TcpStream, id: u64, rooms: Arc<Rooms>) {
    let (queue, texts) = mpsc::channel(QUEUE_MAX);
    let mut joined = Vec::new();
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES);
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let join = |request: &Request, response: Response| {
        let query = request.uri().query().unwrap_or_default();
        for (_, room) in form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "room") {
            rooms.join(&room, id, &queue);
            joined.push(room.into_owned());
        }
        Ok(response)
    };
    let upgraded = tokio_tungstenite::accept_hdr_async_with_config(stream, join, Some(config)).await;
    // From here the rooms alone hold the queue: leaving them ends it.
    drop(queue);
    if let Ok(socket) = upgraded {
        // However it ends, there is nobody left to tell.
        let _ = serve(socket, texts).await;
    }
    for room in joined {
        rooms.leave(&room, id);
    }
}

async fn serve(
    mut socket: WebSocketStream<TcpStream>,
    mut texts: mpsc::Receiver<Utf8Bytes>,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    loop {
        tokio::select! {
            text = texts.recv() => {
                let Some(text) = text else {
                    return socket.close(None).await;
                };
                socket.feed(Message::Text(text)).await?;
                while let Ok(text) = texts.try_recv() {
                    socket.feed(Message::Text(text)).await?;
                }
                socket.flush().await?;
            }
            message = socket.next() => match message {
                // Pings and closes are answered by the library; what members say is not listened to.
                Some(message) => drop(message?),
                None => return Ok(()),
            },
        }
    }
}
