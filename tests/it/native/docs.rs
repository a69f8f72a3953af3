//! docs/protocol.md says what the code does.

use std::collections::BTreeSet;
use std::time::Duration;

use roomcast::error::{CloseReason, ErrorCode};
use roomcast::json::Json;
use roomcast::rate::Rate;
use roomcast::session::{Encoder, Message, Refusal};
use roomcast::transport::native::json::JsonProtocol;
use roomcast::{admission, session, transport};
use serde_json::Value;

use super::golden::golden;
use super::unframed;
use crate::tools;

const PAGE: &str = include_str!("../../../docs/protocol.md");

/// The frames in the page's examples, one a line.
fn examples() -> Vec<Value> {
    let blocks = PAGE
        .split("```json\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    blocks
        .flat_map(str::lines)
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// What a frame is: the name of its command or message.
fn kind(frame: &Value) -> String {
    let mut kinds = frame.as_object().unwrap().keys().filter(|key| *key != "id");
    kinds.next().unwrap().clone()
}

/// The rows of the table whose first column has this title, without backticks.
fn table(title: &str) -> Vec<Vec<String>> {
    let start = format!("| {title} |");
    let lines = PAGE.lines().skip_while(|line| !line.starts_with(&start)).skip(2);
    let rows = lines.take_while(|line| line.starts_with('|'));
    let cells = |line: &str| {
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().replace('`', ""))
            .collect()
    };
    let rows: Vec<Vec<String>> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "no table {title}");
    rows
}

#[test]
fn every_example_is_a_golden_frame_and_every_kind_has_an_example() {
    let golden = golden();
    for example in examples() {
        assert!(
            golden.iter().any(|frame| frame.json == example),
            "no golden frame: {example}"
        );
    }
    let shown: BTreeSet<_> = examples().iter().map(kind).collect();
    let all: BTreeSet<_> = golden.iter().map(|frame| kind(&frame.json)).collect();
    assert_eq!(shown, all);
}

#[test]
fn the_table_of_close_codes_is_complete() {
    let rows: Vec<_> = table("code")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone(), row[3].clone()))
        .collect();
    let reasons = CloseReason::ALL.map(|reason| {
        let back = if reason.may_reconnect() { "yes" } else { "no" };
        (reason.code().to_string(), reason.as_str().to_owned(), back.to_owned())
    });
    assert_eq!(rows, reasons);
}

#[test]
fn the_table_of_errors_is_complete() {
    let rows: Vec<_> = table("reason")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let codes = ErrorCode::ALL.map(|code| {
        let frame = JsonProtocol.message(1, &Message::Error(Refusal::new(code, "")));
        let frame: Value = serde_json::from_slice(unframed(&frame).1).unwrap();
        let error = |field: &str| frame["error"][field].as_str().unwrap().to_owned();
        (error("reason"), error("code"))
    });
    assert_eq!(rows, codes);
}

#[test]
fn the_table_of_features_is_complete() {
    let rows = table("feature");
    let names: Vec<_> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, session::FEATURES);
    assert!(session::FEATURES.is_sorted());
    for row in rows {
        let since: Vec<u32> = row[1].split('.').map(|part| part.parse().unwrap()).collect();
        let now: Vec<u32> = env!("CARGO_PKG_VERSION")
            .split('.')
            .map(|part| part.parse().unwrap())
            .collect();
        assert!(since.len() == 3 && since <= now, "{row:?}");
    }
}

#[test]
fn every_command_has_its_row() {
    let rows: BTreeSet<_> = table("command")
        .into_iter()
        .flat_map(|row| [row[0].clone(), row[1].clone()])
        .collect();
    let answered = golden()
        .into_iter()
        .filter(|frame| frame.json["id"].is_u64())
        .map(|frame| kind(&frame.json));
    assert_eq!(rows, answered.filter(|kind| kind != "error").collect());
}

#[test]
fn the_limits_are_the_defaults() {
    let (session, frames) = (
        session::Config::default(),
        transport::websocket::frame::Limits::default(),
    );
    let (outbox, control) = (
        transport::outbox::Config::default(),
        transport::shard::ControlConfig::default(),
    );
    let admission = admission::Config::default();
    let kib = |bytes: usize| format!("{} KiB", bytes / 1024);
    let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
    let seconds = |duration: Duration| format!("{} s", duration.as_secs());
    let rate = |rate: Rate| format!("{} per second, {} at once", rate.per_second, rate.burst);
    let expected = [
        seconds(session.authentication_timeout),
        kib(frames.message_bytes_max),
        frames.fragments_max.to_string(),
        seconds(frames.message_duration_max),
        format!("{} per second", control.frames_per_second_max),
        format!("{} per connection and heartbeat interval", session.malformed_max),
        session.commands_waiting_max.to_string(),
        format!("{} per connection", session.rooms_max),
        rate(session.join_rate),
        rate(session.publish_rate),
        format!("{} per connection and heartbeat interval", session.rate_strikes_max),
        session.asks_max.to_string(),
        Json::DEPTH_MAX.to_string(),
        kib(session.state_bytes_max),
        session.listed_max.to_string(),
        format!("{}, and {}", session.replay.events_max, mib(session.replay.bytes_max)),
        format!("{}, {}", mib(outbox.outbox_bytes_max), seconds(outbox.outbox_age_max)),
        admission.per_user_max.to_string(),
        admission.per_address_max.to_string(),
    ];
    let said: Vec<_> = table("what").into_iter().map(|row| row[1].clone()).collect();
    assert_eq!(said, expected);
}

#[test]
fn the_asyncapi_document_is_valid_and_has_every_golden_frame() {
    tools::expect_success(tools::node("tests/asyncapi/validate.mjs").arg("docs/asyncapi.yaml"));
    tools::expect_success(&mut tools::node("tests/asyncapi/golden.mjs"));
}
