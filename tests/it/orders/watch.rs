//! Watching who comes and goes.

use roomcast::proto::v1;
use roomcast::proto::v1::watch_response::Event as Happened;
use tonic::Streaming;

use crate::support::{Caller, Encoding, Node, TENANT, user, within};

/// A watch that is in effect.
async fn watch(backend: &Caller, request: v1::WatchRequest) -> Streaming<v1::WatchResponse> {
    let mut watch = backend.watching.clone().watch(request).await.unwrap().into_inner();
    assert!(matches!(happened(&mut watch).await, Happened::Started(_)));
    watch
}

async fn happened(watch: &mut Streaming<v1::WatchResponse>) -> Happened {
    let told = within("something to happen", watch.message()).await.unwrap();
    let told = told.expect("the watch goes on");
    let event = told.event.expect("something happened");
    let started = matches!(event, Happened::Started(_));
    assert_eq!(told.tenant, if started { "" } else { TENANT });
    event
}

#[tokio::test]
async fn a_watch_tells_who_comes_and_goes_in_order() {
    let node = Node::start(Encoding::Json).await;
    let backend = node.backend();
    let request = v1::WatchRequest {
        tenants: vec![TENANT.to_owned()],
        ..Default::default()
    };
    let mut watch = watch(&backend, request).await;
    // Not of the watched tenant.
    node.connect(user("zoe").tenant("other")).await.join("r").await;
    let mut phone = node.connect(user("ada")).await;
    phone.join("r").await;
    let mut laptop = node.connect(user("ada")).await;
    laptop.join("r").await;
    phone.leave("r").await;
    let laptop_id = laptop.id.clone();
    laptop.crash();
    let mut told = Vec::new();
    loop {
        let event = happened(&mut watch).await;
        let ended = matches!(&event, Happened::ConnectionClosed(closed) if closed.connection_id == laptop_id);
        told.push(event);
        if ended {
            break;
        }
    }
    let opened: Vec<_> = told
        .iter()
        .filter(|event| matches!(event, Happened::ConnectionOpened(_)))
        .collect();
    assert_eq!(opened.len(), 2);
    let rooms: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Happened::MemberJoined(joined) => Some(("joined", joined.room.as_str())),
            Happened::MemberLeft(left) => Some(("left", left.room.as_str())),
            Happened::RoomOccupied(room) => Some(("occupied", room.room.as_str())),
            Happened::RoomVacated(room) => Some(("vacated", room.room.as_str())),
            _ => None,
        })
        .collect();
    let mut sorted = rooms.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [("joined", "r"), ("left", "r"), ("occupied", "r"), ("vacated", "r")],
        "{told:?}"
    );
    let at = |what| rooms.iter().position(|(kind, _)| *kind == what).unwrap();
    assert!(at("joined") < at("left") && at("occupied") < at("vacated"));
    node.finish().await;
}

#[tokio::test]
async fn a_watch_tells_what_a_client_speaks() {
    let node = Node::start(Encoding::Json).await;
    let backend = node.backend();
    let request = v1::WatchRequest {
        tenants: vec![TENANT.to_owned()],
        kinds: vec![v1::WatchKind::ConnectionOpened.into()],
        ..Default::default()
    };
    let mut watch = watch(&backend, request).await;
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let _ada = node.opening().speaking(encoding).connect(user("ada")).await;
        let Happened::ConnectionOpened(opened) = happened(&mut watch).await else {
            panic!("another kind")
        };
        assert_eq!(opened.protocol, encoding.subprotocol());
    }
    node.finish().await;
}

#[tokio::test]
async fn a_watch_is_narrowed_by_kind_and_room() {
    let node = Node::start(Encoding::Json).await;
    let backend = node.backend();
    let request = v1::WatchRequest {
        tenants: vec![TENANT.to_owned()],
        kinds: vec![v1::WatchKind::MemberJoined.into()],
        room_pattern: "doc:*".to_owned(),
        ..Default::default()
    };
    let mut watch = watch(&backend, request).await;
    let mut ada = node.connect(user("ada")).await;
    for room in ["chat", "doc:1", "doc:2"] {
        ada.join(room).await;
        ada.leave(room).await;
    }
    for room in ["doc:1", "doc:2"] {
        let Happened::MemberJoined(joined) = happened(&mut watch).await else {
            panic!("another kind")
        };
        assert_eq!((joined.room.as_str(), joined.user_id.as_str()), (room, "ada"));
    }
    node.finish().await;
}
