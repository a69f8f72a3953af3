//! Answers that nobody reads: how many bytes they take is counted, not timed.

use std::collections::BTreeSet;
use std::time::Duration;

use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::limits::frame;
use super::support::{Api, Caller, ROOT, Setup, event, json};
use crate::api::Config;
use crate::proto::v1;

const MIB: usize = 1 << 20;

/// A caller whose answers nothing but what it allows is sent of: HTTP/2 by hand, with a window of zero.
struct Reader {
    stream: BufReader<TcpStream>,
    calls: u32,
    answered: BTreeSet<u32>,
    ended: BTreeSet<u32>,
    bytes: usize,
}

impl Reader {
    async fn connect(api: &Api) -> Self {
        let mut stream = TcpStream::connect(api.address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        // SETTINGS_INITIAL_WINDOW_SIZE is 0.
        stream.write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])).await.unwrap();
        Self {
            stream: BufReader::new(stream),
            calls: 0,
            answered: BTreeSet::new(),
            ended: BTreeSet::new(),
            bytes: 0,
        }
    }

    /// Asks for a page of the history of room `r`.
    async fn ask(&mut self, timeout: &str) {
        self.ask_at(Door::Grpc, timeout).await;
    }

    async fn ask_at(&mut self, door: Door, timeout: &str) {
        let authorization = format!("Bearer {ROOT}");
        // HPACK (RFC 7541, appendix A): `:method: GET` is 2 and `POST` 3, `:scheme: http` is 6; then literals.
        let (method, path, content_type) = match door {
            Door::Grpc => (0x83, "/roomcast.v1.RoomService/ListHistory", "application/grpc"),
            Door::GrpcWeb => (0x83, "/roomcast.v1.RoomService/ListHistory", "application/grpc-web"),
            Door::Mirror => (0x82, "/v1/rooms/r/members?tenant=a", "application/json"),
        };
        let mut head = vec![method, 0x86];
        head.extend(literal(4, "", path));
        head.extend(literal(1, "", "x"));
        for (name, value) in [
            ("content-type", content_type),
            ("te", "trailers"),
            ("authorization", authorization.as_str()),
            ("grpc-timeout", timeout),
        ] {
            head.extend(literal(0, name, value));
        }
        let request = v1::ListHistoryRequest {
            tenant: "a".to_owned(),
            room: "r".to_owned(),
            page_size: 300,
            ..Default::default()
        };
        let request = request.encode_to_vec();
        let length = u32::try_from(request.len()).unwrap().to_be_bytes();
        let message = [&[0][..], &length, &request].concat();
        let stream = 2 * self.calls + 1;
        self.calls += 1;
        let frames = [frame(1, 4, stream, &head), frame(0, 1, stream, &message)].concat();
        self.stream.write_all(&frames).await.unwrap();
    }

    /// Lets everything come.
    async fn open_window(&mut self) {
        let settings = frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        let update = frame(8, 0, 0, &0x7000_0000u32.to_be_bytes());
        self.stream.write_all(&[settings, update].concat()).await.unwrap();
    }

    /// Takes the next frame; `None` when the connection has ended.
    async fn next(&mut self) -> Option<()> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(stream);
        match kind {
            0 => self.bytes += payload.len(),
            1 => drop(self.answered.insert(stream)),
            4 if flags & 1 == 0 => self.stream.write_all(&frame(4, 1, 0, &[])).await.ok()?,
            6 if flags & 1 == 0 => self.stream.write_all(&frame(6, 1, 0, &payload)).await.ok()?,
            _ => {}
        }
        if kind <= 1 && flags & 1 != 0 {
            self.ended.insert(stream);
        }
        Some(())
    }
}

/// The door at which the large answer is requested.
#[derive(Debug, Clone, Copy)]
enum Door {
    Grpc,
    GrpcWeb,
    Mirror,
}

/// A literal header without indexing (RFC 7541 section 6.2.2), its name from the static table or spelled out.
fn literal(index: u8, name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    let mut all = vec![index];
    if index == 0 {
        all.extend(text(name));
    }
    all.extend(text(value));
    all
}

/// An API with a room `r` whose newest page is about a MiB.
async fn with_history(unread_bytes_per_connection_max: usize, unread_bytes_max: usize) -> Api {
    let config = Config {
        unread_bytes_per_connection_max,
        unread_bytes_max,
        ..Config::default()
    };
    let api = Api::with(Setup {
        config,
        ..Setup::default()
    })
    .await;
    let mut publisher = api.publisher().await;
    for _ in 0..20 {
        let mut request = event();
        request.payload = json(&format!("\"{}\"", "x".repeat(60_000)));
        publisher.publish(request).await.unwrap();
    }
    api
}

/// A page read as everybody reads.
async fn page(api: &Api) -> usize {
    let request = v1::ListHistoryRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
        page_size: 300,
        ..Default::default()
    };
    let mut steward = api
        .steward_of(Caller::with(ROOT))
        .await
        .max_decoding_message_size(8 * MIB);
    steward.list_history(request).await.unwrap().into_inner().events.len()
}

#[tokio::test]
async fn an_answer_counts_at_every_door_until_it_is_read() {
    let api = with_history(4 * MIB, 64 * MIB).await;
    for member in 0..100 {
        api.enter("r", &format!("user-{member}"));
    }
    for door in [Door::Grpc, Door::GrpcWeb, Door::Mirror] {
        let mut reader = Reader::connect(&api).await;
        reader.ask_at(door, "20S").await;
        while reader.answered.is_empty() {
            reader.next().await.unwrap();
        }
        let held = api.unread_bytes();
        assert!((5_000..2 * MIB).contains(&held), "{door:?}: {held} bytes are held");
        reader.open_window().await;
        while reader.ended.is_empty() {
            reader.next().await.unwrap();
        }
        assert_eq!(reader.bytes, held, "{door:?}");
        while api.unread_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_take_bounded_bytes_of_each_connection() {
    const CALLS: u32 = 40;
    let api = with_history(4 * MIB, 64 * MIB).await;
    let mut readers = [Reader::connect(&api).await, Reader::connect(&api).await];
    for reader in &mut readers {
        for _ in 0..CALLS {
            reader.ask("60S").await;
        }
        // The bound leaves room for a third answer after two, and for no fourth.
        while reader.answered.len() < 3 {
            reader.next().await.unwrap();
        }
    }
    // Others are answered meanwhile, and long enough for the rest to have been answered as well.
    for _ in 0..5 {
        assert!(page(&api).await > 10);
    }
    let held = api.unread_bytes();
    assert!((5 * MIB..=8 * MIB).contains(&held), "{held} bytes are held");
    for reader in &mut readers {
        reader.open_window().await;
        while reader.ended.len() < CALLS as usize {
            reader.next().await.unwrap();
            assert!(api.unread_bytes() <= 8 * MIB);
        }
        assert!(reader.bytes > CALLS as usize * 900_000, "each is whole");
    }
    while api.unread_bytes() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_take_bounded_bytes_in_all() {
    let api = with_history(4 * MIB, 5 * MIB).await;
    let mut readers = Vec::new();
    for _ in 0..8 {
        let mut reader = Reader::connect(&api).await;
        for _ in 0..4 {
            reader.ask("60S").await;
        }
        readers.push(reader);
    }
    while api.unread_bytes() < 3 * MIB {
        tokio::task::yield_now().await;
    }
    // Some calls wait for others' answers to be read; all are answered once everybody reads.
    let reading = readers.iter_mut().map(async |reader| {
        assert!(api.unread_bytes() <= 5 * MIB);
        reader.open_window().await;
        while reader.ended.len() < 4 {
            reader.next().await.unwrap();
            assert!(api.unread_bytes() <= 5 * MIB);
        }
    });
    futures_util::future::join_all(reading).await;
    while api.unread_bytes() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(page(&api).await > 10);
}

#[tokio::test]
async fn an_answer_that_is_unread_after_its_deadline_ends_its_connection() {
    let api = with_history(4 * MIB, 64 * MIB).await;
    let mut reader = Reader::connect(&api).await;
    for _ in 0..20 {
        reader.ask("1S").await;
    }
    while reader.next().await.is_some() {}
    while api.unread_bytes() > 0 {
        tokio::task::yield_now().await;
    }
    // One that reads too late for its deadline, but reads, is left alone.
    let mut slow = Reader::connect(&api).await;
    slow.ask("1S").await;
    while slow.answered.is_empty() {
        slow.next().await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1200)).await;
    slow.open_window().await;
    while slow.ended.is_empty() {
        slow.next().await.unwrap();
    }
    assert!(slow.bytes > 900_000);
}
