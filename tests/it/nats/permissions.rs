//! What a node says when NATS does not let it be one.

use std::sync::Arc;

use roomcast::nats::{Config, Credentials, Nats, NatsError};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::support::nats::{NatsOptions, NatsServer, Release};
use crate::tools::root;

/// The server's configuration that `docs/nats.md` recommends.
pub(super) fn documented() -> String {
    let page = std::fs::read_to_string(root().join("docs/nats.md")).unwrap();
    let block = page
        .split("```\naccounts {")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    format!("accounts {{{}", block.expect("the page has the block"))
}

async fn server(config: String) -> NatsServer {
    let options = NatsOptions {
        config,
        ..NatsOptions::default()
    };
    NatsServer::start_with(options).await
}

fn config(url: String) -> Config {
    Config {
        servers: vec![url],
        credentials: Credentials::Password {
            user: "gateway".to_owned(),
            password: "change me".to_owned(),
        },
        ..Config::default()
    }
}

async fn connect(server: &NatsServer) -> Result<Arc<Nats>, NatsError> {
    Nats::connect(&config(server.url())).await
}

#[tokio::test]
async fn the_documented_permissions_are_enough() {
    let server = server(documented()).await;
    connect(&server).await.unwrap();
}

#[tokio::test]
async fn each_missing_permission_is_named() {
    let documented = documented();
    for (without, named) in [
        ("\"roomcast.h.>\", ", "publish to roomcast.h.0.PROBE"),
        ("\"roomcast.l.*.e\", ", "publish to roomcast.l.PROBE.e"),
        ("\"roomcast.c.>\",", "publish to roomcast.c.PROBE"),
        (
            "\"$JS.API.STREAM.MSG.GET.*\", ",
            "publish to $JS.API.STREAM.MSG.GET.roomcast-h-0",
        ),
        ("\"roomcast.l.*.*\", ", "subscription to roomcast.l.PROBE.*"),
        ("\"roomcast.p.*\", ", "subscription to roomcast.p.PROBE"),
    ] {
        assert!(documented.contains(without), "{without}");
        let server = server(documented.replacen(without, "", 1)).await;
        let error = connect(&server).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("nats: the account may not {named}")),
            "without {without}: {error}"
        );
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_at_once() {
    let server = server(documented()).await;
    let mut config = config(server.url());
    config.credentials = Credentials::Password {
        user: "gateway".to_owned(),
        password: "guessed".to_owned(),
    };
    let error = Nats::connect(&config).await.unwrap_err();
    assert!(matches!(error, NatsError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn the_oldest_supported_server_is_accepted() {
    let options = NatsOptions {
        release: Release::Floor,
        ..NatsOptions::default()
    };
    let server = NatsServer::start_with(options).await;
    let mut config = config(server.url());
    config.credentials = Credentials::None;
    Nats::connect(&config).await.unwrap();
}

#[tokio::test]
async fn an_older_server_is_refused_with_what_is_needed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let old = async {
        let (mut client, _) = listener.accept().await.unwrap();
        let info =
            b"INFO {\"server_id\":\"x\",\"version\":\"2.10.27\",\"max_payload\":1048576,\"headers\":true}\r\nPONG\r\n";
        client.write_all(info).await.unwrap();
        std::future::pending::<()>().await;
    };
    let mut config = config(url);
    config.credentials = Credentials::None;
    let error = tokio::select! {
        connected = Nats::connect(&config) => connected.unwrap_err(),
        () = old => unreachable!("it waits for ever"),
    };
    assert_eq!(
        error.to_string(),
        "nats: the server is version 2.10.27; 2.11 or newer is needed, 2.12.10 or 2.14.2 and newer recommended"
    );
}
