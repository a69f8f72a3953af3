//! How a node shows a real server who it is, and how it knows the server.

use std::path::PathBuf;

use nkeys::KeyPair;
use roomcast::nats::{Config, Credentials, Nats, NatsError, Tls};
use serde_json::{Value, json};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::support::nats::{Authority, NatsOptions, NatsServer, NatsTls};

async fn connect(server: &NatsServer, credentials: Credentials, tls: Tls) -> Result<(), NatsError> {
    let config = Config {
        servers: vec![server.url()],
        credentials,
        tls,
        ..Config::default()
    };
    let nats = Nats::connect(&config).await?;
    nats.jetstream()
        .query_account()
        .await
        .map(drop)
        .map_err(|error| NatsError::JetStream(error.to_string()))
}

async fn configured(config: &str) -> NatsServer {
    let options = NatsOptions {
        config: config.to_owned(),
        ..NatsOptions::default()
    };
    NatsServer::start_with(options).await
}

/// The server accepts the right credentials, and a node with others says why it does not start.
async fn shown(server: &NatsServer, right: Credentials, wrong: [Credentials; 2]) {
    connect(server, right, Tls::default()).await.unwrap();
    for wrong in wrong {
        let error = connect(server, wrong.clone(), Tls::default()).await.unwrap_err();
        assert!(matches!(error, NatsError::Connect { .. }), "{wrong:?}: {error}");
        let said = error.to_string();
        assert!(said.contains("authorization violation"), "{wrong:?}: {said}");
        assert!(said.contains(&server.url()), "{wrong:?}: {said}");
    }
}

fn password(password: &str) -> Credentials {
    Credentials::Password {
        user: "gateway".to_owned(),
        password: password.to_owned(),
    }
}

#[tokio::test]
async fn a_token() {
    let server = configured("authorization { token: \"right\" }").await;
    let token = |text: &str| Credentials::Token(text.to_owned());
    shown(&server, token("right"), [token("wrong"), Credentials::None]).await;
}

#[tokio::test]
async fn a_user_and_a_password() {
    let server = configured("authorization { user: gateway, password: \"right\" }").await;
    shown(&server, password("right"), [password("wrong"), Credentials::None]).await;
}

#[tokio::test]
async fn an_nkey() {
    let (right, wrong) = (KeyPair::new_user(), KeyPair::new_user());
    let config = format!(
        "accounts {{ A {{ jetstream: enabled, users: [{{ nkey: {} }}] }} }}",
        right.public_key()
    );
    let server = configured(&config).await;
    let seed = |key: &KeyPair| Credentials::NkeySeed(key.seed().unwrap());
    shown(&server, seed(&right), [seed(&wrong), Credentials::None]).await;
}

/// A token as NATS signs it.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "name": name, "sub": subject.public_key(),
        "nats": nats,
    });
    let text = format!(
        "{}.{}",
        part(&json!({"typ": "JWT", "alg": "ed25519-nkey"})),
        part(&claims)
    );
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

/// The text of a `.creds` file.
fn creds(account: &KeyPair) -> Credentials {
    let user = KeyPair::new_user();
    let limits = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}});
    Credentials::Creds(format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(account, &user, "gateway", &limits),
        user.seed().unwrap()
    ))
}

#[tokio::test]
async fn a_creds_file() {
    let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
    let unlimited = json!({
        "type": "account", "version": 2, "default_permissions": {"pub": {}, "sub": {}},
        "limits": {
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
        },
    });
    let system = KeyPair::new_account();
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{\n  {}: {}\n  {}: {}\n}}",
        jwt(
            &operator,
            &operator,
            "operator",
            &json!({"type": "operator", "version": 2})
        ),
        system.public_key(),
        account.public_key(),
        jwt(&operator, &account, "roomcast", &unlimited),
        system.public_key(),
        jwt(
            &operator,
            &system,
            "system",
            &json!({"type": "account", "version": 2, "limits": {
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
            }})
        ),
    );
    let server = configured(&config).await;
    // Of an account that the operator has not signed.
    let strangers = creds(&KeyPair::new_account());
    shown(&server, creds(&account), [strangers, Credentials::None]).await;
    let nonsense = Credentials::Creds("nonsense".to_owned());
    let error = connect(&server, nonsense, Tls::default()).await.unwrap_err();
    assert!(matches!(error, NatsError::Config(_)), "{error}");
}

/// A server that is encrypted by an authority of its own.
async fn encrypted(change: impl FnOnce(&mut NatsTls)) -> (Authority, NatsServer) {
    let authority = Authority::new();
    let mut tls = NatsTls {
        authority: authority.clone(),
        clients: false,
        first: false,
    };
    change(&mut tls);
    let options = NatsOptions {
        tls: Some(tls),
        ..NatsOptions::default()
    };
    (authority, NatsServer::start_with(options).await)
}

fn trusting(authority: &Authority) -> Tls {
    Tls {
        ca_file: Some(authority.file()),
        required: true,
        ..Tls::default()
    }
}

async fn refused(server: &NatsServer, tls: Tls, why: &str) {
    let error = connect(server, Credentials::None, tls.clone()).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains(why), "{tls:?}: {said}");
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own() {
    let (authority, server) = encrypted(|_| {}).await;
    connect(&server, Credentials::None, trusting(&authority)).await.unwrap();
    refused(&server, trusting(&Authority::new()), "invalid peer certificate").await;
    // The system's authorities have not signed it either.
    refused(&server, Tls::default(), "invalid peer certificate").await;
    let missing = Tls {
        ca_file: Some(PathBuf::from("/nowhere/ca.pem")),
        ..trusting(&authority)
    };
    refused(&server, missing, "the files of nats.tls cannot be used").await;
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_it_is_required() {
    let server = NatsServer::start().await;
    refused(&server, trusting(&Authority::new()), "the server does not speak TLS").await;
}

#[tokio::test]
async fn a_client_certificate() {
    let (authority, server) = encrypted(|tls| tls.clients = true).await;
    let with = |certificate: &Authority| {
        let signed = certificate.client("gateway");
        Tls {
            certificate: Some((signed.certificate, signed.key)),
            ..trusting(&authority)
        }
    };
    connect(&server, Credentials::None, with(&authority)).await.unwrap();
    refused(&server, with(&Authority::new()), "UnknownCA").await;
    refused(&server, trusting(&authority), "the server wants a client certificate").await;
}

#[tokio::test]
async fn a_handshake_before_the_first_word() {
    let (authority, server) = encrypted(|tls| tls.first = true).await;
    let first = Tls {
        first: true,
        ..trusting(&authority)
    };
    connect(&server, Credentials::None, first).await.unwrap();
    // Each side waits for the other's first word until somebody has had enough.
    refused(&server, trusting(&authority), "needs nats.tls.first").await;
}
