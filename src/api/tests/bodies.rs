//! Bodies and queries of the mirror: fields by name and by kind, and what is said of those that are neither.

use serde_json::{Value, json};

use super::http::call;
use super::support::{Api, ROOT, json as payload};
use crate::proto::v1;

/// Words of the parser that no message may contain.
const INTERNALS: [&str; 9] = [
    "struct ",
    "enum",
    "tuple",
    "sequence",
    "variant",
    "invalid type",
    "elements",
    "query string",
    "digit found",
];

/// The kind of value that a field takes.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    List,
    Object,
}

impl Kind {
    /// Values of other kinds.
    fn others(self) -> Vec<Value> {
        let mut others = vec![json!(7), json!(1.5), json!(true)];
        match self {
            Self::Text => others.extend([json!(["a"]), json!({"a": "b"})]),
            Self::Texts => others.extend([json!("a"), json!({"0": "a"}), json!([1]), json!(["a", null])]),
            Self::List => others.extend([json!("a"), json!({"0": {"room": "r"}})]),
            Self::Object => others.extend([json!("a"), json!([]), json!(["e", 0])]),
        }
        others
    }
}

/// A route, a body that it takes, and its fields.
struct Route {
    path: &'static str,
    body: Value,
    fields: &'static [(&'static str, Kind)],
    /// The fields without which it is refused.
    required: &'static [&'static str],
}

fn routes() -> [Route; 2] {
    [
        Route {
            path: "/v1/publish",
            body: json!({"tenant": "a", "targets": [{"room": "r"}], "eventName": "e", "payload": 1}),
            fields: &[
                ("tenant", Kind::Text),
                ("targets", Kind::List),
                ("eventName", Kind::Text),
                ("payloadBase64", Kind::Text),
                ("retention", Kind::Text),
                ("idempotencyKey", Kind::Text),
                ("expectedHead", Kind::Object),
                ("excludeConnectionIds", Kind::Texts),
                ("excludeUserIds", Kind::Texts),
                ("actorUserId", Kind::Text),
                ("requiredFeatures", Kind::Texts),
            ],
            required: &["tenant", "targets", "eventName"],
        },
        Route {
            path: "/v1/revoke",
            body: json!({"tenant": "a", "tokenId": "t", "everything": {}, "ttl": "60s"}),
            fields: &[
                ("tenant", Kind::Text),
                ("userId", Kind::Text),
                ("connectionId", Kind::Text),
                ("tokenId", Kind::Text),
                ("issuedBefore", Kind::Text),
                ("room", Kind::Text),
                ("roomPattern", Kind::Text),
                ("everything", Kind::Object),
                ("ttl", Kind::Text),
                ("reason", Kind::Text),
                ("message", Kind::Text),
                ("requiredFeatures", Kind::Texts),
            ],
            required: &["tenant", "tokenId", "everything", "ttl"],
        },
    ]
}

/// The status, the reason and the field of the answer to a body.
async fn post(api: &Api, path: &str, body: &str) -> (u16, String, Value) {
    let (status, _, answer) = call(api, "POST", path, ROOT, body).await;
    let message = answer["message"].as_str().unwrap_or_default();
    for internal in INTERNALS {
        assert!(!message.contains(internal), "{path} {body}: {message}");
    }
    let reason = answer["reason"].as_str().unwrap_or_default().to_owned();
    (status, reason, answer["field"].clone())
}

fn undecodable(field: &str) -> (u16, String, Value) {
    let field = if field.is_empty() { Value::Null } else { json!(field) };
    (400, "UNDECODABLE_MESSAGE".to_owned(), field)
}

#[tokio::test]
async fn a_field_of_another_kind_is_refused_by_its_name() {
    let api = Api::start().await;
    for route in routes() {
        for (field, kind) in route.fields {
            for value in kind.others() {
                let mut body = route.body.clone();
                body[field] = value;
                let body = body.to_string();
                assert_eq!(post(&api, route.path, &body).await, undecodable(field), "{body}");
            }
        }
    }
    for (body, field) in [
        (json!({"tenant": 7}), "tenant"),
        (json!({"tenant": "a", "revocationId": ["x"]}), "revocationId"),
    ] {
        assert_eq!(
            post(&api, "/v1/restore", &body.to_string()).await,
            undecodable(field),
            "{body}"
        );
    }
}

#[tokio::test]
async fn null_is_a_field_that_is_absent() {
    let api = Api::start().await;
    for route in routes() {
        let mut body = route.body.clone();
        for (field, _) in route.fields {
            if !route.required.contains(field) {
                body[field] = Value::Null;
            }
        }
        let body = body.to_string();
        assert_eq!(post(&api, route.path, &body).await.0, 200, "{body}");
        for field in route.required {
            let (mut without, mut null) = (route.body.clone(), route.body.clone());
            without.as_object_mut().unwrap().remove(*field);
            null[field] = Value::Null;
            let (without, null) = (without.to_string(), null.to_string());
            let refused = post(&api, route.path, &without).await;
            assert_eq!(refused.0, 400, "{without}");
            assert_eq!(post(&api, route.path, &null).await, refused, "{null}");
        }
    }
    let restore = json!({"tenant": "a", "revocationId": null}).to_string();
    let refused = post(&api, "/v1/restore", &restore).await;
    assert_eq!((refused.0, &refused.2), (400, &json!("revocation_id")));
}

#[tokio::test]
async fn only_an_object_of_known_fields_is_a_body() {
    let api = Api::start().await;
    let long = "é".repeat(100);
    for (path, positional) in [
        (
            "/v1/publish",
            r#"["a",[{"room":"r"}],"e",1,null,"ephemeral","",null,[],[],"",[]]"#,
        ),
        (
            "/v1/revoke",
            r#"["a","ada",null,null,null,null,null,{},"60s","","",[]]"#,
        ),
        ("/v1/restore", r#"["a","00000000000000000000000000000000"]"#),
    ] {
        for (body, field) in [
            (positional, ""),
            ("", ""),
            ("null", ""),
            ("\"a\"", ""),
            ("{", ""),
            ("{\"tenant\":\"a\"", ""),
            ("{}{}", ""),
            ("{\"tenant\":\"a\",\"tenant\":\"b\"}", ""),
            ("{\"tenant\":\"a\",\"\\u0074enant\":\"b\"}", ""),
            // What is not known is told before what is wrong.
            ("{\"colour\":1,\"tenant\":7}", "colour"),
            ("{\"event_name\":\"e\"}", "event_name"),
            ("{\"__proto__\":{}}", "__proto__"),
            (&format!("{{\"{long}\":1}}"), &long[..128]),
        ] {
            assert_eq!(post(&api, path, body).await, undecodable(field), "{path} {body}");
        }
    }
}

#[tokio::test]
async fn what_stands_in_a_field_is_read_by_name_too() {
    let api = Api::start().await;
    let target = |target: &str| format!(r#"{{"tenant":"a","targets":[{target}],"eventName":"e","payload":1}}"#);
    let invalid = |field: &str| (400, "INVALID_TARGET".to_owned(), json!(field));
    for (text, expected) in [
        (r#"["room","r"]"#, undecodable("targets[0]")),
        (r#""room""#, undecodable("targets[0]")),
        (r#"{"room":7}"#, undecodable("targets[0].room")),
        (r#"{"room":"r","userId":7}"#, undecodable("targets[0].userId")),
        (r#"{"segment":"s","room":"r"}"#, undecodable("targets[0].segment")),
        (r#"{"everyone":[]}"#, undecodable("targets[0].everyone")),
        (r#"{"everyone":{"but":"ada"}}"#, undecodable("targets[0].everyone.but")),
        (r#"{"room":"r","userId":"ada"}"#, invalid("targets[0]")),
        (r#"{"room":"r","everyone":{}}"#, invalid("targets[0]")),
        (r#"{"room":null}"#, invalid("targets[0]")),
        ("{}", invalid("targets[0]")),
        (r#"{"room":"s"},{"room":"r","room":"s"}"#, undecodable("targets[1]")),
    ] {
        assert_eq!(post(&api, "/v1/publish", &target(text)).await, expected, "{text}");
    }
    for text in [r#"{"room":"r","userId":null}"#, r#"{"everyone":{}, "room":null}"#] {
        assert_eq!(post(&api, "/v1/publish", &target(text)).await.0, 200, "{text}");
    }
    let revoke = r#"{"tenant":"a","userId":"ada","everything":{"but":"r"},"ttl":"60s"}"#;
    assert_eq!(post(&api, "/v1/revoke", revoke).await, undecodable("everything.but"));
}

#[tokio::test]
async fn a_number_is_the_integer_it_equals_over_http() {
    let api = Api::start().await;
    let at = |head: &str| {
        format!(r#"{{"tenant":"a","targets":[{{"room":"r"}}],"eventName":"e","payload":1,"expectedHead":{head}}}"#)
    };
    for (count, offset) in ["0", "1.0", "2e0", "0.3e1", "40e-1"].into_iter().enumerate() {
        let body = at(&format!("{{\"epoch\":null,\"offset\":{offset}}}"));
        assert_eq!(post(&api, "/v1/publish", &body).await.0, 200, "{count}: {body}");
    }
    for offset in ["5.5", "-1", "\"5\"", "1e20", "true", "[5]"] {
        let body = at(&format!("{{\"offset\":{offset}}}"));
        let expected = undecodable("expectedHead.offset");
        assert_eq!(post(&api, "/v1/publish", &body).await, expected, "{body}");
    }
    for (head, field) in [
        (r#"{"offset":5,"room":"r"}"#, "expectedHead.room"),
        (r#"{"offset":5,"epoch":7}"#, "expectedHead.epoch"),
    ] {
        assert_eq!(post(&api, "/v1/publish", &at(head)).await, undecodable(field), "{head}");
    }
    for head in ["{}", "{\"offset\":null}"] {
        let (status, reason, field) = post(&api, "/v1/publish", &at(head)).await;
        assert_eq!(
            (status, reason.as_str(), field),
            (400, "INVALID_FIELD", json!("expectedHead.offset"))
        );
    }
}

#[tokio::test]
async fn null_is_a_payload() {
    let api = Api::start().await;
    let publish = |rest: &str| format!(r#"{{"tenant":"a","targets":[{{"room":"r"}}],"eventName":"e"{rest}}}"#);
    for taken in [
        r#","payload":null"#,
        r#","payload": null ,"payloadBase64":null"#,
        r#","payload":1,"payloadBase64":null"#,
    ] {
        assert_eq!(post(&api, "/v1/publish", &publish(taken)).await.0, 200, "{taken}");
    }
    for refused in [
        "",
        r#","payloadBase64":null"#,
        r#","payload":null,"payloadBase64":"AA==""#,
        r#","payload":1,"payloadBase64":"AA==""#,
        r#","payload":1,"payloadBase64":"""#,
    ] {
        let (status, reason, field) = post(&api, "/v1/publish", &publish(refused)).await;
        let expected = (400, "INVALID_PAYLOAD", json!("payload"));
        assert_eq!((status, reason.as_str(), field), expected, "{refused}");
    }
    let request = v1::ListHistoryRequest {
        tenant: "a".to_owned(),
        room: "r".to_owned(),
        ..Default::default()
    };
    let history = api.steward().await.list_history(request).await.unwrap().into_inner();
    let kept: Vec<_> = history.events.into_iter().map(|event| event.payload).collect();
    assert_eq!(kept, [payload("null"), payload("null"), payload("1")]);
}

#[tokio::test]
async fn a_query_is_read_in_either_spelling_and_refused_in_words() {
    let api = Api::start().await;
    let (members, stats, revocations) = ("/v1/rooms/r/members", "/v1/rooms/r/stats", "/v1/revocations");
    for (path, query) in [
        (members, "tenant=a&pageSize=5&pageToken=&countsOnly=true"),
        (members, "tenant=a&page_size=5&page_token=&counts_only=false&"),
        (members, "&tenant=%61"),
        (stats, "tenant=a"),
        (revocations, "tenant=a&userId=a+b&pageSize=5"),
        (revocations, "tenant=a&user_id=a%20b&page_size=5"),
    ] {
        let (status, _, answer) = call(&api, "GET", &format!("{path}?{query}"), ROOT, "").await;
        assert_eq!(status, 200, "{path}?{query}: {answer}");
    }
    for (path, query, field) in [
        (members, "tenant=a&pageSize=x", "pageSize"),
        (members, "tenant=a&page_size=1.5", "pageSize"),
        (members, "tenant=a&pageSize=", "pageSize"),
        (members, "tenant=a&pageSize=99999999999", "pageSize"),
        (members, "tenant=a&pageSize=1&pageSize=1", "pageSize"),
        (members, "tenant=a&pageSize=1&page_size=1", "pageSize"),
        (members, "tenant=a&countsOnly=yes", "countsOnly"),
        (members, "tenant=a&pageSize=x&limit=5", "limit"),
        (members, "tenant=%ff", "tenant"),
        (stats, "tenant=a&tenant=b", "tenant"),
        (stats, "tenant=a&%74enant=b", "tenant"),
        (stats, "tenant=a&Tenant=b", "Tenant"),
        (stats, "tenant=a&%ff=b", ""),
        (revocations, "tenant=a&user=ada", "user"),
        (revocations, "tenant=a&userId=ada&user_id=ben", "userId"),
    ] {
        let (status, _, answer) = call(&api, "GET", &format!("{path}?{query}"), ROOT, "").await;
        let (reason, told) = (answer["reason"].as_str().unwrap(), answer["field"].clone());
        assert_eq!((status, reason.to_owned(), told), undecodable(field), "{path}?{query}");
        let message = answer["message"].as_str().unwrap();
        assert!(!INTERNALS.iter().any(|word| message.contains(word)), "{message}");
    }
    let (status, _, answer) = call(&api, "GET", "/v1/rooms/%ff/stats?tenant=a", ROOT, "").await;
    assert_eq!((status, &answer["message"]), (400, &json!("room: is not UTF-8")));
}
