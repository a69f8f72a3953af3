//! `tests/golden/native.jsonl`: each frame of the protocol in both encodings, for other implementations to test with.

use std::fmt::Write;
use std::path::Path;

use roomcast::session::{Encoder, Message, Request};
use roomcast::transport::native::json::{self, JsonProtocol};
use roomcast::transport::native::protobuf::{self, ProtobufProtocol};
use serde_json::Value;

use super::commands::commands;
use super::mapping::{client_frame_to_protobuf, server_frame_to_json};
use super::messages::{Pushed, messages};
use super::unframed;

const GOLDEN: &str = include_str!("../../golden/native.jsonl");

/// A line of the corpus.
#[derive(serde::Deserialize)]
pub struct Golden {
    pub name: String,
    pub from: String,
    pub json: Value,
    protobuf: String,
}

pub fn golden() -> Vec<Golden> {
    GOLDEN.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn line(name: &str, from: &str, json: &str, protobuf: &[u8]) -> String {
    format!(
        "{{\"name\":\"{name}\",\"from\":\"{from}\",\"json\":{json},\"protobuf\":\"{}\"}}\n",
        hex(protobuf)
    )
}

/// The corpus as the code would write it.
fn written() -> String {
    let mut lines = String::new();
    for (name, json, _) in commands() {
        let frame = serde_json::from_str(json).unwrap();
        lines += &line(name, "client", json, &client_frame_to_protobuf(&frame));
    }
    for (name, message) in messages() {
        let (json, protobuf) = (message.write(&JsonProtocol), message.write(&ProtobufProtocol));
        let (is_text, json) = unframed(&json);
        assert!(is_text, "JSON goes in text messages");
        let (is_text, protobuf) = unframed(&protobuf);
        assert!(!is_text, "protobuf goes in binary messages");
        lines += &line(name, "server", std::str::from_utf8(json).unwrap(), protobuf);
    }
    lines
}

#[test]
fn both_encodings_write_every_golden_frame() {
    let written = written();
    if written != GOLDEN {
        // For whoever changes the protocol on purpose: look at the difference, then copy it.
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("native.jsonl");
        std::fs::write(&kept, written).unwrap();
        panic!(
            "tests/golden/native.jsonl is not what is written now; see {}",
            kept.display()
        );
    }
}

#[test]
fn both_encodings_read_every_golden_command() {
    for (name, text, meaning) in commands() {
        assert_eq!(json::decode(text).as_ref(), Ok(&meaning), "{name}");
        let frame: Value = serde_json::from_str(text).unwrap();
        assert_eq!(
            protobuf::decode(&client_frame_to_protobuf(&frame)),
            Ok(meaning),
            "{name}"
        );
    }
}

#[test]
fn both_encodings_of_every_golden_message_say_the_same() {
    for (name, message) in messages() {
        let (json, protobuf) = (message.write(&JsonProtocol), message.write(&ProtobufProtocol));
        let json: Value = serde_json::from_slice(unframed(&json).1).unwrap();
        assert_eq!(json, server_frame_to_json(unframed(&protobuf).1), "{name}");
    }
}

#[test]
fn an_event_in_a_history_is_written_like_one_that_is_pushed() {
    for (name, message) in messages() {
        let Pushed::Event(event) = message else { continue };
        let page = Message::History(roomcast::session::HistoryPage {
            room: event.room.clone(),
            head: super::at(45),
            complete: true,
            more: false,
            events: vec![std::sync::Arc::new(event.clone())],
        });
        for encoder in [&JsonProtocol as &dyn Encoder, &ProtobufProtocol] {
            let (pushed, page) = (encoder.event(&event), encoder.message(1, &page));
            let frame = |frame: &[u8]| match unframed(frame) {
                (true, text) => serde_json::from_slice::<Value>(text).unwrap(),
                (false, bytes) => server_frame_to_json(bytes),
            };
            assert_eq!(frame(&pushed)["event"], frame(&page)["history"]["events"][0], "{name}");
        }
    }
}

#[test]
fn every_command_and_message_has_a_golden_frame() {
    let contract = prost_reflect::DescriptorPool::decode(roomcast::proto::FILE_DESCRIPTOR_SET).unwrap();
    for (from, name) in [("client", "ClientFrame"), ("server", "ServerFrame")] {
        let kind = contract
            .get_message_by_name(&format!("roomcast.client.v1.{name}"))
            .unwrap();
        for field in kind.fields().filter(|field| field.containing_oneof().is_some()) {
            let covered = golden()
                .iter()
                .any(|frame| frame.from == from && frame.json.get(field.json_name()).is_some());
            assert!(covered, "{} has no golden frame", field.full_name());
        }
    }
    let names: std::collections::HashSet<_> = golden().into_iter().map(|frame| frame.name).collect();
    assert_eq!(names.len(), golden().len(), "names are unique");
}

#[test]
fn the_bytes_of_the_corpus_are_read_as_its_text_says() {
    for frame in golden() {
        let bytes: Vec<u8> = (0..frame.protobuf.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&frame.protobuf[at..at + 2], 16).unwrap())
            .collect();
        if frame.from == "server" {
            assert_eq!(server_frame_to_json(&bytes), frame.json, "{}", frame.name);
        } else {
            let request: Request = protobuf::decode(&bytes).unwrap();
            assert_eq!(json::decode(&frame.json.to_string()), Ok(request), "{}", frame.name);
        }
    }
}
