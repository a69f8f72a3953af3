//! Subscriptions that cannot begin.

use tonic::Code;

use super::{after, begin, subscriber, to, with};
use crate::api::tests::support::{Api, ROOT, Setup, refusal, token};
use crate::api::{Credentials, Scope, Subscriptions};
use crate::proto::v1;

/// An API with a service of tenant `a` alone, one without the scope, and one with everything.
async fn scoped() -> Api {
    let tokens = [
        token("of-a", &[Scope::Subscribe], Some(&["a"])),
        token("reader", &[Scope::Read, Scope::Watch], None),
        token(ROOT, &Scope::ALL, None),
    ];
    Api::with(Setup {
        credentials: Credentials::none().with_tokens(tokens),
        ..with(Subscriptions {
            rooms_max: 3,
            ..Subscriptions::default()
        })
    })
    .await
}

async fn refused(api: &Api, token: &'static str, request: v1::SubscribeRequest) -> (Code, String, String) {
    refusal(&subscriber(api, token).await.subscribe(request).await.unwrap_err())
}

fn in_tenant(tenant: &str, request: v1::SubscribeRequest) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        tenant: tenant.to_owned(),
        ..request
    }
}

fn matching(pattern: &str, request: v1::SubscribeRequest) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        pattern: pattern.to_owned(),
        ..request
    }
}

#[tokio::test]
async fn a_subscription_that_cannot_begin_says_why() {
    let api = scoped().await;
    let (denied, invalid) = (Code::PermissionDenied, Code::InvalidArgument);
    let long = "x".repeat(256);
    for (token, request, code, reason, field) in [
        ("reader", to(&["r"]), denied, "SCOPE_MISSING", ""),
        ("of-a", in_tenant("b", to(&["r"])), denied, "TENANT_FORBIDDEN", ""),
        ("of-a", in_tenant("", to(&["r"])), invalid, "INVALID_TENANT", "tenant"),
        ("of-a", to(&[]), invalid, "INVALID_ROOM", "rooms"),
        ("of-a", to(&["r", ""]), invalid, "INVALID_ROOM", "rooms[1]"),
        ("of-a", to(&["a\nb"]), invalid, "INVALID_ROOM", "rooms[0]"),
        ("of-a", to(&["r", "s", "r"]), invalid, "INVALID_ROOM", "rooms[2]"),
        ("of-a", to(&["r", "s", "t", "u"]), invalid, "INVALID_FIELD", "rooms"),
        (
            "of-a",
            matching("{room*}", to(&["r"])),
            invalid,
            "INVALID_FIELD",
            "pattern",
        ),
        ("of-a", matching("{a}{b}", to(&[])), invalid, "INVALID_ROOM", "pattern"),
        ("of-a", matching(&long, to(&[])), invalid, "INVALID_ROOM", "pattern"),
        (
            "of-a",
            after("anything", to(&["r"])),
            invalid,
            "INVALID_CURSOR",
            "cursor",
        ),
    ] {
        let shown = format!("{request:?}");
        let expected = (code, reason.to_owned(), field.to_owned());
        assert_eq!(refused(&api, token, request).await, expected, "{shown}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_tenant_or_of_other_rooms_is_refused() {
    let api = scoped().await;
    let (_, cursor) = begin(&mut subscriber(&api, "of-a").await, to(&["r", "s"])).await;
    let expected = (Code::InvalidArgument, "INVALID_CURSOR".to_owned(), "cursor".to_owned());
    for request in [to(&["r"]), to(&["r", "t"]), in_tenant("b", to(&["r", "s"]))] {
        assert_eq!(refused(&api, ROOT, after(&cursor, request)).await, expected);
    }
    // The order in which rooms are named does not matter.
    begin(&mut subscriber(&api, "of-a").await, after(&cursor, to(&["s", "r"]))).await;
}
