//! Event streams on a shard: the cursor of a connection, seen as a browser sees it.

use std::fmt::Write as _;

use super::shard::{Recorder, Shard};
use super::{ada, revoke};
use crate::error::CloseReason;
use crate::event::{Except, Retention};
use crate::session::ProtocolId;
use crate::shard::Key;
use crate::transport::carrier::{Arrival, Limits};
use crate::transport::protocol::Decoded;

/// What a browser has made of the bytes of a stream: the events it has dispatched, and the last event id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    events: Vec<(String, String)>,
    id: String,
}

impl Seen {
    /// Reads bytes that were cut off anywhere (HTML standard, "Interpreting an event stream").
    fn of(bytes: &str, id: &str) -> Self {
        let mut seen = Self {
            events: Vec::new(),
            id: id.to_owned(),
        };
        let (mut id, mut name, mut data) = (id.to_owned(), String::new(), String::new());
        for line in unchunked(bytes)
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            let line = line.trim_end_matches('\n');
            match line.split_once(": ").unwrap_or((line, "")) {
                ("", "") => {
                    seen.id.clone_from(&id);
                    if !data.is_empty() {
                        seen.events.push((std::mem::take(&mut name), std::mem::take(&mut data)));
                    }
                }
                ("id", value) => value.clone_into(&mut id),
                ("event", value) => value.clone_into(&mut name),
                ("data", value) => data += value,
                _ => {}
            }
        }
        seen
    }

    /// The names of the application's events, of one room each: `a1` is of the room `a`.
    fn names(&self, room: char) -> Vec<&str> {
        let names = self.events.iter().map(|(name, _)| &**name);
        names.filter(|name| name.starts_with(room)).collect()
    }

    /// Whether each room that was joined was recovered, by name.
    fn recovered(&self, room: &str) -> Option<bool> {
        let is_it = |data: &&String| data.contains(&format!(r#""room":"{room}""#));
        let joined = self.events.iter().filter(|(name, _)| name == "roomcast:joined");
        let data = joined.map(|(_, data)| data).find(is_it)?;
        Some(data.contains(r#""recovered":true"#))
    }
}

/// The content of chunks, the last of which may be cut.
fn unchunked(mut bytes: &str) -> String {
    let mut content = String::new();
    while let Some((size, rest)) = bytes.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        content += &rest[..size.min(rest.len())];
        bytes = rest.get(size + 2..).unwrap_or_default();
    }
    content
}

/// Opens a stream in rooms, from a last event id; returns it with what it was sent.
fn stream(shard: &mut Shard, user: &str, id: &str, joins: &[&str]) -> (Key, String) {
    let protocol: ProtocolId = shard.protocols.find("sse").unwrap();
    let mut carrier = shard.protocols.get(protocol).carrier();
    let mut opening = format!("{id}\n{{\"id\":1,\"connect\":{{\"token\":\"{user}\"}}}}\n");
    for (number, join) in joins.iter().enumerate() {
        writeln!(opening, "{{\"id\":{},\"join\":{{{join}}}}}", number + 2).unwrap();
    }
    let (mut bytes, mut requests, protocols) = (opening.into_bytes(), Vec::new(), shard.protocols.clone());
    let fed = carrier.feed(&mut bytes, &Limits::default(), 0, &mut |arrival| match arrival {
        Arrival::Message(message) => match protocols.get(protocol).decode(message) {
            Decoded::Request(request) => requests.push(request),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    });
    fed.unwrap();
    let link = Recorder {
        other: Some((protocol, carrier)),
        ..Recorder::default()
    };
    let key = shard.open(link, None);
    for request in requests {
        shard.sessions.command(key, request);
    }
    shard.drive();
    let sent = shard.told(key);
    (key, sent)
}

fn close(shard: &mut Shard, key: Key) {
    shard.sessions.close(key, CloseReason::ClientLeft);
    shard.sessions.take_closed();
}

const BOTH: [&str; 2] = [r#""room":"a""#, r#""room":"b""#];

/// Publishes to both rooms and to the home room, singly and in a burst, some of it not for everybody.
async fn publish_some(shard: &mut Shard, round: u32) {
    for room in ["a", "b", "a"] {
        shard.publish(room, &format!("{room}{round}-single")).await;
    }
    for number in 0..3 {
        for (room, prefix) in [("a", "a"), ("home:ada", "h"), ("b", "b")] {
            let name = format!("{prefix}{round}-{number}");
            shard.publish_as(room, &name, Retention::Reliable, Except::NOBODY).await;
        }
        let but_ada = Except::new(Vec::new(), vec![ada()]);
        shard.publish_as("b", "for-others", Retention::Reliable, but_ada).await;
    }
    shard.drive();
}

/// The property that everything is for: whatever the byte at which a stream is cut, what comes after continues exactly.
#[tokio::test]
async fn a_stream_cut_at_any_byte_continues_exactly() {
    let mut shard = Shard::new();
    let (key, mut sent) = stream(&mut shard, "ada", "", &BOTH);
    publish_some(&mut shard, 1).await;
    sent += &shard.told(key);
    close(&mut shard, key);
    let first = Seen::of(&sent, "");
    // The second one is cut, too, in its replay and behind it.
    let half = Seen::of(&sent[..sent.len() / 2], "");
    let (key, mut second) = stream(&mut shard, "ada", &half.id, &BOTH);
    publish_some(&mut shard, 2).await;
    second += &shard.told(key);
    let end = Seen::of(&second, &half.id);
    close(&mut shard, key);
    for room in ['a', 'b', 'h'] {
        assert_eq!(end.names(room).first(), first.names(room).get(half.names(room).len()));
    }
    let all = |room: char| [half.names(room), end.names(room)].concat();
    assert_eq!([all('a').len(), all('b').len(), all('h').len()], [10, 8, 6]);
    assert!(all('f').is_empty());
    let (mut cuts, mut last) = (0, None);
    for at in 0..=second.len() {
        let seen = Seen::of(&second[..at], &half.id);
        if last.as_ref() == Some(&seen) {
            continue;
        }
        let (key, again) = stream(&mut shard, "ada", &seen.id, &BOTH);
        close(&mut shard, key);
        let again = Seen::of(&again, &seen.id);
        for (prefix, room) in [('a', "a"), ('b', "b"), ('h', "home:ada")] {
            let whole = [half.names(prefix), seen.names(prefix), again.names(prefix)].concat();
            assert_eq!(whole, all(prefix), "cut at {at}");
            assert_eq!(again.recovered(room), Some(true), "cut at {at}");
        }
        (cuts, last) = (cuts + 1, Some(seen));
    }
    assert!(cuts > 15, "{cuts}");
}

#[tokio::test]
async fn a_stream_cut_before_its_first_event_has_an_id_to_go_on_from() {
    let mut shard = Shard::new();
    let (key, sent) = stream(&mut shard, "ada", "", &BOTH);
    close(&mut shard, key);
    let seen = Seen::of(&sent, "");
    shard.publish("a", "a1").await;
    shard.publish("home:ada", "h1").await;
    let (_, again) = stream(&mut shard, "ada", &seen.id, &BOTH);
    let again = Seen::of(&again, &seen.id);
    assert_eq!((again.names('a'), again.names('h')), (vec!["a1"], vec!["h1"]));
}

#[tokio::test]
async fn passed_events_advance_the_cursor_and_ephemeral_ones_do_not() {
    let mut shard = Shard::new();
    let (key, sent) = stream(&mut shard, "ada", "", &BOTH);
    let start = Seen::of(&sent, "").id;
    let but_ada = Except::new(Vec::new(), vec![ada()]);
    shard.publish_as("a", "a-hidden", Retention::Reliable, but_ada).await;
    shard.drive();
    assert_eq!(shard.told(key), "", "nothing of it is told");
    shard.publish_as("a", "a1", Retention::Ephemeral, Except::NOBODY).await;
    shard.drive();
    let told = shard.told(key);
    let first = Seen::of(&told, &start);
    assert_eq!(first.names('a'), ["a1"]);
    assert_ne!(first.id, start, "the position of the hidden one");
    shard.publish_as("a", "a2", Retention::Ephemeral, Except::NOBODY).await;
    shard.drive();
    let told = shard.told(key);
    assert_eq!(Seen::of(&told, "").id, first.id);
}

#[tokio::test]
async fn an_id_of_another_order_stream_or_tenant_recovers_nothing() {
    let (mut shard, mut other) = (Shard::new(), Shard::new());
    let (_, sent) = stream(&mut other, "ada", "", &BOTH);
    let of_another_epoch = Seen::of(&sent, "").id;
    let (_, sent) = stream(&mut shard, "ada", "", &[r#""room":"x""#]);
    let of_another_room = Seen::of(&sent, "").id;
    shard.publish("a", "a1").await;
    for id in ["nonsense", "AQA", "", &of_another_epoch, &of_another_room] {
        let (key, sent) = stream(&mut shard, "ada", id, &BOTH);
        close(&mut shard, key);
        let seen = Seen::of(&sent, id);
        assert_eq!(seen.recovered("a"), Some(false), "{id}");
        assert!(seen.names('a').is_empty(), "{id}");
    }
}

#[tokio::test]
async fn what_was_left_is_not_gone_on_from() {
    let mut shard = Shard::new();
    let (key, sent) = stream(&mut shard, "ada", "", &BOTH);
    let start = Seen::of(&sent, "").id;
    shard.publish("a", "a1").await;
    shard.told(key);
    revoke(&mut shard, "a").await;
    let told = shard.told(key);
    let seen = Seen::of(&told, &start);
    assert_eq!(seen.events[0].0, "roomcast:roomLeft");
    assert!(seen.id.len() < start.len(), "without the room: {} of {start}", seen.id);
    let (_, again) = stream(&mut shard, "ada", &seen.id, &BOTH);
    let again = Seen::of(&again, &seen.id);
    assert_eq!((again.recovered("a"), again.recovered("b")), (None, Some(true)));
    let refused = again
        .events
        .iter()
        .find(|(name, _)| name == "roomcast:refused")
        .unwrap();
    assert!(refused.1.contains(r#""index":0,"code":"forbidden""#), "{}", refused.1);
}

#[tokio::test]
async fn a_rewind_is_gone_on_from_and_last_values_begin_anew() {
    let mut shard = Shard::new();
    for number in 1..=4 {
        shard.publish("a", &format!("a{number}")).await;
    }
    for name in ["b1", "b2"] {
        shard.publish_as("b", name, Retention::LastValue, Except::NOBODY).await;
        shard.publish("b", "other").await;
    }
    let joins = [r#""room":"a","rewind":3"#, r#""room":"b""#];
    let (key, sent) = stream(&mut shard, "ada", "", &joins);
    close(&mut shard, key);
    let whole = Seen::of(&sent, "");
    assert_eq!(
        (whole.names('a'), whole.names('b')),
        (vec!["a2", "a3", "a4"], vec!["b1", "b2"])
    );
    for at in 0..=sent.len() {
        let seen = Seen::of(&sent[..at], "");
        let (key, again) = stream(&mut shard, "ada", &seen.id, &joins);
        close(&mut shard, key);
        let again = Seen::of(&again, &seen.id);
        let recovered = |room| again.recovered(room) == Some(true);
        let rewound = [seen.names('a'), again.names('a')].concat();
        assert!(
            !recovered("a") || rewound == whole.names('a'),
            "cut at {at}: {rewound:?}"
        );
        // Part of the last values is nothing to go on from, and all of them are.
        let values = again.names('b');
        assert_eq!(
            values,
            if recovered("b") { vec![] } else { vec!["b1", "b2"] },
            "cut at {at}"
        );
        assert!(!recovered("b") || seen.names('b').len() == 2, "cut at {at}");
        assert!(recovered("a") || seen.names('a').is_empty(), "cut at {at}");
    }
}

#[tokio::test]
async fn a_stream_that_is_in_no_room_is_closed_and_another_goes_on() {
    let mut shard = Shard::new();
    shard.policy.swap(&["b"], false, &[]);
    let (key, sent) = stream(&mut shard, "ada", "", &BOTH);
    assert_eq!(Seen::of(&sent, "").recovered("b"), Some(false));
    assert!(shard.sessions.take_closed().is_empty());
    close(&mut shard, key);
    let (_, sent) = stream(&mut shard, "ada", "", &BOTH[..1]);
    assert!(sent.contains("roomcast:refused"), "{sent}");
    assert_eq!(shard.sessions.take_closed()[0].reason, CloseReason::Forbidden);
    // One that has asked for none waits for a backend.
    let (_, sent) = stream(&mut shard, "ada", "", &[]);
    assert!(sent.contains("roomcast:connected"), "{sent}");
    assert!(shard.sessions.take_closed().is_empty());
}

#[tokio::test]
async fn what_time_may_mend_closes_a_stream_so_that_it_comes_back() {
    let mut shard = Shard::new();
    let (key, sent) = stream(&mut shard, "ada", "", &BOTH);
    close(&mut shard, key);
    let seen = Seen::of(&sent, "");
    shard.publish("a", "a1").await;
    shard.lapse();
    let (_, sent) = stream(&mut shard, "ada", &seen.id, &BOTH);
    assert_eq!(shard.sessions.take_closed()[0].reason, CloseReason::Overloaded);
    let between = Seen::of(&sent, &seen.id);
    shard.renew();
    let (_, sent) = stream(&mut shard, "ada", &between.id, &BOTH);
    assert_eq!(Seen::of(&sent, "").names('a'), ["a1"], "nothing was forgotten");
}

#[tokio::test]
async fn the_rate_of_joins_does_not_hold_for_the_rooms_of_one_request() {
    let mut shard = Shard::new();
    let joins: Vec<String> = (0..120).map(|number| format!("\"room\":\"r{number}\"")).collect();
    let joins: Vec<&str> = joins.iter().map(|join| &**join).collect();
    let (_, sent) = stream(&mut shard, "ada", "", &joins);
    let seen = Seen::of(&sent, "");
    let count = |text: &str| seen.events.iter().filter(|(_, data)| data.contains(text)).count();
    assert_eq!(
        (count("room_limit"), count("rate_limited"), count("\"recovered\"")),
        (118, 0, 3)
    );
}
