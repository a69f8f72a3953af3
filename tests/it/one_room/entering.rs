//! The way of a client into its room, by each protocol.

use roomcast::proto::client_v1::{self, Join, Joined, PresenceMode};
use serde_json::{Value, json};

use super::listener::Link;
use crate::support::event_stream::EventStream;
use crate::support::socketio::{SocketIo, Way};
use crate::support::{Encoding, InRoom as _, OneOf, User};

/// The start of a client in its room.
#[derive(Debug, Clone, Default)]
pub enum Start {
    #[default]
    Now,
    Rewind(u32),
    /// With the roster of its members.
    Watching,
    /// Where another one was.
    After(Mark),
}

/// The place of a client in its room, as its protocol lets it say so.
#[derive(Debug, Clone)]
pub enum Mark {
    Position(client_v1::Position),
    Id(String),
}

pub(super) async fn native(
    at: &OneOf<'_>,
    encoding: Encoding,
    user: &User,
    room: &str,
    start: Start,
) -> Result<(Link, Joined), String> {
    let mut client = at
        .opening()
        .speaking(encoding)
        .open()
        .await
        .expect("the upgrade is accepted");
    client
        .authenticate(user, Vec::new())
        .await
        .map_err(|error| error.reason)?;
    let mut join = Join::in_room(room);
    match start {
        Start::Now => {}
        Start::Rewind(count) => join.rewind = count,
        Start::Watching => join.presence = PresenceMode::Members.into(),
        Start::After(Mark::Position(position)) => join.since = Some(position),
        Start::After(Mark::Id(id)) => panic!("an id of another protocol: {id}"),
    }
    let joined = client.try_join(join).await.map_err(|error| error.reason)?;
    Ok((Link::Native(Box::new(client)), joined))
}

pub(super) async fn socketio(
    at: &OneOf<'_>,
    way: Way,
    user: &User,
    room: &str,
    start: Start,
) -> Result<(Link, Joined), String> {
    let mut client = SocketIo::open(at.client_address(), way, false)
        .await
        .expect("a connection");
    let connected = client
        .connect(&json!({"token": user.token()}))
        .await
        .expect("an answer");
    if let Err(refused) = connected {
        client.close().await;
        return Err(refused["data"]["code"].as_str().unwrap().to_owned());
    }
    let mut join = json!({"room": room});
    match start {
        Start::Now => {}
        Start::Rewind(count) => join["rewind"] = json!(count),
        Start::Watching => join["presence"] = json!("members"),
        Start::After(Mark::Position(position)) => {
            join["since"] = json!({"epoch": position.epoch, "offset": position.offset});
        }
        Start::After(Mark::Id(id)) => panic!("an id of another protocol: {id}"),
    }
    let joined = client.command("join", &join).await.expect("an answer");
    if let Some(error) = joined.get("error") {
        client.close().await;
        return Err(error["reason"].as_str().or(error["code"].as_str()).unwrap().to_owned());
    }
    Ok((Link::SocketIo(Box::new(client)), joined_of(&joined)))
}

pub(super) async fn stream(
    at: &OneOf<'_>,
    more: &str,
    user: &User,
    room: &str,
    start: Start,
) -> Result<(Link, Joined), String> {
    let (mut query, mut after) = (format!("?room={room}{more}"), String::new());
    match start {
        Start::Now => {}
        Start::Rewind(count) => query = format!("{query}&rewind={count}"),
        Start::Watching => query += "&presence=members",
        Start::After(Mark::Id(id)) => after = id,
        Start::After(Mark::Position(position)) => panic!("a position of another protocol: {position:?}"),
    }
    let opened = EventStream::open(at.client_address(), &query, &user.token(), &after, false).await;
    let mut stream = opened.expect("a stream");
    loop {
        let event = stream.next().await.expect("the answer to a join");
        let fields = event.json();
        match &*event.name {
            "roomcast:connected" => {}
            "roomcast:joined" if fields["room"] != room => {}
            "roomcast:joined" => return Ok((Link::Stream(Box::new(stream)), joined_of(&fields))),
            "roomcast:refused" => return Err(fields["reason"].as_str().unwrap().to_owned()),
            other => panic!("{other} before the join is answered"),
        }
    }
}

/// A join in JSON.
fn joined_of(fields: &Value) -> Joined {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let member = |member: &Value| client_v1::Member {
        user_id: member["userId"].as_str().unwrap().to_owned(),
        connection_count: u32::try_from(number(&member["connectionCount"])).unwrap(),
        state_json: None,
    };
    let members = fields["presence"]["members"]
        .as_array()
        .into_iter()
        .flatten()
        .map(member);
    Joined {
        room: fields["room"].as_str().unwrap().to_owned(),
        head: Some(client_v1::Position {
            epoch: fields["head"]["epoch"].as_str().unwrap().to_owned(),
            offset: number(&fields["head"]["offset"]),
        }),
        recovered: fields["recovered"] == true,
        replayed: u32::try_from(number(&fields["replayed"])).unwrap(),
        presence: Some(client_v1::Presence {
            members: members.collect(),
            ..Default::default()
        }),
    }
}
