//! One frame of every command, and what it means.

use roomcast::event::{Payload, Retention};
use roomcast::notice::Notice;
use roomcast::position::{Offset, Position};
use roomcast::session::{Answer, Command, HistoryFrom, JoinOptions, PresenceMode, Request, Since};

use super::{EPOCH, at, json};

/// Name, JSON text, meaning.
pub fn commands() -> Vec<(&'static str, &'static str, Request)> {
    let mut commands = session_commands();
    commands.extend(room_commands());
    commands.extend(publish_commands());
    commands.extend(query_commands());
    commands.extend(answers());
    commands
}

fn request(id: u32, command: Command) -> Request {
    Request { id, command }
}

fn session_commands() -> Vec<(&'static str, &'static str, Request)> {
    let token = || "eyJhbGciOiJFZERTQSJ9.e30.c2ln".to_owned();
    let connect = |token, client: &str, resume| Command::Connect {
        token,
        client: client.to_owned(),
        resume,
        features: Vec::new(),
    };
    let resume = vec![("user:ada".to_owned(), Since::At(at(17)))];
    vec![
        (
            "connect",
            r#"{"id":1,"connect":{"token":"eyJhbGciOiJFZERTQSJ9.e30.c2ln","client":"acme-web/3.1"}}"#,
            request(1, connect(token(), "acme-web/3.1", vec![])),
        ),
        (
            "connect_and_resume",
            r#"{"id":1,"connect":{"token":"eyJhbGciOiJFZERTQSJ9.e30.c2ln","resume":[{"room":"user:ada","position":{"epoch":"7d1e5c0a93f24b86","offset":17}}]}}"#,
            request(1, connect(token(), "", resume)),
        ),
        (
            "connect_with_a_token_from_the_upgrade",
            r#"{"id":1,"connect":{}}"#,
            request(1, connect(String::new(), "", vec![])),
        ),
        (
            "connect_with_features",
            r#"{"id":1,"connect":{"token":"eyJhbGciOiJFZERTQSJ9.e30.c2ln","features":["presence_counts"]}}"#,
            request(
                1,
                Command::Connect {
                    token: token(),
                    client: String::new(),
                    resume: vec![],
                    features: vec!["presence_counts".to_owned()],
                },
            ),
        ),
        (
            "refresh",
            r#"{"id":12,"refresh":{"token":"eyJhbGciOiJFZERTQSJ9.e30.c2ln"}}"#,
            request(12, Command::Refresh { token: token() }),
        ),
        ("ping", r#"{"id":13,"ping":{}}"#, request(13, Command::Ping)),
    ]
}

fn answers() -> Vec<(&'static str, &'static str, Request)> {
    let answer = |answer| request(14, Command::Answer { ask: 3, answer });
    vec![
        (
            "answer",
            r#"{"id":14,"answer":{"askId":3,"payload":{"seat":4}}}"#,
            answer(Answer::Payload(Payload::Json(json(r#"{"seat":4}"#)))),
        ),
        (
            "answer_with_bytes",
            r#"{"id":14,"answer":{"askId":3,"binary":"AAEC/w=="}}"#,
            answer(Answer::Payload(Payload::Binary(vec![0, 1, 2, 255].into()))),
        ),
        (
            "answer_with_an_error",
            r#"{"id":14,"answer":{"askId":3,"error":{"reason":"busy","message":"Not now."}}}"#,
            answer(Answer::Error(Notice::parse("busy", "Not now.").unwrap())),
        ),
    ]
}

fn room_commands() -> Vec<(&'static str, &'static str, Request)> {
    let room = || "project:7".to_owned();
    let join = |options| Command::Join { room: room(), options };
    let since = JoinOptions {
        since: Some(Since::At(at(41))),
        ..JoinOptions::default()
    };
    let from_the_start = Position {
        epoch: EPOCH,
        offset: Offset::ZERO,
    };
    let after_nothing = JoinOptions {
        since: Some(Since::At(from_the_start)),
        ..JoinOptions::default()
    };
    let with_presence = JoinOptions {
        rewind: 20,
        presence: PresenceMode::Members,
        state: Some(json(r#"{"cursor":[3,14]}"#)),
        ..JoinOptions::default()
    };
    vec![
        (
            "join",
            r#"{"id":2,"join":{"room":"project:7"}}"#,
            request(2, join(JoinOptions::default())),
        ),
        (
            "join_since",
            r#"{"id":2,"join":{"room":"project:7","since":{"epoch":"7d1e5c0a93f24b86","offset":41}}}"#,
            request(2, join(since)),
        ),
        (
            "join_since_before_the_first_event",
            r#"{"id":2,"join":{"room":"project:7","since":{"epoch":"7d1e5c0a93f24b86"}}}"#,
            request(2, join(after_nothing)),
        ),
        (
            "join_with_rewind_and_presence",
            r#"{"id":3,"join":{"room":"project:7","rewind":20,"presence":"members","state":{"cursor":[3,14]}}}"#,
            request(3, join(with_presence)),
        ),
        (
            "join_to_count",
            r#"{"id":3,"join":{"room":"project:7","presence":"counts"}}"#,
            request(
                3,
                join(JoinOptions {
                    presence: PresenceMode::Counts,
                    ..JoinOptions::default()
                }),
            ),
        ),
        (
            "leave",
            r#"{"id":4,"leave":{"room":"project:7"}}"#,
            request(4, Command::Leave { room: room() }),
        ),
    ]
}

fn publish_commands() -> Vec<(&'static str, &'static str, Request)> {
    let publish = |event: &str, payload, retention, key: &str| Command::Publish {
        room: "project:7".to_owned(),
        event_name: event.to_owned(),
        payload,
        retention,
        key: key.to_owned(),
    };
    vec![
        (
            "publish",
            r#"{"id":5,"publish":{"room":"project:7","eventName":"task:created","payload":{"task":42},"idempotencyKey":"01J9Z3K8"}}"#,
            request(
                5,
                publish(
                    "task:created",
                    Payload::Json(json(r#"{"task":42}"#)),
                    Retention::Reliable,
                    "01J9Z3K8",
                ),
            ),
        ),
        (
            "publish_binary_and_ephemeral",
            r#"{"id":6,"publish":{"room":"project:7","eventName":"cursor","binary":"AAEC/w==","retention":"ephemeral"}}"#,
            request(
                6,
                publish(
                    "cursor",
                    Payload::Binary(vec![0, 1, 2, 255].into()),
                    Retention::Ephemeral,
                    "",
                ),
            ),
        ),
        (
            "publish_a_last_value",
            r#"{"id":6,"publish":{"room":"project:7","eventName":"price","payload":null,"retention":"last_value"}}"#,
            request(
                6,
                publish("price", Payload::Json(json("null")), Retention::LastValue, ""),
            ),
        ),
    ]
}

fn query_commands() -> Vec<(&'static str, &'static str, Request)> {
    let room = || "project:7".to_owned();
    let history = |from, limit| Command::History {
        room: room(),
        from,
        limit,
    };
    vec![
        (
            "request",
            r#"{"id":7,"request":{"method":"task:close","room":"project:7","payload":{"task":42}}}"#,
            request(
                7,
                Command::Ask {
                    method: "task:close".to_owned(),
                    room: room(),
                    payload: Payload::Json(json(r#"{"task":42}"#)),
                },
            ),
        ),
        (
            "presence_query",
            r#"{"id":8,"presenceQuery":{"room":"project:7"}}"#,
            request(8, Command::Presence { room: room() }),
        ),
        (
            "presence_update",
            r#"{"id":9,"presenceUpdate":{"room":"project:7","state":{"cursor":[1,5]}}}"#,
            request(
                9,
                Command::SetState {
                    room: room(),
                    state: Some(json(r#"{"cursor":[1,5]}"#)),
                },
            ),
        ),
        (
            "presence_update_that_clears",
            r#"{"id":9,"presenceUpdate":{"room":"project:7"}}"#,
            request(
                9,
                Command::SetState {
                    room: room(),
                    state: None,
                },
            ),
        ),
        (
            "user_rooms_query",
            r#"{"id":10,"userRoomsQuery":{}}"#,
            request(10, Command::UserRooms { user: String::new() }),
        ),
        (
            "user_rooms_query_of_another",
            r#"{"id":10,"userRoomsQuery":{"userId":"bob"}}"#,
            request(10, Command::UserRooms { user: "bob".to_owned() }),
        ),
        (
            "history_query",
            r#"{"id":11,"historyQuery":{"room":"project:7"}}"#,
            request(11, history(HistoryFrom::Newest, 0)),
        ),
        (
            "history_query_after",
            r#"{"id":11,"historyQuery":{"room":"project:7","after":{"epoch":"7d1e5c0a93f24b86","offset":12},"limit":50}}"#,
            request(11, history(HistoryFrom::After(Since::At(at(12))), 50)),
        ),
        (
            "history_query_before",
            r#"{"id":11,"historyQuery":{"room":"project:7","before":{"epoch":"7d1e5c0a93f24b86","offset":12}}}"#,
            request(11, history(HistoryFrom::Before(Since::At(at(12))), 0)),
        ),
    ]
}
