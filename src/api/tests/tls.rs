//! TLS and client certificates.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::support::{Api, Caller, ROOT, Setup, event, refusal, token};
use crate::api::{Config, ConfigError, Credentials, Grant, Scope, Tls};
use crate::proto::v1::publish_service_client::PublishServiceClient;

/// An authority that signs for the listener and for its callers.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key for a name, as PEM.
    fn sign(&self, name: SanType) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![name];
        let signed = params.signed_by(&key, &self.0).unwrap();
        (signed.pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn publisher(name: &str) -> Grant {
    Grant {
        name: name.to_owned(),
        scopes: vec![Scope::Publish],
        tenants: None,
        publish_rate: None,
    }
}

fn tls(authority: &Authority) -> Tls {
    let (certificate, key) = authority.sign(dns("localhost"));
    Tls {
        certificate_pem: certificate.into(),
        key_pem: key.into(),
        client_ca_pem: Some(authority.pem().into()),
    }
}

async fn secured(authority: &Authority, config: Config) -> Api {
    let credentials = Credentials::none()
        .with_tokens([token(ROOT, &Scope::ALL, None)])
        .with_certificates([
            ("billing.example".to_owned(), publisher("billing")),
            ("spiffe://example/mailer".to_owned(), publisher("mailer")),
        ]);
    Api::with(Setup {
        config: Config {
            tls: Some(tls(authority)),
            ..config
        },
        credentials,
        ..Setup::default()
    })
    .await
}

/// What becomes of a publish over TLS by a caller with this certificate and token.
async fn outcome(
    api: &Api,
    authority: &Authority,
    identity: Option<(String, String)>,
    token: Option<&'static str>,
) -> Code {
    let mut config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .domain_name("localhost");
    if let Some((certificate, key)) = identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", api.address)).unwrap();
    let Ok(channel) = endpoint.tls_config(config).unwrap().connect().await else {
        return Code::Unavailable;
    };
    let caller = Caller {
        token,
        ..Caller::with(ROOT)
    };
    match PublishServiceClient::with_interceptor(channel, caller)
        .publish(event())
        .await
    {
        Ok(_) => Code::Ok,
        Err(status) if status.code() == Code::Unauthenticated => {
            assert_eq!(refusal(&status).1, "UNAUTHENTICATED");
            Code::Unauthenticated
        }
        Err(status) => status.code(),
    }
}

#[tokio::test]
async fn a_client_certificate_is_a_credential_by_its_alternative_names() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let api = secured(&authority, Config::default()).await;
    let uri = SanType::URI("spiffe://example/mailer".try_into().unwrap());
    assert_eq!(
        outcome(&api, &authority, Some(authority.sign(dns("billing.example"))), None).await,
        Code::Ok
    );
    assert_eq!(
        outcome(&api, &authority, Some(authority.sign(uri)), None).await,
        Code::Ok
    );
    assert_eq!(outcome(&api, &authority, None, Some(ROOT)).await, Code::Ok);
    assert_eq!(outcome(&api, &authority, None, None).await, Code::Unauthenticated);
    let unknown = authority.sign(dns("other.example"));
    assert_eq!(
        outcome(&api, &authority, Some(unknown), None).await,
        Code::Unauthenticated
    );
    // A bad token is not made good by a good certificate.
    let good = authority.sign(dns("billing.example"));
    assert_eq!(
        outcome(&api, &authority, Some(good), Some("guessed")).await,
        Code::Unauthenticated
    );
    let forged = stranger.sign(dns("billing.example"));
    assert_ne!(outcome(&api, &authority, Some(forged), None).await, Code::Ok);
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_closed_and_holds_up_nobody() {
    let authority = Authority::new();
    let config = Config {
        first_bytes_timeout: std::time::Duration::from_secs(1),
        ..Config::default()
    };
    let api = secured(&authority, config).await;
    let silent = TcpStream::connect(api.address).await.unwrap();
    assert_eq!(outcome(&api, &authority, None, Some(ROOT)).await, Code::Ok);
    let mut rest = Vec::new();
    let mut silent = silent;
    // Ends, by EOF or reset, instead of waiting for ever.
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut rest).await;
}

#[test]
fn certificates_that_cannot_be_used_are_found_at_start() {
    let authority = Authority::new();
    let good = tls(&authority);
    let other = tls(&authority);
    let credentials = Credentials::none().with_certificates([("billing.example".to_owned(), publisher("billing"))]);
    let listen = "127.0.0.1:0".parse().unwrap();
    let validate = |tls| {
        Config {
            tls,
            ..Config::default()
        }
        .validate(listen, false, &credentials)
    };
    assert_eq!(validate(Some(good.clone())), Ok(()));
    assert_eq!(validate(None), Err(ConfigError::NoClientCa));
    let cases = [
        Tls {
            certificate_pem: b"nothing".to_vec(),
            ..good.clone()
        },
        Tls {
            key_pem: b"nothing".to_vec(),
            ..good.clone()
        },
        Tls {
            key_pem: other.key_pem,
            ..good.clone()
        },
        Tls {
            client_ca_pem: Some(b"nothing".to_vec()),
            ..good
        },
    ];
    for tls in cases {
        assert!(matches!(validate(Some(tls)), Err(ConfigError::Tls(_))));
    }
}
