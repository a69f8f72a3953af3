use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm as Named, EncodingKey, Header};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;
use crate::auth::{Authenticator, Config, IssuerConfig, JwtAuthenticator, Secret, TokenIssuer};

mod left_out;

const ED25519: &str = include_str!("../../../tests/data/keys/ed25519.pem");
const ED25519_OTHER: &str = include_str!("../../../tests/data/keys/ed25519-other.pem");
const RSA: &str = include_str!("../../../tests/data/keys/rsa.pem");
const RSA_OTHER: &str = include_str!("../../../tests/data/keys/rsa-other.pem");
const P256: &str = include_str!("../../../tests/data/keys/p256.pem");

/// What the issuer's server answers.
#[derive(Clone)]
enum Answer {
    Text(String),
    Status(u16),
    Redirect(String),
    Never,
}

/// An issuer's server on a port of its own.
struct Published {
    url: String,
    answer: Mutex<Answer>,
    hits: AtomicUsize,
    /// Answers wait for a permit.
    gate: Semaphore,
    tasks: Mutex<JoinSet<()>>,
}

impl Published {
    async fn start(answer: Answer) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            url: format!("http://{}/keys", listener.local_addr().unwrap()),
            answer: Mutex::new(answer),
            hits: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            tasks: Mutex::new(JoinSet::new()),
        });
        let accepting = server.clone();
        server.tasks.lock().unwrap().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let own = accepting.clone();
                accepting.tasks.lock().unwrap().spawn(async move {
                    let service = service_fn(move |request| own.clone().serve(request));
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        server
    }

    async fn serve(self: Arc<Self>, _: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        self.hits.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        let answer = self.answer.lock().unwrap().clone();
        Ok(match answer {
            Answer::Text(text) => Response::new(text.into()),
            Answer::Status(status) => Response::builder().status(status).body(Full::default()).unwrap(),
            Answer::Redirect(to) => {
                let redirect = Response::builder().status(302).header("location", to);
                redirect.body(Full::default()).unwrap()
            }
            Answer::Never => std::future::pending().await,
        })
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

/// A gateway's authenticator with its fetching task.
struct Gateway {
    authenticator: Arc<JwtAuthenticator>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Gateway {
    fn start(issuers: Vec<IssuerConfig>) -> Self {
        let config = Config {
            issuers,
            ..Config::default()
        };
        let authenticator = Arc::new(JwtAuthenticator::new(&config).unwrap());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (own, stopped) = (authenticator.clone(), stop.clone());
        tasks.spawn(async move { own.keep_keys_fresh(stopped).await });
        Self {
            authenticator,
            stop,
            tasks,
        }
    }

    async fn takes(&self, token: &str) -> Result<(), AuthError> {
        self.authenticator.authenticate(token).await.map(drop)
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

fn issuer(name: &str, jwks: JwksConfig) -> IssuerConfig {
    IssuerConfig {
        issuer: name.to_owned(),
        audiences: vec!["roomcast".to_owned()],
        jwks: Some(jwks),
        ..IssuerConfig::default()
    }
}

fn jwk(pem: &str, kid: &str) -> Value {
    jwk_of(&EncodingKey::from_ed_pem(pem.as_bytes()).unwrap(), Named::EdDSA, kid)
}

fn jwk_of(key: &EncodingKey, algorithm: Named, kid: &str) -> Value {
    let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    serde_json::to_value(jwk).unwrap()
}

fn rsa(pem: &str) -> EncodingKey {
    EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap()
}

fn p256() -> EncodingKey {
    EncodingKey::from_ec_pem(P256.as_bytes()).unwrap()
}

/// The same number with leading zeros, in the other alphabet and padded.
fn sloppy(number: &Value, zeros: usize) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(number.as_str().unwrap()).unwrap();
    Value::String(STANDARD.encode([vec![0; zeros], bytes].concat()))
}

fn set(keys: &[Value]) -> Answer {
    Answer::Text(json!({ "keys": keys }).to_string())
}

fn token(issuer_name: &str, pem: &str, kid: &str) -> String {
    let config = issuer(issuer_name, JwksConfig::at(""));
    let signer = TokenIssuer::ed25519(&config, Some(kid.to_owned()), &Secret::new(pem.to_owned())).unwrap();
    signer
        .issue("ada", Duration::from_secs(86_400 * 7), Map::new())
        .unwrap()
}

fn token_of(key: &EncodingKey, algorithm: Named, kid: &str) -> String {
    token_with(key, algorithm, kid, &json!({}))
}

/// The same with other claims.
fn token_with(key: &EncodingKey, algorithm: Named, kid: &str, changes: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(kid.to_owned());
    let exp = jsonwebtoken::get_current_timestamp() + 86_400;
    let mut claims = json!({"iss": "i", "aud": "roomcast", "sub": "ada", "exp": exp});
    claims
        .as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    jsonwebtoken::encode(&header, &claims, key).unwrap()
}

#[tokio::test]
async fn keys_that_share_a_name_all_verify() {
    let (one, other, elliptic) = (rsa(RSA), rsa(RSA_OTHER), p256());
    let keys = [
        jwk_of(&one, Named::RS256, "k"),
        jwk_of(&elliptic, Named::ES256, "k"),
        jwk_of(&other, Named::RS256, "k"),
        jwk(ED25519, "k"),
    ];
    let mut reversed = keys.to_vec();
    reversed.reverse();
    for keys in [&keys[..], &reversed] {
        let server = Published::start(set(keys)).await;
        let gateway = Gateway::start(vec![issuer("i", JwksConfig::at(&server.url))]);
        for (key, algorithm) in [(&one, Named::RS256), (&other, Named::RS256), (&elliptic, Named::ES256)] {
            assert_eq!(gateway.takes(&token_of(key, algorithm, "k")).await, Ok(()));
        }
        assert_eq!(gateway.takes(&token("i", ED25519, "k")).await, Ok(()));
        assert!(gateway.takes(&token("i", ED25519_OTHER, "k")).await.is_err());
        gateway.stop().await;
    }
}

#[tokio::test]
async fn the_key_whose_signature_is_right_gives_the_reason() {
    let (one, other) = (rsa(RSA), rsa(RSA_OTHER));
    let keys = [jwk_of(&one, Named::RS256, "k"), jwk_of(&other, Named::RS256, "k")];
    let server = Published::start(set(&keys)).await;
    let gateway = Gateway::start(vec![issuer("i", JwksConfig::at(&server.url))]);
    let now = jsonwebtoken::get_current_timestamp();
    for (change, reason) in [
        (json!({"exp": now - 3_600}), AuthError::Expired),
        (
            json!({"aud": "x"}),
            AuthError::Invalid("its `aud` names no accepted audience"),
        ),
        (
            json!({"aud": 1}),
            AuthError::Invalid("its `aud` is missing or of a wrong type"),
        ),
        (
            json!({"iat": "0"}),
            AuthError::Invalid("its `iat` is no number of seconds since 1970"),
        ),
    ] {
        for key in [&one, &other] {
            assert_eq!(
                gateway.takes(&token_with(key, Named::RS256, "k", &change)).await,
                Err(reason),
                "{change}"
            );
        }
    }
    let forged = token_with(&p256(), Named::ES256, "k", &json!({}));
    assert_eq!(gateway.takes(&forged).await, Err(NO_SUCH_KEY));
    gateway.stop().await;
}

#[tokio::test]
async fn a_key_is_read_as_issuers_write_it() {
    let (one, elliptic) = (rsa(RSA), p256());
    let mut rsa_key = jwk_of(&one, Named::RS256, "rsa");
    let mut ec_key = jwk_of(&elliptic, Named::ES256, "ec");
    let mut ed_key = jwk(ED25519, "ed");
    for zeros in [0, 1, 3] {
        rsa_key["n"] = sloppy(&jwk_of(&one, Named::RS256, "rsa")["n"], zeros);
        rsa_key["e"] = sloppy(&jwk_of(&one, Named::RS256, "rsa")["e"], zeros);
        for coordinate in ["x", "y"] {
            ec_key[coordinate] = sloppy(&jwk_of(&elliptic, Named::ES256, "ec")[coordinate], zeros);
        }
        ed_key["x"] = sloppy(&jwk(ED25519, "ed")["x"], 0);
        ed_key["alg"] = json!("Ed25519");
        let server = Published::start(set(&[rsa_key.clone(), ec_key.clone(), ed_key.clone()])).await;
        let gateway = Gateway::start(vec![issuer("i", JwksConfig::at(&server.url))]);
        assert_eq!(gateway.takes(&token_of(&one, Named::RS256, "rsa")).await, Ok(()));
        assert_eq!(gateway.takes(&token_of(&elliptic, Named::ES256, "ec")).await, Ok(()));
        assert_eq!(gateway.takes(&token("i", ED25519, "ed")).await, Ok(()));
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_rotated_key_is_found_and_the_withdrawn_one_refused() {
    let server = Published::start(set(&[jwk(ED25519, "one")])).await;
    let mut jwks = JwksConfig::at(&server.url);
    jwks.refetch_interval = Duration::ZERO;
    let gateway = Gateway::start(vec![issuer("i", jwks)]);
    let (one, two) = (token("i", ED25519, "one"), token("i", ED25519_OTHER, "two"));
    assert_eq!(gateway.takes(&one).await, Ok(()));
    server.answers(set(&[jwk(ED25519_OTHER, "two")]));
    assert_eq!(gateway.takes(&two).await, Ok(()));
    assert!(matches!(gateway.takes(&one).await, Err(AuthError::Invalid(_))));
    gateway.stop().await;
}

#[tokio::test]
async fn a_flood_of_unknown_keys_costs_one_fetch_each_half_minute() {
    let server = Published::start(set(&[jwk(ED25519, "one")])).await;
    server.gate.forget_permits(Semaphore::MAX_PERMITS);
    let gateway = Gateway::start(vec![issuer("i", JwksConfig::at(&server.url))]);
    let tokens: Vec<String> = (0..200).map(|n| token("i", ED25519, &format!("unknown-{n}"))).collect();
    let flood = || join_all(tokens.iter().map(|token| gateway.takes(token)));
    // Everybody waits for the first fetch, which waits for us.
    let (refused, ()) = tokio::join!(flood(), async { server.gate.add_permits(100) });
    assert!(
        refused
            .iter()
            .all(|decision| matches!(decision, Err(AuthError::Invalid(_))))
    );
    flood().await;
    assert_eq!(server.hits(), 1);

    server.answers(set(&[jwk(ED25519_OTHER, "two")]));
    let rotated = token("i", ED25519_OTHER, "two");
    assert!(gateway.takes(&rotated).await.is_err(), "no fetch is due");
    pass(Duration::from_secs(30)).await;
    let (decision, refused) = tokio::join!(gateway.takes(&rotated), flood());
    assert_eq!(decision, Ok(()));
    assert!(refused.iter().all(Result::is_err));
    flood().await;
    assert_eq!(server.hits(), 2);
    gateway.stop().await;
}

/// Moves the clock without waiting; it runs again afterwards, for the network needs real time.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_server_that_misbehaves_gives_no_keys() {
    let good = Published::start(set(&[jwk(ED25519, "one")])).await;
    let many: Vec<Value> = (0..101).map(|n| jwk(ED25519, &format!("k{n}"))).collect();
    let padded = json!({"keys": [jwk(ED25519, "one")], "pad": "x".repeat(65_536)}).to_string();
    for (case, answer) in [
        ("slow", Answer::Never),
        ("huge", Answer::Text(padded)),
        ("redirecting", Answer::Redirect(good.url.clone())),
        ("failing", Answer::Status(500)),
        ("empty", Answer::Status(204)),
        ("too many keys", set(&many)),
        ("no JSON", Answer::Text("<html>".to_owned())),
        ("no key set", Answer::Text("[]".to_owned())),
    ] {
        let server = Published::start(answer).await;
        let mut jwks = JwksConfig::at(&server.url);
        jwks.timeout = Duration::from_secs(3);
        let gateway = Gateway::start(vec![issuer("i", jwks)]);
        let refused = gateway.takes(&token("i", ED25519, "one")).await;
        assert!(matches!(refused, Err(AuthError::Unavailable(_))), "{case}: {refused:?}");
        assert_eq!(server.hits(), 1, "{case}");
        gateway.stop().await;
    }
    assert_eq!(good.hits(), 0, "a redirect was followed");
}

#[tokio::test]
async fn the_last_good_keys_serve_for_a_bounded_time() {
    let server = Published::start(set(&[jwk(ED25519, "one")])).await;
    let gateway = Gateway::start(vec![issuer("i", JwksConfig::at(&server.url))]);
    let one = token("i", ED25519, "one");
    assert_eq!(gateway.takes(&one).await, Ok(()));
    server.answers(Answer::Status(500));
    pass(Duration::from_secs(3_600)).await;
    assert!(gateway.takes(&token("i", ED25519, "two")).await.is_err());
    assert!(server.hits() > 1, "it was tried");
    assert_eq!(gateway.takes(&one).await, Ok(()));
    pass(Duration::from_secs(86_400)).await;
    assert!(matches!(gateway.takes(&one).await, Err(AuthError::Unavailable(_))));
    gateway.stop().await;
}

#[tokio::test]
async fn equal_names_at_two_issuers_are_two_keys() {
    let first = Published::start(set(&[jwk(ED25519, "k")])).await;
    let second = Published::start(set(&[jwk(ED25519_OTHER, "k")])).await;
    let gateway = Gateway::start(vec![
        issuer("first", JwksConfig::at(&first.url)),
        issuer("second", JwksConfig::at(&second.url)),
    ]);
    assert_eq!(gateway.takes(&token("first", ED25519, "k")).await, Ok(()));
    assert_eq!(gateway.takes(&token("second", ED25519_OTHER, "k")).await, Ok(()));
    assert!(gateway.takes(&token("first", ED25519_OTHER, "k")).await.is_err());
    assert!(gateway.takes(&token("second", ED25519, "k")).await.is_err());
    gateway.stop().await;
}

#[tokio::test]
async fn keys_that_sign_no_tokens_are_left_out_and_take_no_others_with_them() {
    let changed = |kid: &str, field: &str, value: Value| {
        let mut key = jwk(ED25519, kid);
        key[field] = value;
        key
    };
    let secret = "a secret of more than thirty-two bytes";
    let server = Published::start(set(&[
        json!({"kty": "unheard of", "kid": "a"}),
        json!("no key"),
        json!({"kty": "RSA", "kid": "b"}),
        json!({"kty": "oct", "kid": "oct", "alg": "HS256", "k": "YSBzZWNyZXQgb2YgbW9yZSB0aGFuIHRoaXJ0eS10d28gYnl0ZXM"}),
        changed("enc", "use", json!("enc")),
        changed("sign", "key_ops", json!(["sign"])),
        changed("alg", "alg", json!("RS256")),
        jwk(ED25519, "good"),
    ]))
    .await;
    let gateway = Gateway::start(vec![issuer("i", JwksConfig::at(&server.url))]);
    assert_eq!(gateway.takes(&token("i", ED25519, "good")).await, Ok(()));
    for kid in ["enc", "sign", "alg"] {
        assert!(gateway.takes(&token("i", ED25519, kid)).await.is_err(), "{kid}");
    }
    let mut header = Header::new(Named::HS256);
    header.kid = Some("oct".to_owned());
    let claims = json!({"iss": "i", "aud": "roomcast", "sub": "ada", "exp": 4_000_000_000_u64});
    let forged = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap();
    assert!(gateway.takes(&forged).await.is_err());
    gateway.stop().await;
}

#[tokio::test]
async fn without_the_fetching_task_nothing_is_taken() {
    let mut jwks = JwksConfig::at("http://127.0.0.1:1/");
    jwks.timeout = Duration::from_millis(10);
    let config = Config {
        issuers: vec![issuer("i", jwks)],
        ..Config::default()
    };
    let authenticator = JwtAuthenticator::new(&config).unwrap();
    let refused = authenticator.authenticate(&token("i", ED25519, "one")).await;
    assert!(matches!(refused, Err(AuthError::Unavailable(_))));
}

#[tokio::test]
async fn a_first_fetch_that_fails_has_ended_too() {
    let server = Published::start(Answer::Status(500)).await;
    let gateway = Gateway::start(vec![issuer("i", JwksConfig::at(&server.url))]);
    gateway.authenticator.first_fetch().await;
    assert_eq!(server.hits(), 1);
    gateway.stop().await;
}
