//! Requests to the backend: rules for methods, in a room or without one.

use super::*;

#[tokio::test]
async fn a_request_needs_a_rule_for_its_room_and_method() {
    let tasks = RuleConfig {
        methods: vec!["task:*".to_owned()],
        ..rule(
            "tasks",
            "project:{id}",
            &[ActionName::Request],
            Some("room.id == claims.id"),
        )
    };
    let everywhere = rule(
        "rest",
        "{rest*}",
        &[ActionName::Request],
        Some("request.method == 'ping'"),
    );
    let roomless = RuleConfig {
        room: None,
        ..rule("roomless", "", &[ActionName::Request], Some("request.method != 'ping'"))
    };
    let policy = policy(vec![tasks, everywhere, roomless]);
    let ada = identity("a", &json!({"id": "7"}));
    for (room, method, by) in [
        ("project:7", "task:close", Some("tasks")),
        ("project:8", "task:close", None),
        ("project:7", "tidy", None),
        ("project:8", "ping", Some("rest")),
        ("", "ping", None),
        ("", "task:close", Some("roomless")),
    ] {
        let request = Action::Request(EventName::parse(method).unwrap());
        let question = match room {
            "" => Question {
                room: Room::nameless(&ada.tenant),
                ..ask(&ada, "x", request)
            },
            room => ask(&ada, room, request),
        };
        let permit = policy.authorize(question).await.ok();
        assert_eq!(permit.as_ref().map(Permit::rule), by, "{method} in `{room}`");
    }
    // Being allowed everything else is not being allowed to ask.
    let every = [
        ActionName::Join,
        ActionName::Publish,
        ActionName::Presence,
        ActionName::History,
    ];
    let policy = self::policy(vec![rule("every", "{any*}", &every, None)]);
    let request = || Action::Request(EventName::parse("ping").unwrap());
    assert!(policy.authorize(ask(&ada, "project:7", request())).await.is_err());
}

#[tokio::test]
async fn revoked_access_covers_requests_also_those_without_a_room() {
    let roomless = RuleConfig {
        room: None,
        ..rule("roomless", "", &[ActionName::Request], None)
    };
    let policy = policy(vec![rule("rooms", "{any*}", &[ActionName::Request], None), roomless]);
    let ada = identity("a", &json!({}));
    let request = || Action::Request(EventName::parse("ping").unwrap());
    let without_room = || Question {
        room: Room::nameless(&ada.tenant),
        ..ask(&ada, "x", request())
    };
    let revoke = |scope| policy.revoke(&revoked("a", scope), Duration::from_secs(60));
    revoke(RevocationScope::Room(room("a", "r")));
    assert!(policy.authorize(ask(&ada, "r", request())).await.is_err());
    assert!(policy.authorize(without_room()).await.is_ok());
    revoke(RevocationScope::Everything);
    assert!(policy.authorize(without_room()).await.is_err());
}
