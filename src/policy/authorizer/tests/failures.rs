//! Authorizers that do not decide: every failure is a denial.

use super::*;

#[tokio::test]
async fn whatever_goes_wrong_is_a_denial_that_is_kept_nowhere() {
    let decide = |request: &wire::AuthorizeRequest| {
        let allow = || answer(v1::Decision::Allow, 60);
        match request.room.as_str() {
            "doc:unspecified" => Ok(answer(v1::Decision::Unspecified, 60)),
            "doc:unknown" => Ok(wire::AuthorizeResponse {
                decision: 77,
                ..allow()
            }),
            "doc:error" => Err(Status::internal("secret detail")),
            "doc:denied" => Err(Status::permission_denied("no")),
            "doc:huge" => Ok(wire::AuthorizeResponse {
                reason: "x".repeat(70_000),
                ..allow()
            }),
            "doc:rooms" => Ok(wire::AuthorizeResponse {
                join_rooms: vec![String::new(); 33],
                ..allow()
            }),
            other => Err(Status::unknown(other)),
        }
    };
    let setting = Setting::start(decide, |_| {}).await;
    for case in ["unspecified", "unknown", "error", "denied", "huge", "rooms"] {
        for _ in 0..2 {
            let asked = setting.asked();
            let (undecided, reason) = setting.decide(join("ada", &format!("doc:{case}"))).await.unwrap_err();
            assert!(undecided, "{case}: {reason}");
            assert!(!reason.contains("secret"));
            assert_eq!(setting.asked(), asked + 1, "{case}");
        }
    }
}

#[tokio::test]
async fn a_slow_authorizer_is_a_denial_after_the_deadline() {
    let setting = Setting::start(
        |_| Ok(answer(v1::Decision::Allow, 60)),
        |config| config.timeout = Duration::from_millis(200),
    )
    .await;
    setting.application.gate.forget_permits(Semaphore::MAX_PERMITS);
    let denied = setting.decide(join("ada", "doc:1")).await;
    assert_eq!(denied, Err((true, "the authorizer did not answer in time".to_owned())));
    let admitted = setting
        .policy
        .admit(&identity("ada", &json!({})), ConnectionId::random())
        .await;
    assert!(admitted.unwrap_err().undecided);
}

#[tokio::test]
async fn an_authorizer_that_is_down_is_a_denial() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let policy = policy(AuthorizerConfig::at(format!("http://{address}")));
    let denied = policy.authorize(join("ada", "doc:1")).await.unwrap_err();
    assert!(denied.undecided, "{denied}");
}

#[tokio::test]
async fn too_many_waiting_questions_are_denied_at_once() {
    let setting = Setting::start(
        |_| Ok(answer(v1::Decision::Allow, 60)),
        |config| config.in_flight_max = 1,
    )
    .await;
    setting.application.gate.forget_permits(Semaphore::MAX_PERMITS);
    let first = setting.decide(join("ada", "doc:1"));
    let second = async {
        setting.application.arrived.notified().await;
        let denied = setting.decide(join("ada", "doc:2")).await;
        setting.application.gate.add_permits(1);
        denied
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first, Ok(()));
    assert!(second.unwrap_err().1.contains("too many questions"));
}
