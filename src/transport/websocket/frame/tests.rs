//! The reader against hand-made frames, against itself with the same bytes cut otherwise, and against tungstenite's.

mod properties;

use std::ops::ControlFlow;
use std::time::Duration;

use super::*;
use crate::error::CloseReason;

/// The output of a reader, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

impl From<Incoming<'_>> for Seen {
    fn from(incoming: Incoming<'_>) -> Self {
        match incoming {
            Incoming::Text(text) => Self::Text(text.to_owned()),
            Incoming::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Incoming::Ping(payload) => Self::Ping(payload.to_vec()),
            Incoming::Pong => Self::Pong,
            Incoming::Close(frame) => Self::Close(frame.code),
        }
    }
}

const LIMITS: Limits = Limits {
    message_bytes_max: 65_536,
    fragments_max: 64,
    message_duration_max: Duration::from_secs(10),
};

/// A client's frame: the first byte as it is, then the payload, masked.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        len @ ..=125 => frame.push(0x80 | u8::try_from(len).unwrap()),
        len @ ..=0xffff => {
            frame.push(0xfe);
            frame.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            frame.push(0xff);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Feeds one read after the other, until an error.
fn feed_all(reader: &mut Reader, reads: &[&[u8]]) -> (Vec<Seen>, Result<(), CloseReason>) {
    let mut seen = Vec::new();
    for read in reads {
        let result = reader.feed(&mut read.to_vec(), &LIMITS, 0, &mut |incoming| {
            seen.push(incoming.into());
            ControlFlow::Continue(())
        });
        // A shard feeds nothing after a close.
        if result.is_err() || matches!(seen.last(), Some(Seen::Close(_))) {
            return (seen, result);
        }
    }
    (seen, Ok(()))
}

fn read(input: &[u8]) -> (Vec<Seen>, Result<(), CloseReason>) {
    feed_all(&mut Reader::default(), &[input])
}

fn refused(input: &[u8]) -> CloseReason {
    let whole = read(input);
    let bytes: Vec<_> = input.chunks(1).collect();
    assert_eq!(feed_all(&mut Reader::default(), &bytes), whole, "however it is cut");
    whole.1.expect_err("must be refused")
}

#[test]
fn a_connection_at_rest_owns_one_empty_pointer() {
    assert_eq!(size_of::<Reader>(), size_of::<usize>());
    let mut reader = Reader::default();
    let frame = client_frame(0x81, b"hello");
    for cut in 1..frame.len() {
        let (seen, result) = feed_all(&mut reader, &[&frame[..cut]]);
        assert_eq!((seen, result), (vec![], Ok(())));
        assert_eq!(reader.partial_since_ms(), Some(0));
        let (seen, result) = feed_all(&mut reader, &[&frame[cut..]]);
        assert_eq!((seen, result), (vec![Seen::Text("hello".into())], Ok(())));
        assert_eq!(reader.partial_since_ms(), None, "cut at {cut}");
    }
}

#[test]
fn control_frames_may_come_between_fragments() {
    let frames = [
        client_frame(0x01, b"Hel"),
        client_frame(0x89, b"ping"),
        client_frame(0x8a, b""),
        client_frame(0x80, b"lo"),
        client_frame(0x88, &1000_u16.to_be_bytes()),
        client_frame(0x81, b"after the close"),
    ];
    let (seen, result) = read(&frames.concat());
    assert_eq!(result, Ok(()));
    let text = Seen::Text("Hello".into());
    assert_eq!(
        seen,
        [Seen::Ping(b"ping".to_vec()), Seen::Pong, text, Seen::Close(Some(1000))]
    );
}

#[test]
fn unmasked_and_reserved_frames_are_protocol_errors() {
    assert_eq!(
        refused(&[0x81, 0x05, b'h', b'e', b'l', b'l', b'o']),
        CloseReason::ProtocolError
    );
    for first in [0xc1, 0xa1, 0x91, 0x83, 0x87, 0x8b, 0x8f] {
        assert_eq!(
            refused(&client_frame(first, b"x")),
            CloseReason::ProtocolError,
            "{first:#x}"
        );
    }
}

#[test]
fn control_frames_are_short_and_whole() {
    for opcode in [0x8, 0x9, 0xa] {
        assert_eq!(refused(&client_frame(opcode, b"")), CloseReason::ProtocolError);
        assert_eq!(
            refused(&client_frame(0x80 | opcode, &[0; 126])),
            CloseReason::ProtocolError
        );
    }
    assert_eq!(read(&client_frame(0x89, &[7; 125])).0, [Seen::Ping(vec![7; 125])]);
}

#[test]
fn fragments_out_of_order_are_protocol_errors() {
    assert_eq!(refused(&client_frame(0x80, b"x")), CloseReason::ProtocolError);
    assert_eq!(refused(&client_frame(0x00, b"x")), CloseReason::ProtocolError);
    let nested = [client_frame(0x01, b"x"), client_frame(0x81, b"y")].concat();
    assert_eq!(refused(&nested), CloseReason::ProtocolError);
}

#[test]
fn lengths_have_one_form() {
    let mask = [0; 4];
    let long_five = [&[0x81, 0xfe, 0, 5][..], &mask, b"hello"].concat();
    assert_eq!(refused(&long_five), CloseReason::ProtocolError);
    let negative = [&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &mask].concat();
    assert_eq!(refused(&negative), CloseReason::ProtocolError);
}

#[test]
fn the_first_octet_that_is_not_utf8_ends_the_connection() {
    let frames = [
        client_frame(0x01, "κόσμε".as_bytes()),
        client_frame(0x80, b"\xf4\x90\x80\x80 and more"),
    ];
    let bytes = frames.concat();
    // Header of the second frame, 0xf4, 0x90: nothing behind the bad octet is needed.
    let end = frames[0].len() + 6 + 2;
    assert_eq!(read(&bytes[..end - 1]).1, Ok(()));
    assert_eq!(refused(&bytes[..end]), CloseReason::InvalidUtf8);
    let cut_character = [client_frame(0x01, b"\xce"), client_frame(0x80, b"")].concat();
    assert_eq!(refused(&cut_character), CloseReason::InvalidUtf8);
    let joined_character = [client_frame(0x01, b"\xce"), client_frame(0x80, b"\xba")].concat();
    assert_eq!(read(&joined_character), (vec![Seen::Text("κ".into())], Ok(())));
    let surrogate = client_frame(0x81, b"\xed\xa0\x80");
    assert_eq!(refused(&surrogate), CloseReason::InvalidUtf8);
}

#[test]
fn close_codes_that_may_not_be_sent_are_protocol_errors() {
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535_u16] {
        assert_eq!(
            refused(&client_frame(0x88, &code.to_be_bytes())),
            CloseReason::ProtocolError,
            "{code}"
        );
    }
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 3999, 4000, 4999_u16,
    ] {
        assert_eq!(
            read(&client_frame(0x88, &code.to_be_bytes())).0,
            [Seen::Close(Some(code))]
        );
    }
    assert_eq!(read(&client_frame(0x88, b"")).0, [Seen::Close(None)]);
    assert_eq!(refused(&client_frame(0x88, b"\x03")), CloseReason::ProtocolError);
    assert_eq!(refused(&client_frame(0x88, b"\x03\xe8\xff")), CloseReason::InvalidUtf8);
}

#[test]
fn too_large_a_message_is_refused_by_its_header_before_anything_is_kept() {
    let largest = vec![b'x'; LIMITS.message_bytes_max];
    assert_eq!(
        read(&client_frame(0x82, &largest)),
        (vec![Seen::Binary(largest.clone())], Ok(()))
    );
    let frame = client_frame(0x82, &[&largest[..], b"x"].concat());
    assert_eq!(refused(&frame[..14]), CloseReason::MessageTooBig);
    let grown = [client_frame(0x02, &largest), client_frame(0x80, b"x")[..6].to_vec()].concat();
    assert_eq!(read(&grown).1, Err(CloseReason::MessageTooBig));
    let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    assert_eq!(refused(&huge), CloseReason::MessageTooBig);
}

#[test]
fn endless_fragments_are_refused_even_when_they_are_empty() {
    let begin = client_frame(0x01, b"");
    let allowed = [
        begin.clone(),
        client_frame(0x00, b"").repeat(62),
        client_frame(0x80, b""),
    ]
    .concat();
    assert_eq!(read(&allowed), (vec![Seen::Text(String::new())], Ok(())));
    let endless = [begin, client_frame(0x00, b"").repeat(64)].concat();
    assert_eq!(refused(&endless), CloseReason::PolicyViolation);
}

#[test]
fn a_slow_message_is_refused_whatever_comes_between() {
    let mut reader = Reader::default();
    let mut at = |now_ms, mut bytes: Vec<u8>| {
        let result = reader.feed(&mut bytes, &LIMITS, now_ms, &mut |_| ControlFlow::Continue(()));
        (result, reader.partial_since_ms())
    };
    assert_eq!(at(5, client_frame(0x81, b"quick")), (Ok(()), None));
    assert_eq!(at(1_000, client_frame(0x01, b"slow")), (Ok(()), Some(1_000)));
    assert_eq!(at(9_000, client_frame(0x89, b"")), (Ok(()), Some(1_000)));
    assert_eq!(at(11_000, client_frame(0x00, b"er")), (Ok(()), Some(1_000)));
    assert_eq!(
        at(11_001, client_frame(0x80, b"")),
        (Err(CloseReason::PolicyViolation), Some(1_000))
    );
}

#[test]
fn a_message_is_not_late_for_the_time_in_which_it_was_not_read() {
    let mut reader = Reader::default();
    let feed = |reader: &mut Reader, now_ms, mut bytes: Vec<u8>| {
        let result = reader.feed(&mut bytes, &LIMITS, now_ms, &mut |_| ControlFlow::Continue(()));
        (result, reader.partial_since_ms())
    };
    assert_eq!(
        feed(&mut reader, 1_000, client_frame(0x01, b"a")),
        (Ok(()), Some(1_000))
    );
    reader.stop_clock();
    assert_eq!(reader.partial_since_ms(), None);
    assert_eq!(
        feed(&mut reader, 60_000, client_frame(0x00, b"b")),
        (Ok(()), Some(60_000))
    );
    assert_eq!(feed(&mut reader, 70_000, client_frame(0x80, b"c")), (Ok(()), None));
}

#[test]
fn nothing_is_read_after_the_taker_has_had_enough() {
    let mut input = [client_frame(0x81, b"a"), client_frame(0x81, b"b"), vec![0x81]].concat();
    let (mut reader, mut seen) = (Reader::default(), 0);
    let result = reader.feed(&mut input, &LIMITS, 0, &mut |_| {
        seen += 1;
        ControlFlow::Break(())
    });
    assert_eq!((result, seen, reader.partial_since_ms()), (Ok(()), 1, None));
}

#[test]
fn control_frames_of_the_server_stay_within_their_bounds() {
    assert_eq!(&ping()[..], [0x89, 0]);
    assert_eq!(pong(&[1; 300]).len(), 2 + 125);
    assert_eq!(&close(4002, "slow_consumer")[..4], [0x88, 15, 0x0f, 0xa2]);
    // Cut between characters: 123 bytes would end inside one.
    assert_eq!(close(1000, &"é".repeat(100)).len(), 2 + 2 + 122);
    assert_eq!(&close_without_code()[..], [0x88, 0]);
}
