//! The client bundle beside the path of Socket.IO.

use roomcast::transport::http::Origins;
use roomcast::transport::socketio::{self, BundleFile};

use super::speakers::{answer, node_with, with_socketio};
use crate::support::{Encoding, Node};

const SCRIPT: &str = "io = () => {};";

fn with_bundle(settings: &mut socketio::Config) {
    let file = |name| BundleFile::new(name, SCRIPT).unwrap();
    settings.client_bundle = vec![
        file("socket.io.js"),
        file("socket.io.min.js"),
        file("socket.io.min.js.map"),
    ];
}

/// Status, body and head of an answer; the body of a `HEAD` is not read.
async fn ask(node: &Node, method: &str, path: &str, headers: &str) -> (u16, String, String) {
    let mut raw = node.raw().await;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    raw.send(request.as_bytes()).await;
    if method == "HEAD" {
        let (status, head) = raw.head().await;
        return (status, String::new(), head);
    }
    answer(&mut raw).await
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    lines.find(|(known, _)| *known == name).map(|(_, value)| value)
}

#[tokio::test]
async fn files_of_the_client_are_served_with_their_tags() {
    let node = node_with(with_bundle).await;
    let (status, body, head) = ask(&node, "GET", "/socket.io/socket.io.js", "").await;
    assert_eq!((status, body.as_str()), (200, SCRIPT));
    assert_eq!(header(&head, "content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(header(&head, "cache-control"), Some("public, max-age=0"));
    assert_eq!(header(&head, "connection"), None, "{head}");
    let tag = header(&head, "etag").unwrap().to_owned();
    let (status, _, short) = ask(&node, "HEAD", "/socket.io/socket.io.js", "").await;
    let length = SCRIPT.len().to_string();
    assert_eq!((status, header(&short, "content-length")), (200, Some(length.as_str())));
    assert_eq!(header(&short, "etag"), Some(tag.as_str()));
    for known in [tag.clone(), "*".to_owned(), format!("W/{tag}"), format!("\"a\", {tag}")] {
        let (status, body, head) = ask(
            &node,
            "GET",
            "/socket.io/socket.io.js?v=4.8.1",
            &format!("if-none-match: {known}\r\n"),
        )
        .await;
        assert_eq!((status, body.as_str()), (304, ""), "{known}");
        assert_eq!(header(&head, "etag"), Some(tag.as_str()), "{known}");
        assert_eq!(header(&head, "connection"), None, "{head}");
    }
    let (status, body, _) = ask(&node, "GET", "/socket.io/socket.io.js", "if-none-match: \"a\"\r\n").await;
    assert_eq!((status, body.as_str()), (200, SCRIPT));
    let (_, _, head) = ask(&node, "GET", "/socket.io/socket.io.min.js.map", "").await;
    assert_eq!(header(&head, "content-type"), Some("application/json; charset=utf-8"));
    node.finish().await;
}

#[tokio::test]
async fn nothing_else_is_served_and_nothing_without_the_setting() {
    let node = node_with(with_bundle).await;
    for path in [
        "/socket.io/socket.io.esm.min.js",
        "/socket.io/",
        "/socket.io/socket.io.js/",
        "/socket.io/../Cargo.toml",
        "/socket.io.js",
    ] {
        let (status, ..) = ask(&node, "GET", path, "").await;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    let (status, _, head) = ask(&node, "POST", "/socket.io/socket.io.js", "").await;
    assert_eq!((status, header(&head, "allow")), (405, Some("get, head, options")));
    node.finish().await;
    let node = node_with(|_| {}).await;
    assert_eq!(ask(&node, "GET", "/socket.io/socket.io.js", "").await.0, 404);
    node.finish().await;
    let node = node_with(|settings| {
        with_bundle(settings);
        "/realtime".clone_into(&mut settings.path);
    })
    .await;
    assert_eq!(ask(&node, "GET", "/realtime/socket.io.js", "").await.0, 200);
    node.finish().await;
}

#[tokio::test]
async fn modules_are_for_listed_pages_and_scripts_for_all() {
    let node = Node::with(Encoding::Json, |config: &mut roomcast::gateway::Config| {
        with_socketio(config, with_bundle);
        config.client.origins = Origins::Listed(vec!["https://app.example".to_owned()]);
    })
    .await;
    let path = "/socket.io/socket.io.min.js";
    let (status, _, head) = ask(&node, "GET", path, "origin: https://app.example\r\n").await;
    let allowed = header(&head, "access-control-allow-origin");
    assert_eq!((status, allowed), (200, Some("https://app.example")));
    // A module or a fetch of another page says where it is from; a plain script does not.
    assert_eq!(ask(&node, "GET", path, "origin: https://evil.example\r\n").await.0, 403);
    let (status, _, head) = ask(&node, "GET", path, "").await;
    let policy = header(&head, "cross-origin-resource-policy");
    assert_eq!((status, policy), (200, Some("cross-origin")));
    node.finish().await;
}
