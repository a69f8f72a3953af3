//! The mirror as HTTP with JSON, spoken by hand over one TCP connection per call.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{Api, ROOT};
use crate::api::tests::support;

/// Status, head and JSON body of the answer to one request.
pub(super) async fn exchange(api: &Api, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

pub(super) async fn call(api: &Api, method: &str, path: &str, token: &str, body: &str) -> (u16, String, Value) {
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}");
    let request = format!("{head}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    let (status, head, body) = exchange(api, &request).await;
    (
        status,
        head,
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("no JSON: {body}")),
    )
}

#[tokio::test]
async fn curl_can_publish_and_see_members_and_stats() {
    let api = Api::start().await;
    api.enter("a/b c", "ada");
    let body = json!({
        "tenant": "a",
        "targets": [{"room": "a/b c"}, {"userId": "ada"}, {"everyone": {}}],
        "eventName": "greeting",
        "payload": {"text": "hello", "n": 12_345_678_901_234_567_890_u64},
        "retention": "last_value",
        "idempotencyKey": "k",
    });
    let (status, _, first) = call(&api, "POST", "/v1/publish", ROOT, &body.to_string()).await;
    assert_eq!(
        (status, &first["results"][0]["reached"], &first["results"][1]["room"]),
        (200, &json!(1), &json!("user:ada"))
    );
    let (_, _, again) = call(&api, "POST", "/v1/publish", ROOT, &body.to_string()).await;
    assert_eq!(again["results"][0]["duplicate"], true);
    assert_eq!(again["results"][0]["position"], first["results"][0]["position"]);

    let (status, _, members) = call(&api, "GET", "/v1/rooms/a%2Fb%20c/members?tenant=a&pageSize=5", ROOT, "").await;
    assert_eq!(
        (status, &members["memberCount"], &members["members"][0]["userId"]),
        (200, &json!(1), &json!("ada"))
    );
    let (status, _, stats) = call(&api, "GET", "/v1/rooms/a%2Fb%20c/stats?tenant=a", ROOT, "").await;
    assert_eq!(
        (status, &stats["head"], &stats["historyCount"]),
        (200, &first["results"][0]["position"], &json!(1))
    );

    let page = api.steward().await;
    let request = crate::proto::v1::ListHistoryRequest {
        tenant: "a".to_owned(),
        room: "a/b c".to_owned(),
        ..Default::default()
    };
    let history = { page }.list_history(request).await.unwrap().into_inner();
    let kept = history.events[0].payload.clone();
    assert_eq!(
        kept,
        support::json("{\"n\":12345678901234567890,\"text\":\"hello\"}"),
        "the digits are kept"
    );
}

#[tokio::test]
async fn the_mirror_relays_numbers_of_any_size_digit_by_digit() {
    let api = Api::start().await;
    let payload = format!("{{\"n\": 1e400, \"m\": [{}, -0.0]}}", "9".repeat(401));
    let body =
        format!("{{\"tenant\":\"a\",\"targets\":[{{\"room\":\"r\"}}],\"eventName\":\"e\",\"payload\":{payload}}}");
    let (status, _, answer) = call(&api, "POST", "/v1/publish", ROOT, &body).await;
    assert_eq!(status, 200, "{answer}");
    let request = crate::proto::v1::ListHistoryRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
        ..Default::default()
    };
    let history = api.steward().await.list_history(request).await.unwrap().into_inner();
    assert_eq!(history.events[0].payload.clone(), support::json(&payload));
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn the_mirror_refuses_as_grpc_does() {
    let api = Api::start().await;
    let event = |changes: Value| {
        let mut event = json!({"tenant": "a", "targets": [{"room": "r"}], "eventName": "e", "payload": 1});
        event
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        event.to_string()
    };
    let large = event(json!({"payload": "x".repeat(64 << 10)}));
    let huge = event(json!({"payload": "x".repeat(1 << 20)}));
    let cases = [
        (
            "POST",
            "/v1/publish",
            "guessed",
            event(json!({})),
            401,
            "UNAUTHENTICATED",
            Value::Null,
        ),
        (
            "POST",
            "/v1/publish",
            ROOT,
            "{".to_owned(),
            400,
            "UNDECODABLE_MESSAGE",
            Value::Null,
        ),
        (
            "POST",
            "/v1/publish",
            ROOT,
            event(json!({"colour": 1})),
            400,
            "UNDECODABLE_MESSAGE",
            json!("colour"),
        ),
        (
            "POST",
            "/v1/publish",
            ROOT,
            event(json!({"tenant": ""})),
            400,
            "INVALID_TENANT",
            json!("tenant"),
        ),
        (
            "POST",
            "/v1/publish",
            ROOT,
            event(json!({"targets": []})),
            400,
            "INVALID_TARGET",
            json!("targets"),
        ),
        (
            "POST",
            "/v1/publish",
            ROOT,
            event(json!({"payloadBase64": "AA=="})),
            400,
            "INVALID_PAYLOAD",
            json!("payload"),
        ),
        (
            "POST",
            "/v1/publish",
            ROOT,
            large,
            400,
            "PAYLOAD_TOO_LARGE",
            json!("payload"),
        ),
        ("POST", "/v1/publish", ROOT, huge, 429, "MESSAGE_TOO_LARGE", Value::Null),
        (
            "GET",
            "/v1/rooms/r/members",
            ROOT,
            String::new(),
            400,
            "INVALID_TENANT",
            json!("tenant"),
        ),
        (
            "GET",
            "/v1/rooms/r/members?tenant=a&pageToken=x",
            ROOT,
            String::new(),
            400,
            "INVALID_PAGE_TOKEN",
            json!("page_token"),
        ),
        (
            "GET",
            "/v1/rooms/r/stats?tenant=a&x=1",
            ROOT,
            String::new(),
            400,
            "UNDECODABLE_MESSAGE",
            json!("x"),
        ),
        (
            "GET",
            "/v1/elsewhere",
            ROOT,
            String::new(),
            404,
            "UNIMPLEMENTED_FEATURE",
            Value::Null,
        ),
        (
            "GET",
            "/v1/publish",
            ROOT,
            String::new(),
            405,
            "UNIMPLEMENTED_FEATURE",
            Value::Null,
        ),
        (
            "GET",
            "/v1/elsewhere",
            "guessed",
            String::new(),
            401,
            "UNAUTHENTICATED",
            Value::Null,
        ),
    ];
    for (method, path, token, body, status, reason, field) in cases {
        let (found, _, answer) = call(&api, method, path, token, &body).await;
        assert_eq!(
            (found, &answer["reason"], &answer["field"]),
            (status, &json!(reason), &field),
            "{answer}"
        );
        assert!(answer["message"].is_string() && answer["code"].is_string());
    }
    // A conflict tells the position, as the detail of gRPC does.
    let (_, _, first) = call(&api, "POST", "/v1/publish", ROOT, &event(json!({}))).await;
    let stale = event(json!({"expectedHead": {"offset": 0}}));
    let (status, _, conflict) = call(&api, "POST", "/v1/publish", ROOT, &stale).await;
    assert_eq!((status, &conflict["head"]), (409, &first["results"][0]["position"]));
}

#[tokio::test]
async fn the_mirror_takes_base64_with_and_without_padding() {
    let api = Api::start().await;
    let publish = |payload: Value| {
        json!({"tenant": "a", "targets": [{"room": "r"}], "eventName": "e", "payloadBase64": payload}).to_string()
    };
    for text in ["AAEC/w==", "AAEC/w", "AAEC/w="] {
        let (status, _, answer) = call(&api, "POST", "/v1/publish", ROOT, &publish(json!(text))).await;
        assert_eq!(status, 200, "{text}: {answer}");
    }
    let request = crate::proto::v1::ListHistoryRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
        ..Default::default()
    };
    let history = api.steward().await.list_history(request).await.unwrap().into_inner();
    let bytes = crate::proto::v1::payload::Content::Binary(vec![0, 1, 2, 255].into());
    assert!(history.events.len() == 3, "{history:?}");
    for event in history.events {
        assert_eq!(event.payload.unwrap().content, Some(bytes.clone()));
    }
    for text in ["AAEC/", "AAEC_w"] {
        let (status, _, answer) = call(&api, "POST", "/v1/publish", ROOT, &publish(json!(text))).await;
        assert_eq!(
            (status, &answer["reason"], &answer["field"]),
            (400, &json!("INVALID_PAYLOAD"), &json!("payloadBase64")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn the_mirror_spells_retention_as_the_native_protocol_does() {
    let api = Api::start().await;
    for (word, expected) in [
        ("ephemeral", 200),
        ("reliable", 200),
        ("last_value", 200),
        ("RETENTION_LAST_VALUE", 200),
        ("last-value", 400),
    ] {
        let body =
            json!({"tenant": "a", "targets": [{"room": "r"}], "eventName": "e", "payload": 1, "retention": word});
        let (status, _, answer) = call(&api, "POST", "/v1/publish", ROOT, &body.to_string()).await;
        assert_eq!(status, expected, "{word}: {answer}");
    }
}

#[tokio::test]
async fn curl_can_revoke_list_and_restore() {
    let api = Api::start().await;
    let body = json!({
        "tenant": "a",
        "tokenId": "t1",
        "issuedBefore": "2026-01-01T00:00:00Z",
        "roomPattern": "project:*",
        "ttl": "60s",
        "reason": "token_stolen",
        "message": "Log in again.",
    });
    let (status, _, revoked) = call(&api, "POST", "/v1/revoke", ROOT, &body.to_string()).await;
    let id = revoked["revocationId"].as_str().unwrap().to_owned();
    assert_eq!((status, &revoked["unconfirmedNodeIds"]), (200, &json!([])));
    let (status, _, page) = call(&api, "GET", "/v1/revocations?tenant=a&pageSize=5", ROOT, "").await;
    let listed = &page["revocations"][0];
    assert_eq!((status, &listed["revocationId"]), (200, &json!(id)));
    for key in ["tokenId", "issuedBefore", "roomPattern", "reason", "message"] {
        assert_eq!(listed[key], body[key], "{key}");
    }
    let (_, _, other) = call(&api, "GET", "/v1/revocations?tenant=a&userId=ada", ROOT, "").await;
    assert_eq!(other["revocations"], json!([]));
    let restore = json!({"tenant": "a", "revocationId": id}).to_string();
    let (status, _, restored) = call(&api, "POST", "/v1/restore", ROOT, &restore).await;
    assert_eq!((status, &restored["unconfirmedNodeIds"]), (200, &json!([])));
    let (_, _, page) = call(&api, "GET", "/v1/revocations?tenant=a", ROOT, "").await;
    assert_eq!(page["revocations"], json!([]));
    let unknown = json!({"tenant": "a", "revocationId": "0".repeat(32)}).to_string();
    let (status, _, refused) = call(&api, "POST", "/v1/restore", ROOT, &unknown).await;
    assert_eq!((status, &refused["reason"]), (404, &json!("REVOCATION_NOT_FOUND")));
    for (key, wrong, field) in [
        ("userId", json!("ada"), "subject"),
        ("everything", json!({}), "scope"),
        ("ttl", json!("soon"), "ttl"),
        ("issuedBefore", json!("yesterday"), "issuedBefore"),
    ] {
        let mut body = body.clone();
        body[key] = wrong;
        let (status, _, refused) = call(&api, "POST", "/v1/revoke", ROOT, &body.to_string()).await;
        assert_eq!((status, &refused["field"]), (400, &json!(field)), "{refused}");
    }
}
