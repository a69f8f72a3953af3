//! `WatchService`: live, filtered, and ended when the reader is too slow.

use std::time::Duration;

use futures_util::StreamExt as _;
use tonic::{Code, Streaming};

use super::support::{Api, Authorized, Caller, ROOT, Setup, refusal, room, tenant, token};
use crate::api::{Credentials, Scope};
use crate::error::CloseReason;
use crate::identity::UserId;
use crate::presence::{self, Activity, Departure, Member, Presence as _};
use crate::proto::v1;
use crate::proto::v1::watch_response::Event;
use crate::proto::v1::watch_service_client::WatchServiceClient;

pub(super) async fn watcher(api: &Api, token: &'static str) -> WatchServiceClient<Authorized> {
    WatchServiceClient::with_interceptor(api.channel().await, Caller::with(token))
}

/// A watch that has begun.
async fn begin(client: &mut WatchServiceClient<Authorized>, request: v1::WatchRequest) -> Streaming<v1::WatchResponse> {
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let first = watch.next().await.unwrap().unwrap();
    assert_eq!(first.event, Some(Event::Started(v1::WatchStarted {})));
    watch
}

/// The tenant and the event that come next.
async fn next(watch: &mut Streaming<v1::WatchResponse>) -> (String, String) {
    let told = watch.next().await.unwrap().unwrap();
    assert!(told.event_time.is_some());
    let what = match told.event.unwrap() {
        Event::ConnectionOpened(opened) => format!("opened {} {}", opened.user_id, opened.protocol),
        Event::ConnectionClosed(closed) => format!("closed {} {} {}", closed.user_id, closed.code, closed.reason),
        Event::MemberJoined(joined) => format!("joined {} {}", joined.room, joined.user_id),
        Event::MemberLeft(left) => format!("left {} {}", left.room, left.user_id),
        Event::RoomOccupied(occupied) => format!("occupied {}", occupied.room),
        Event::RoomVacated(vacated) => format!("vacated {}", vacated.room),
        other => format!("{other:?}"),
    };
    (told.tenant, what)
}

#[tokio::test]
async fn a_watch_tells_who_comes_and_goes() {
    let api = Api::start().await;
    let mut client = watcher(&api, ROOT).await;
    let mut watch = begin(&mut client, v1::WatchRequest::default()).await;
    let member = api.enter("r", "ada");
    let protocol = "roomcast.v1.protobuf".into();
    api.presence
        .announce(Activity::Opened(tenant("b"), member.clone(), protocol));
    api.presence
        .announce(Activity::Closed(tenant("b"), member.clone(), CloseReason::SlowConsumer));
    api.presence.leave(&room("a", "r"), &member, Departure::Left);
    let mut told = Vec::new();
    for _ in 0..6 {
        told.push(next(&mut watch).await);
    }
    let of = |tenant: &str, what: &str| (tenant.to_owned(), what.to_owned());
    for expected in [
        of("a", "joined r ada"),
        of("a", "occupied r"),
        of("b", "opened ada roomcast.v1.protobuf"),
        of("b", "closed ada 4002 slow_consumer"),
        of("a", "left r ada"),
        of("a", "vacated r"),
    ] {
        assert!(told.contains(&expected), "{expected:?} is not in {told:?}");
    }
}

#[tokio::test]
async fn a_watch_is_told_only_what_it_asked_for_and_may_see() {
    let tokens = [
        token("of-a", &[Scope::Watch], Some(&["a"])),
        token(ROOT, &Scope::ALL, None),
    ];
    let api = Api::with(Setup {
        credentials: Credentials::none().with_tokens(tokens),
        ..Setup::default()
    })
    .await;
    let mut limited = watcher(&api, "of-a").await;
    let mut limited = begin(&mut limited, v1::WatchRequest::default()).await;
    let mut filtered = watcher(&api, ROOT).await;
    let request = v1::WatchRequest {
        tenants: vec!["a".to_owned()],
        kinds: vec![v1::WatchKind::MemberJoined.into()],
        room_pattern: "project:*".to_owned(),
        ..v1::WatchRequest::default()
    };
    let mut filtered = begin(&mut filtered, request).await;
    let foreigner = Member {
        connection: api.shard.connect("b", "eve"),
        user: UserId::parse("eve").unwrap(),
    };
    api.presence.enter(&room("b", "project:1"), &foreigner, None).unwrap();
    api.enter("other", "ada");
    api.enter("project:1", "ada");
    assert_eq!(
        next(&mut filtered).await,
        ("a".to_owned(), "joined project:1 ada".to_owned())
    );
    for _ in 0..4 {
        let (tenant, what) = next(&mut limited).await;
        assert_eq!(tenant, "a", "{what}");
    }
}

#[tokio::test]
async fn a_watch_that_cannot_begin_says_why() {
    let tokens = [
        token("of-a", &[Scope::Watch], Some(&["a"])),
        token("reader", &[Scope::Read], None),
    ];
    let api = Api::with(Setup {
        credentials: Credentials::none().with_tokens(tokens),
        ..Setup::default()
    })
    .await;
    let request = v1::WatchRequest::default;
    let cases = [
        ("reader", request(), Code::PermissionDenied, "SCOPE_MISSING"),
        (
            "of-a",
            v1::WatchRequest {
                tenants: vec!["b".to_owned()],
                ..request()
            },
            Code::PermissionDenied,
            "TENANT_FORBIDDEN",
        ),
        (
            "of-a",
            v1::WatchRequest {
                tenants: vec!["a".to_owned(); 101],
                ..request()
            },
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            "of-a",
            v1::WatchRequest {
                kinds: vec![0],
                ..request()
            },
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            "of-a",
            v1::WatchRequest {
                room_pattern: "*****".to_owned(),
                ..request()
            },
            Code::InvalidArgument,
            "INVALID_ROOM",
        ),
        (
            "of-a",
            v1::WatchRequest {
                cursor: "c".to_owned(),
                ..request()
            },
            Code::Unimplemented,
            "UNIMPLEMENTED_FEATURE",
        ),
        (
            "of-a",
            v1::WatchRequest {
                snapshot: true,
                ..request()
            },
            Code::Unimplemented,
            "UNIMPLEMENTED_FEATURE",
        ),
    ];
    for (token, request, code, reason) in cases {
        let status = watcher(&api, token).await.watch(request).await.unwrap_err();
        let (found, found_reason, _) = refusal(&status);
        assert_eq!((found, found_reason.as_str()), (code, reason));
    }
}

#[tokio::test]
async fn a_watch_too_far_behind_is_ended_and_a_drain_ends_the_others() {
    let api = Api::with(Setup {
        presence: presence::memory::Config {
            activity_capacity: 4,
            leave_grace: Duration::ZERO,
            ..presence::memory::Config::default()
        },
        ..Setup::default()
    })
    .await;
    let mut client = watcher(&api, ROOT).await;
    let mut slow = begin(&mut client, v1::WatchRequest::default()).await;
    let member = api.enter("r", "ada");
    // More than is kept, without giving the stream a chance to run in between.
    for _ in 0..100 {
        api.presence
            .announce(Activity::Opened(tenant("a"), member.clone(), "".into()));
    }
    let status = loop {
        match slow.next().await.unwrap() {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(
        refusal(&status),
        (Code::ResourceExhausted, "SLOW_CONSUMER".to_owned(), String::new())
    );

    let mut watch = begin(&mut client, v1::WatchRequest::default()).await;
    api.stop.cancel();
    let status = watch.next().await.unwrap().unwrap_err();
    assert_eq!(refusal(&status).1, "DRAINING");
}
