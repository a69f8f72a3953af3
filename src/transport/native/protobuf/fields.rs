//! Encodes events as protobuf, straight into their frame: generated types would first copy every field.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::event::{Event, Payload, Retention};
use crate::proto::client_v1 as wire;
use crate::session::Frame;
use crate::transport::websocket::frame::FrameWriter;

/// Field numbers of `client.proto`.
const SERVER_FRAME_EVENT: u32 = 14;
const SERVER_FRAME_PASSED: u32 = 22;
const PAYLOAD_JSON: u32 = 1;
const PAYLOAD_BINARY: u32 = 2;

/// One field. Fields with their zero value are omitted.
#[derive(Clone, Copy)]
enum Field<'a> {
    Number(u32, u64),
    Bytes(u32, &'a [u8]),
    /// A payload, whose content is present even when it is empty.
    Payload(u32, &'a Payload),
}

impl Field<'_> {
    fn encoded_len(self) -> usize {
        match self {
            Self::Number(_, 0) | Self::Bytes(_, []) => 0,
            Self::Number(tag, value) => key_len(tag) + encoded_len_varint(value),
            Self::Bytes(tag, bytes) => delimited_len(tag, bytes.len()),
            Self::Payload(tag, payload) => delimited_len(tag, delimited_len(PAYLOAD_JSON, payload.bytes_len())),
        }
    }

    fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Number(_, 0) | Self::Bytes(_, []) => {}
            Self::Number(tag, value) => {
                encode_key(tag, WireType::Varint, out);
                encode_varint(value, out);
            }
            Self::Bytes(tag, bytes) => delimited(tag, bytes, out),
            Self::Payload(tag, payload) => {
                encode_key(tag, WireType::LengthDelimited, out);
                encode_varint(delimited_len(PAYLOAD_JSON, payload.bytes_len()) as u64, out);
                match payload {
                    Payload::Json(json) => delimited(PAYLOAD_JSON, json.bytes(), out),
                    Payload::Binary(bytes) => delimited(PAYLOAD_BINARY, bytes, out),
                }
            }
        }
    }
}

/// Returns the length of a field of so many bytes, with its key and length.
fn delimited_len(tag: u32, bytes: usize) -> usize {
    key_len(tag) + encoded_len_varint(bytes as u64) + bytes
}

fn delimited(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Builds a `ServerFrame` without an id and with this message.
fn push(tag: u32, fields: &[Field<'_>]) -> Frame {
    let len = fields.iter().map(|field| field.encoded_len()).sum();
    let mut frame = FrameWriter::with_capacity(delimited_len(tag, len));
    let out = frame.body();
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
    for field in fields {
        field.encode(out);
    }
    frame.binary()
}

pub(super) fn event(event: &Event) -> Frame {
    let (id, epoch) = (event.id.to_string(), epoch(event));
    let actor = event.actor.as_ref().map_or("", |actor| actor.as_str());
    push(
        SERVER_FRAME_EVENT,
        &[
            Field::Bytes(1, event.room.name().as_bytes()),
            Field::Bytes(2, id.as_bytes()),
            Field::Bytes(3, event.name.as_str().as_bytes()),
            Field::Bytes(4, epoch.as_bytes()),
            Field::Number(5, event.link.map_or(0, |link| link.position.offset.0)),
            Field::Number(6, event.link.map_or(0, |link| link.prev.0)),
            Field::Number(7, event.time.0),
            Field::Bytes(8, actor.as_bytes()),
            Field::Number(9, retention_number(event.retention)),
            Field::Payload(10, &event.payload),
        ],
    )
}

pub(super) fn passed(event: &Event) -> Frame {
    push(
        SERVER_FRAME_PASSED,
        &[
            Field::Bytes(1, event.room.name().as_bytes()),
            Field::Bytes(2, epoch(event).as_bytes()),
            Field::Number(3, event.link.map_or(0, |link| link.position.offset.0)),
            Field::Number(4, event.link.map_or(0, |link| link.prev.0)),
        ],
    )
}

/// Returns the epoch of an event's position; empty for an ephemeral one.
fn epoch(event: &Event) -> String {
    event
        .link
        .map_or_else(String::new, |link| link.position.epoch.to_string())
}

const fn retention_number(retention: Retention) -> u64 {
    match retention {
        Retention::Ephemeral => wire::Retention::Ephemeral as u64,
        Retention::Reliable => wire::Retention::Reliable as u64,
        Retention::LastValue => wire::Retention::LastValue as u64,
    }
}
