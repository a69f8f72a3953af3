use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::backend::{Emit, EmitTarget};
use crate::event::IdempotencyKey;
use crate::identity::{ConnectionId, Expiry, Identity, UserId};
use crate::proto::backend::v1::answer_response::Outcome as RequestOutcome;
use crate::proto::backend::v1::client_event_service_server::{ClientEventService, ClientEventServiceServer};
use crate::proto::backend::v1::handle_response::Outcome as EventOutcome;
use crate::room::Tenant;

type Handling = dyn Fn(&str) -> Result<Option<EventOutcome>, Status> + Send + Sync;

/// An application on a port of its own. It answers an event by the event's name, and remembers what it was sent.
struct Application {
    handle: Box<Handling>,
    events: Mutex<Vec<wire::HandleRequest>>,
    requests: Mutex<Vec<wire::AnswerRequest>>,
    metadata: Mutex<MetadataMap>,
    arrived: Notify,
}

struct Shared(Arc<Application>);

#[tonic::async_trait]
impl ClientEventService for Shared {
    async fn handle(&self, request: Request<wire::HandleRequest>) -> Result<Response<wire::HandleResponse>, Status> {
        self.0.arrived.notify_one();
        *self.0.metadata.lock().unwrap() = request.metadata().clone();
        let request = request.into_inner();
        let outcome = (self.0.handle)(&request.event_name);
        let slow = request.event_name == "slow";
        self.0.events.lock().unwrap().push(request);
        if slow {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(wire::HandleResponse { outcome: outcome? }))
    }

    async fn answer(&self, request: Request<wire::AnswerRequest>) -> Result<Response<wire::AnswerResponse>, Status> {
        let request = request.into_inner();
        let outcome = match request.method.as_str() {
            "echo" => Some(RequestOutcome::Reply(request.payload.clone().unwrap())),
            "deny" => Some(RequestOutcome::Deny(denial("not_yours"))),
            "junk" => Some(RequestOutcome::Reply(v1::Payload { content: None })),
            _ => None,
        };
        self.0.requests.lock().unwrap().push(request);
        Ok(Response::new(wire::AnswerResponse { outcome }))
    }
}

struct Setting {
    backend: GrpcBackend,
    application: Arc<Application>,
    _server: JoinSet<()>,
}

impl Setting {
    async fn start(
        handle: impl Fn(&str) -> Result<Option<EventOutcome>, Status> + Send + Sync + 'static,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::at(format!("http://{}", listener.local_addr().unwrap()));
        // Long, so that a slow machine decides nothing; tests of the deadline set their own.
        config.timeout = Duration::from_secs(30);
        change(&mut config);
        let application = Arc::new(Application {
            handle: Box::new(handle),
            events: Mutex::default(),
            requests: Mutex::default(),
            metadata: Mutex::default(),
            arrived: Notify::new(),
        });
        let mut server = JoinSet::new();
        let service = ClientEventServiceServer::new(Shared(application.clone()));
        server.spawn(async move {
            let serving = tonic::transport::Server::builder().add_service(service);
            serving
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            backend: GrpcBackend::new(&config).unwrap(),
            application,
            _server: server,
        }
    }
}

fn denial(reason: &str) -> wire::Denial {
    wire::Denial {
        reason: reason.to_owned(),
        message: "for people".to_owned(),
    }
}

fn refused(reason: &str, message: &str) -> Denial {
    Denial {
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

fn json_payload(text: &str) -> Payload {
    Payload::Json(Json::parse(text.to_owned()).unwrap())
}

fn event(name: &str) -> ClientEvent {
    let tenant = Tenant::parse("acme").unwrap();
    ClientEvent {
        room: Some(Room::parse(&tenant, "doc:1").unwrap()),
        identity: Arc::new(Identity {
            tenant,
            user: UserId::parse("ada").unwrap(),
            claims: Json::from(&json!({"sub": "ada"})).into(),
            expiry: Expiry(u64::MAX),
        }),
        connection: ConnectionId::random(),
        name: EventName::parse(name).unwrap(),
        payload: json_payload(r#"{"n": 1.50}"#),
        retention: Retention::Reliable,
        key: Some(IdempotencyKey::of_backend("k-1").unwrap()),
    }
}

fn wire(content: v1::payload::Content) -> v1::Payload {
    v1::Payload { content: Some(content) }
}

fn rewrite(name: &str, payload: Option<v1::Payload>) -> EventOutcome {
    EventOutcome::Rewrite(wire::RewriteEvent {
        event_name: name.to_owned(),
        payload,
        echo: None,
    })
}

/// What the test application makes of an event of that name.
fn outcome(name: &str) -> Result<Option<EventOutcome>, Status> {
    use v1::payload::Content;
    let text = |text: &str| Some(wire(Content::Json(text.to_owned())));
    Ok(Some(match name {
        "rename" => rewrite("renamed", None),
        "replace" => rewrite("", text(r#"{"n":2}"#)),
        "binary" => rewrite("", Some(wire(Content::Binary(Bytes::from_static(&[0, 255]))))),
        "deny" => EventOutcome::Deny(denial("not_yours")),
        "deny oddly" => EventOutcome::Deny(denial("Not <b>yours</b>")),
        "deny silently" => EventOutcome::Deny(wire::Denial::default()),
        "no outcome" => return Ok(None),
        "bad JSON" => rewrite("", text("{")),
        "deep JSON" => rewrite("", text(&"[".repeat(100))),
        "no content" => rewrite("", Some(v1::Payload { content: None })),
        "bad name" => rewrite("a\nb", None),
        "reserved name" => rewrite("disconnect", None),
        "huge" => rewrite("", text(&format!("\"{}\"", "x".repeat(70_000)))),
        "status denied" => return Err(Status::permission_denied("secret detail")),
        "status invalid" => return Err(Status::invalid_argument("secret detail")),
        "status internal" => return Err(Status::internal("secret detail")),
        "status unimplemented" => return Err(Status::unimplemented("secret detail")),
        "replied" => EventOutcome::Handled(wire::HandledEvent {
            reply: text(r#"{"seat":4}"#),
            ..wire::HandledEvent::default()
        }),
        "emitted" => EventOutcome::Handled(wire::HandledEvent {
            emit: vec![wire::EmittedEvent {
                targets: [
                    v1::target::Target::Room("doc:2".to_owned()),
                    v1::target::Target::UserId("bob".to_owned()),
                    v1::target::Target::Everyone(v1::TenantTarget {}),
                ]
                .map(|target| v1::Target { target: Some(target) })
                .into(),
                event_name: "moved".to_owned(),
                payload: text("1"),
                retention: v1::Retention::LastValue.into(),
                exclude_sender: true,
            }],
            ..wire::HandledEvent::default()
        }),
        "emitted nowhere" => EventOutcome::Handled(wire::HandledEvent {
            emit: vec![wire::EmittedEvent::default()],
            ..wire::HandledEvent::default()
        }),
        "handled" => EventOutcome::Handled(wire::HandledEvent::default()),
        "quietly" => EventOutcome::Accept(wire::AcceptEvent { echo: Some(false) }),
        _ => EventOutcome::Accept(wire::AcceptEvent { echo: None }),
    }))
}

#[tokio::test]
async fn the_backend_is_told_everything_about_an_event() {
    let setting = Setting::start(outcome, |_| {}).await;
    let event = event("accept");
    let accepted = setting.backend.validate(event.clone()).await.unwrap();
    let unchanged = Verdict::Publish {
        name: None,
        payload: None,
        echo: Echo::ByPolicy,
    };
    assert_eq!(accepted, unchanged);
    let seen = setting.application.events.lock().unwrap().pop().unwrap();
    assert_eq!(seen.retention(), v1::Retention::Reliable);
    let subject = seen.subject.unwrap();
    assert_eq!((&*subject.tenant, &*subject.user_id), ("acme", "ada"));
    assert_eq!(subject.connection_id, event.connection.to_string());
    assert_eq!(subject.claims_json, r#"{"sub":"ada"}"#);
    assert_eq!(
        (&*seen.room, &*seen.event_name, &*seen.idempotency_key),
        ("doc:1", "accept", "k-1")
    );
    assert_eq!(
        seen.payload,
        Some(wire(v1::payload::Content::Json(r#"{"n": 1.50}"#.to_owned())))
    );
    assert!(
        setting
            .application
            .metadata
            .lock()
            .unwrap()
            .contains_key("grpc-timeout")
    );
}

#[tokio::test]
async fn the_backend_rewrites_and_denies() {
    let setting = Setting::start(outcome, |_| {}).await;
    let publish = |name: Option<&str>, payload| Verdict::Publish {
        name: name.map(|name| EventName::parse(name).unwrap()),
        payload,
        echo: Echo::ByPolicy,
    };
    let quietly = Verdict::Publish {
        name: None,
        payload: None,
        echo: Echo::Withhold,
    };
    let emitted = Emit {
        targets: vec![
            EmitTarget::Room(Room::parse(&Tenant::parse("acme").unwrap(), "doc:2").unwrap()),
            EmitTarget::User(UserId::parse("bob").unwrap()),
            EmitTarget::Everyone,
        ],
        name: EventName::parse("moved").unwrap(),
        payload: json_payload("1"),
        retention: Retention::LastValue,
        exclude_sender: true,
    };
    let deny = |reason: &str| Verdict::Deny(refused(reason, "for people"));
    for (name, expected) in [
        ("rename", publish(Some("renamed"), None)),
        ("replace", publish(None, Some(json_payload(r#"{"n":2}"#)))),
        (
            "binary",
            publish(None, Some(Payload::Binary(Bytes::from_static(&[0, 255])))),
        ),
        ("handled", Verdict::Handled(Handled::default())),
        (
            "replied",
            Verdict::Handled(Handled {
                reply: Some(json_payload(r#"{"seat":4}"#)),
                ..Handled::default()
            }),
        ),
        (
            "emitted",
            Verdict::Handled(Handled {
                emit: vec![emitted],
                ..Handled::default()
            }),
        ),
        ("quietly", quietly),
        ("deny", deny("not_yours")),
        ("deny oddly", deny("denied")),
        ("deny silently", Verdict::Deny(refused("denied", "the backend refused"))),
    ] {
        assert_eq!(setting.backend.validate(event(name)).await, Ok(expected), "{name}");
    }
}

#[tokio::test]
async fn what_is_no_clear_consent_is_none() {
    let setting = Setting::start(outcome, |_| {}).await;
    for name in [
        "no outcome",
        "bad JSON",
        "deep JSON",
        "no content",
        "bad name",
        "reserved name",
        "huge",
        "emitted nowhere",
        "status internal",
        "status unimplemented",
    ] {
        let error = setting.backend.validate(event(name)).await.unwrap_err();
        assert!(matches!(error, BackendError::Unavailable(_)), "{name}: {error:?}");
        assert!(!error.to_string().contains("secret"), "{name}");
    }
    for (name, reason) in [("status denied", "denied"), ("status invalid", "invalid_argument")] {
        let expected = BackendError::Refused(refused(reason, "the backend refused"));
        assert_eq!(setting.backend.validate(event(name)).await, Err(expected));
    }
}

#[tokio::test]
async fn a_request_is_answered_or_refused() {
    let setting = Setting::start(outcome, |_| {}).await;
    let echoed = setting.backend.request(event("echo")).await;
    assert_eq!(echoed, Ok(json_payload(r#"{"n": 1.50}"#)));
    let nowhere = ClientEvent {
        room: None,
        ..event("deny")
    };
    let refused = BackendError::Refused(refused("not_yours", "for people"));
    assert_eq!(setting.backend.request(nowhere).await, Err(refused));
    for method in ["junk", "other"] {
        let error = setting.backend.request(event(method)).await.unwrap_err();
        assert!(matches!(error, BackendError::Unavailable(_)), "{method}: {error:?}");
    }
    let requests = setting.application.requests.lock().unwrap();
    assert_eq!(
        (&*requests[0].method, &*requests[0].room, &*requests[1].room),
        ("echo", "doc:1", "")
    );
    assert!(!requests[0].request_id.is_empty() && requests[0].request_id != requests[1].request_id);
}

#[tokio::test]
async fn a_slow_backend_is_a_timeout() {
    let setting = Setting::start(outcome, |config| config.timeout = Duration::from_millis(200)).await;
    assert_eq!(
        setting.backend.validate(event("slow")).await,
        Err(BackendError::Timeout)
    );
}

#[tokio::test]
async fn a_backend_that_is_down_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut config = Config::at(format!("http://{address}"));
    config.timeout = Duration::from_secs(30);
    let backend = GrpcBackend::new(&config).unwrap();
    let error = backend.validate(event("accept")).await.unwrap_err();
    assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn too_many_calls_at_once_are_refused_at_once() {
    let setting = Setting::start(outcome, |config| config.in_flight_max = 1).await;
    let first = setting.backend.validate(event("slow"));
    let second = async {
        setting.application.arrived.notified().await;
        setting.backend.validate(event("accept")).await
    };
    let refused = tokio::select! {
        _ = first => unreachable!("it is never answered"),
        refused = second => refused,
    };
    assert!(matches!(refused, Err(BackendError::Unavailable(why)) if why.contains("too many")));
}

#[tokio::test]
async fn the_trace_goes_along_and_baggage_does_not() {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let spans = SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(spans.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    let _traced = tracing::subscriber::set_default(subscriber);
    let setting = Setting::start(outcome, |_| {}).await;
    let calling: BoxFuture<'_, _> = setting.backend.validate(event("accept"));
    calling.await.unwrap();
    let metadata = setting.application.metadata.lock().unwrap();
    let parent = metadata.get("traceparent").unwrap().to_str().unwrap();
    assert!(parent.starts_with("00-") && parent.len() == 55, "{parent}");
    assert!(!metadata.contains_key("baggage"));
}

#[test]
fn a_denial_keeps_a_message_of_the_contracts_length() {
    let message = "é".repeat(256);
    for given in [message.clone(), format!("{message}x")] {
        let denial = super::denial(wire::Denial {
            reason: "a".repeat(64),
            message: given,
        });
        assert_eq!((denial.reason, &denial.message), ("a".repeat(64), &message));
    }
    let denial = super::denial(wire::Denial {
        reason: "a".repeat(65),
        message,
    });
    assert_eq!(denial.reason, "denied");
}

#[test]
fn emitted_events_and_their_targets_are_bounded() {
    let tenant = Tenant::parse("acme").unwrap();
    let emitted = |targets: usize| wire::EmittedEvent {
        targets: vec![
            v1::Target {
                target: Some(v1::target::Target::Room("r".to_owned())),
            };
            targets
        ],
        event_name: "e".to_owned(),
        payload: Some(wire(v1::payload::Content::Json("1".to_owned()))),
        ..wire::EmittedEvent::default()
    };
    for (events, targets, is_accepted) in [(16, 1, true), (17, 1, false), (1, 100, true), (1, 101, false)] {
        let parsed = emit::parse(&tenant, vec![emitted(targets); events]);
        assert_eq!(parsed.is_ok(), is_accepted, "{events} events with {targets} targets");
    }
}
