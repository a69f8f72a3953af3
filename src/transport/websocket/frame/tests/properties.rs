//! Properties that hold for any input.

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

use super::*;

/// Something a client says, and how it is sent.
#[derive(Debug, Clone)]
struct Said {
    what: Seen,
    /// The cuts of a message into frames.
    cuts: Vec<usize>,
    /// The control frames between two of its frames.
    between: Option<Seen>,
}

fn control() -> impl Strategy<Value = Seen> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..126).prop_map(Seen::Ping),
        Just(Seen::Pong),
    ]
}

fn said() -> impl Strategy<Value = Said> {
    let what = prop_oneof![
        any::<String>().prop_map(Seen::Text),
        prop::collection::vec(any::<u8>(), 0..400).prop_map(Seen::Binary),
        control(),
    ];
    let cuts = prop::collection::vec(0..400_usize, 0..5);
    (what, cuts, prop::option::of(control())).prop_map(|(what, cuts, between)| Said { what, cuts, between })
}

fn control_frame(seen: &Seen) -> Vec<u8> {
    match seen {
        Seen::Ping(payload) => client_frame(0x89, payload),
        Seen::Pong => client_frame(0x8a, b"whatever"),
        Seen::Close(code) => client_frame(0x88, &code.map_or(vec![], |code| code.to_be_bytes().to_vec())),
        Seen::Text(_) | Seen::Binary(_) => unreachable!("only control frames stand between frames"),
    }
}

/// The frames, and what a reader should see of them.
fn frames(said: &Said) -> (Vec<u8>, Vec<Seen>) {
    let (opcode, payload) = match &said.what {
        Seen::Text(text) => (1, text.as_bytes()),
        Seen::Binary(bytes) => (2, bytes.as_slice()),
        what => return (control_frame(what), vec![what.clone()]),
    };
    let (mut bytes, mut seen, mut rest) = (Vec::new(), Vec::new(), payload);
    for (at, cut) in said.cuts.iter().enumerate() {
        let (part, after) = rest.split_at((*cut).min(rest.len()));
        bytes.extend(client_frame(if at == 0 { opcode } else { 0 }, part));
        bytes.extend(said.between.iter().flat_map(control_frame));
        seen.extend(said.between.clone());
        rest = after;
    }
    bytes.extend(client_frame(
        if said.cuts.is_empty() { 0x80 | opcode } else { 0x80 },
        rest,
    ));
    seen.push(said.what.clone());
    (bytes, seen)
}

/// The input in reads of these lengths, over and over; the rest in one.
fn cut<'a>(mut input: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut reads = Vec::new();
    for length in lengths {
        let (read, rest) = input.split_at((*length).min(input.len()));
        reads.push(read);
        input = rest;
    }
    reads.push(input);
    reads
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![1; 10_000]), prop::collection::vec(0..50_usize, 0..60)]
}

/// A frame that may be wrong in any way, but whole.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => prop::sample::select(vec![0x81_u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a, 0x88]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        4 => "\\PC{0,12}".prop_map(String::into_bytes),
        2 => prop::collection::vec(any::<u8>(), 0..12),
        1 => prop::collection::vec(any::<u8>(), 120..131),
        // Not 1014, which has been registered since tungstenite's list was made.
        1 => (1000..1014_u16).prop_map(|code| code.to_be_bytes().to_vec()),
    ];
    (first, payload, prop::bool::weighted(0.03)).prop_map(|(first, payload, unmasked)| {
        let mut frame = client_frame(first, &payload);
        if unmasked {
            frame[1] &= 0x7f;
        }
        frame
    })
}

/// A socket that was given some bytes and takes all that is written.
struct Peer(Cursor<Vec<u8>>);

impl Read for Peer {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

impl Write for Peer {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns tungstenite's output for the same bytes, and whether it refused them.
fn read_by_tungstenite(input: &[u8]) -> (Vec<Seen>, bool) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMITS.message_bytes_max))
        .max_frame_size(Some(LIMITS.message_bytes_max));
    let mut socket = WebSocket::from_raw_socket(Peer(Cursor::new(input.to_vec())), Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => seen.push(Seen::Text(text.to_string())),
            Ok(Message::Binary(bytes)) => seen.push(Seen::Binary(bytes.to_vec())),
            Ok(Message::Ping(payload)) => seen.push(Seen::Ping(payload.to_vec())),
            Ok(Message::Pong(_)) => seen.push(Seen::Pong),
            Ok(Message::Close(frame)) => {
                seen.push(Seen::Close(frame.map(|frame| frame.code.into())));
                return (seen, false);
            }
            Ok(Message::Frame(_)) => unreachable!("never read"),
            Err(Error::Io(_) | Error::ConnectionClosed) => return (seen, false),
            Err(_) => return (seen, true),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_was_said_is_what_is_read_however_it_was_cut(
        said in prop::collection::vec(said(), 0..6), close in prop::option::of(Just(Seen::Close(Some(1001)))), reads in cuts(),
    ) {
        let (bytes, expected): (Vec<_>, Vec<_>) = said.iter().map(frames).unzip();
        let mut bytes = bytes.concat();
        let mut expected = expected.concat();
        bytes.extend(close.iter().flat_map(control_frame));
        expected.extend(close);
        let mut reader = Reader::default();
        let (seen, result) = feed_all(&mut reader, &cut(&bytes, &reads));
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(reader.partial_since_ms(), None);
    }

    #[test]
    fn any_bytes_are_judged_alike_however_they_are_cut(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(any_frame(), 0..8).prop_map(|frames| frames.concat()),
        ],
        reads in cuts(),
    ) {
        prop_assert_eq!(feed_all(&mut Reader::default(), &cut(&bytes, &reads)), read(&bytes));
    }

    #[test]
    fn tungstenite_judges_alike(frames in prop::collection::vec(any_frame(), 0..8)) {
        let bytes = frames.concat();
        let (seen, result) = read(&bytes);
        let (theirs, refused) = read_by_tungstenite(&bytes);
        // It hands out a close frame whose code may not be sent with another code; and the rest of a frame that became
        // shorter when it lost its mask is no frame to either.
        let bad_code = result == Err(CloseReason::ProtocolError) && theirs.len() == seen.len() + 1
            && matches!(theirs.last(), Some(Seen::Close(Some(_)))) && theirs[..seen.len()] == seen[..];
        prop_assert!(bad_code || (&seen, result.is_err()) == (&theirs, refused), "{seen:?} {result:?} but {theirs:?} {refused}");
    }

    #[test]
    fn frames_of_the_server_are_read_back_by_tungstenite(body in "\\PC{0,300}", long in 0..70_000_usize) {
        let long = vec![7; long];
        let bytes = [text_frame(&body), binary_frame(&long), ping(), pong(b"x"), close(4000, "draining")].concat();
        let mut socket = WebSocket::from_raw_socket(Peer(Cursor::new(bytes)), Role::Client, None);
        prop_assert_eq!(socket.read().unwrap(), Message::text(body));
        prop_assert_eq!(socket.read().unwrap(), Message::binary(long));
        prop_assert_eq!(socket.read().unwrap(), Message::Ping(vec![].into()));
        prop_assert_eq!(socket.read().unwrap(), Message::Pong(b"x".to_vec().into()));
        let Message::Close(Some(frame)) = socket.read().unwrap() else { panic!("no close frame") };
        prop_assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4000, "draining"));
    }
}
