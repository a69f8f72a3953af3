mod failures;
mod kept;

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::*;
use crate::event::EventName;
use crate::identity::{Expiry, UserId};
use crate::json::Json;
use crate::policy::rules::tests::revoked;
use crate::policy::{ActionName, Config, Policy, RevocationScope, RuleConfig, RulePolicy};
use crate::proto::backend::v1::authorizer_service_server::{AuthorizerService, AuthorizerServiceServer};
use crate::room::{Room, Tenant};

type Answering = dyn Fn(&wire::AuthorizeRequest) -> Result<wire::AuthorizeResponse, Status> + Send + Sync;

/// An application's authorizer on a port of its own.
struct Application {
    asked: AtomicUsize,
    arrived: Notify,
    /// Answers wait for a permit.
    gate: Semaphore,
    answer: Box<Answering>,
    last: Mutex<Option<wire::AuthorizeRequest>>,
}

struct Shared(Arc<Application>);

#[tonic::async_trait]
impl AuthorizerService for Shared {
    async fn authorize(
        &self,
        request: Request<wire::AuthorizeRequest>,
    ) -> Result<Response<wire::AuthorizeResponse>, Status> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        self.0.arrived.notify_one();
        self.0.gate.acquire().await.unwrap().forget();
        let request = request.into_inner();
        let answer = (self.0.answer)(&request);
        *self.0.last.lock().unwrap() = Some(request);
        answer.map(Response::new)
    }
}

/// A policy whose only rule asks the application.
struct Setting {
    policy: RulePolicy,
    application: Arc<Application>,
    _server: JoinSet<()>,
}

impl Setting {
    async fn start(
        answer: impl Fn(&wire::AuthorizeRequest) -> Result<wire::AuthorizeResponse, Status> + Send + Sync + 'static,
        change: impl FnOnce(&mut AuthorizerConfig),
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = AuthorizerConfig::at(format!("http://{}", listener.local_addr().unwrap()));
        // Long, so that a slow machine decides nothing; tests of the deadline set their own.
        config.timeout = Duration::from_secs(30);
        change(&mut config);
        let application = Arc::new(Application {
            asked: AtomicUsize::new(0),
            arrived: Notify::new(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            answer: Box::new(answer),
            last: Mutex::default(),
        });
        let mut server = JoinSet::new();
        let service = AuthorizerServiceServer::new(Shared(application.clone()));
        server.spawn(async move {
            let serving = tonic::transport::Server::builder().add_service(service);
            serving
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            policy: policy(config),
            application,
            _server: server,
        }
    }

    async fn decide(&self, question: Question) -> Result<(), (bool, String)> {
        let decision = self.policy.authorize(question).await.map(drop);
        decision.map_err(|denied| (denied.undecided, denied.reason.to_string()))
    }

    fn asked(&self) -> usize {
        self.application.asked.load(Ordering::SeqCst)
    }
}

fn policy(config: AuthorizerConfig) -> RulePolicy {
    let mut all = Config {
        authorizer: Some(config),
        ..Config::default()
    };
    all.rules.push(RuleConfig {
        name: "ask".to_owned(),
        room: Some("doc:{id}".to_owned()),
        allow: vec![ActionName::Join, ActionName::Publish],
        events: Vec::new(),
        methods: Vec::new(),
        when: None,
        authorizer: true,
        validate: false,
    });
    all.connect.authorizer = true;
    RulePolicy::new(&all).unwrap()
}

fn identity(user: &str, claims: &serde_json::Value) -> Arc<Identity> {
    Arc::new(Identity {
        tenant: Tenant::parse("acme").unwrap(),
        user: UserId::parse(user).unwrap(),
        claims: Json::from(claims).into(),
        expiry: Expiry(u64::MAX),
    })
}

fn ask(user: &str, room: &str, action: Action) -> Question {
    let identity = identity(user, &json!({"sub": user}));
    Question {
        room: Room::parse(&identity.tenant, room).unwrap(),
        connection: ConnectionId::random(),
        identity,
        action,
    }
}

fn join(user: &str, room: &str) -> Question {
    ask(user, room, Action::Join)
}

fn publish(name: &str) -> Action {
    Action::Publish(EventName::parse(name).unwrap())
}

fn answer(decision: v1::Decision, ttl_seconds: i64) -> wire::AuthorizeResponse {
    wire::AuthorizeResponse {
        decision: decision.into(),
        reason: "because".to_owned(),
        cache_ttl: Some(prost_types::Duration {
            seconds: ttl_seconds,
            nanos: 0,
        }),
        ..wire::AuthorizeResponse::default()
    }
}

/// Moves the clock without waiting; it runs again afterwards, for the network needs real time.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn the_authorizer_decides_where_a_rule_asks_it_and_is_told_everything() {
    let decide = |request: &wire::AuthorizeRequest| {
        let ada = request.subject.as_ref().is_some_and(|subject| subject.user_id == "ada");
        Ok(answer(if ada { v1::Decision::Allow } else { v1::Decision::Deny }, 0))
    };
    let setting = Setting::start(decide, |_| {}).await;
    let question = ask("ada", "doc:1", publish("typing"));
    let connection = question.connection.to_string();
    assert_eq!(setting.decide(question).await, Ok(()));
    let last = setting.application.last.lock().unwrap().clone().unwrap();
    assert_eq!(
        (last.action(), &*last.room, &*last.event_name),
        (v1::Action::Publish, "doc:1", "typing")
    );
    let subject = last.subject.unwrap();
    assert_eq!(
        (&*subject.tenant, &*subject.user_id, subject.connection_id),
        ("acme", "ada", connection)
    );
    assert_eq!(subject.claims_json, r#"{"sub":"ada"}"#);

    let denied = setting.decide(join("bob", "doc:1")).await;
    assert_eq!(denied, Err((false, "the authorizer refused: because".to_owned())));
    assert!(setting.decide(join("ada", "lobby")).await.is_err());
    assert_eq!(setting.asked(), 2, "no rule of the lobby asks");

    let explanation = setting.policy.explain(join("bob", "doc:1")).await;
    assert_eq!((explanation.allowed, explanation.rule.as_deref()), (false, Some("ask")));
    let admitted = |user| {
        let identity = identity(user, &json!({}));
        let policy = &setting.policy;
        async move { policy.admit(&identity, ConnectionId::random()).await.is_ok() }
    };
    assert!(admitted("ada").await && !admitted("bob").await);
}

#[tokio::test]
async fn an_answer_to_connect_names_rooms_of_the_own_tenant() {
    let decide = |request: &wire::AuthorizeRequest| {
        let user = request.subject.as_ref().map_or("", |subject| &subject.user_id);
        let names: &[&str] = if user == "ada" {
            &["user:ada", "lobby"]
        } else {
            &["lobby", "a\nb"]
        };
        let join_rooms = names.iter().map(ToString::to_string).collect();
        Ok(wire::AuthorizeResponse {
            join_rooms,
            ..answer(v1::Decision::Allow, 60)
        })
    };
    let setting = Setting::start(decide, |_| {}).await;
    let ada = identity("ada", &json!({}));
    let rooms = async || {
        let permits = setting.policy.admit(&ada, ConnectionId::random()).await.unwrap();
        permits
            .rooms
            .iter()
            .map(|permit| permit.room().clone())
            .collect::<Vec<_>>()
    };
    let expected = ["user:ada", "lobby"].map(|name| Room::parse(&ada.tenant, name).unwrap());
    assert_eq!(rooms().await, expected);
    let revocation = revoked(ada.tenant.as_str(), RevocationScope::Room(expected[1].clone()));
    setting.policy.revoke(&revocation, Duration::from_secs(60));
    assert_eq!(rooms().await, expected[..1]);
    let junk = setting
        .policy
        .admit(&identity("bob", &json!({})), ConnectionId::random())
        .await;
    assert!(junk.unwrap_err().undecided);
}

#[tokio::test]
async fn equal_questions_at_the_same_time_are_one_call() {
    let setting = Setting::start(|_| Ok(answer(v1::Decision::Allow, 0)), |_| {}).await;
    setting.application.gate.forget_permits(Semaphore::MAX_PERMITS);
    let crowd = join_all((0..50).map(|_| setting.decide(join("ada", "doc:1"))));
    let open = async {
        setting.application.arrived.notified().await;
        setting.application.gate.add_permits(50);
    };
    let (decisions, ()) = tokio::join!(crowd, open);
    assert!(decisions.iter().all(Result::is_ok));
    assert_eq!(setting.asked(), 1);
    // A caller that leaves takes no answer away from the others.
    setting.application.gate.forget_permits(50);
    let mut leaving = Box::pin(setting.decide(join("ada", "doc:2")));
    tokio::select! {
        _ = &mut leaving => unreachable!("the gate is closed"),
        () = setting.application.arrived.notified() => {}
    }
    let staying = setting.decide(join("ada", "doc:2"));
    let open = async {
        drop(leaving);
        setting.application.gate.add_permits(1);
    };
    let (decision, ()) = tokio::join!(staying, open);
    assert_eq!(decision, Ok(()));
}

#[test]
fn an_answer_is_bounded_in_the_units_of_the_contract() {
    let decided = |join_rooms, state: usize| {
        let response = wire::AuthorizeResponse {
            join_rooms: vec!["r".to_owned(); join_rooms],
            presence_state_json: format!("\"{}x\"", "é".repeat((state - 3) / 2)),
            ..answer(v1::Decision::Allow, 60)
        };
        super::read(Ok(response)).0
    };
    for (join_rooms, state, is_accepted) in [(32, 1023, true), (33, 1023, false), (32, 1025, false)] {
        let is_allowed = matches!(decided(join_rooms, state), super::Answer::Allow(..));
        assert_eq!(is_allowed, is_accepted, "{join_rooms} rooms, a state of {state} bytes");
    }
}

#[test]
fn a_denial_keeps_a_word_and_a_text_of_the_contracts_length() {
    let (reason, message) = ("a".repeat(64), "é".repeat(256));
    let whole = format!("{reason}: {message}");
    assert_eq!(super::denial(&reason, &message), whole);
    assert_eq!(super::denial(&format!("{reason}a"), &format!("{message}x")), whole);
    assert_eq!(super::denial("", &message), message);
    assert_eq!(super::denial(&reason, ""), reason);
}

#[test]
fn a_wrong_address_is_refused_in_words() {
    for url in [
        "",
        "localhost:1",
        "ftp://localhost:1",
        "http://",
        "http://localhost:1/path",
        "unix:/x",
    ] {
        let config = Config {
            authorizer: Some(AuthorizerConfig::at(url)),
            ..Config::default()
        };
        let error = RulePolicy::new(&config).unwrap_err().to_string();
        assert!(error.contains("is no address of the form"), "{error}");
    }
    let config = Config {
        authorizer: Some(AuthorizerConfig::at("http://ada:s3cret@localhost:1")),
        ..Config::default()
    };
    let error = RulePolicy::new(&config).unwrap_err().to_string();
    assert!(
        error.contains("must not hold a user and a password") && !error.contains("s3cret"),
        "{error}"
    );
}
