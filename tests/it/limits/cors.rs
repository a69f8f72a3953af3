//! What a browser lets pages of other origins do, by what the gateway tells it.

use roomcast::gateway::Config;
use roomcast::transport::http::Origins;

use crate::protocols::events::{BODY_BYTES_MAX, with_events};
use crate::support::raw::Raw;
use crate::support::{Encoding, Node};

const APP: &str = "https://app.example";

async fn node_of_the_app() -> Node {
    let listed = |config: &mut Config| {
        with_events(config);
        config.client.origins = Origins::Listed(vec![APP.to_owned()]);
    };
    Node::with(Encoding::Json, listed).await
}

async fn asked(raw: &mut Raw, line: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let headers: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    raw.send(format!("{line} HTTP/1.1\r\nhost: x\r\n{}\r\n", headers.concat()).as_bytes())
        .await;
    raw.head().await
}

#[tokio::test]
async fn a_preflight_tells_what_the_route_takes() {
    let node = node_of_the_app().await;
    let mut raw = node.raw().await;
    let preflight = [
        ("origin", APP),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization, x-other"),
    ];
    let (status, head) = asked(&mut raw, "OPTIONS /v1/said", &preflight).await;
    assert_eq!(status, 204, "{head}");
    for line in [
        "access-control-allow-origin: https://app.example\r\n",
        "access-control-allow-credentials: true\r\n",
        "access-control-allow-methods: post\r\n",
        "access-control-allow-headers: authorization, x-asked\r\n",
        "access-control-max-age: 600\r\n",
        "vary: origin\r\n",
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    // Who asks without a page is told the methods alone, on the same connection.
    let (status, head) = asked(&mut raw, "OPTIONS /v1/feed", &[]).await;
    assert!(
        status == 204 && head.contains("allow: get, head, options\r\n"),
        "{head}"
    );
    assert!(!head.contains("access-control-"), "{head}");
    let (status, head) = asked(&mut raw, "OPTIONS /v1/ws", &preflight).await;
    assert!(status == 405 && head.contains("allow: get\r\n"), "{head}");
    assert!(!head.contains("access-control-"), "{head}");
    node.finish().await;
}

#[tokio::test]
async fn a_foreign_page_is_refused_and_told_nothing() {
    let node = node_of_the_app().await;
    for origin in [
        "https://evil.example",
        "null",
        "https://app.example:8443",
        "https://APP.example",
    ] {
        for (line, more) in [
            ("OPTIONS /v1/said", ("access-control-request-method", "POST")),
            ("POST /v1/said", ("content-length", "0")),
            // Before anything else is looked at.
            ("POST /v1/said", ("content-length", "5000")),
        ] {
            let mut raw = node.raw().await;
            let (status, head) = asked(&mut raw, line, &[("origin", origin), more]).await;
            assert_eq!(status, 403, "{origin}: {head}");
            assert!(head.contains("vary: origin\r\n"), "{head}");
            assert!(!head.contains("access-control-"), "{head}");
        }
    }
    let two = [("origin", APP), ("origin", APP), ("content-length", "0")];
    assert_eq!(asked(&mut node.raw().await, "POST /v1/said", &two).await.0, 403);
    node.finish().await;
}

#[tokio::test]
async fn a_listed_page_reads_answers_and_refusals() {
    let node = node_of_the_app().await;
    let large = (BODY_BYTES_MAX + 1).to_string();
    for (length, expected) in [("0", 200), (&*large, 413)] {
        let mut raw = node.raw().await;
        let headers = [("origin", APP), ("content-length", length)];
        let (status, head) = asked(&mut raw, "POST /v1/said", &headers).await;
        assert_eq!(status, expected, "{head}");
        for line in [
            "access-control-allow-origin: https://app.example\r\n",
            "access-control-allow-credentials: true\r\n",
            "vary: origin\r\n",
        ] {
            assert!(head.contains(line), "{line} is not in {head}");
        }
    }
    // A program is no page, and a cache is told all the same that pages are.
    let (status, head) = asked(&mut node.raw().await, "POST /v1/said", &[("content-length", "0")]).await;
    assert_eq!(status, 200, "{head}");
    assert!(
        head.contains("vary: origin\r\n") && !head.contains("access-control-"),
        "{head}"
    );
    node.finish().await;
}
