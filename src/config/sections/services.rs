//! `[[grpc.services]]`: the backends that may call, and their rights.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{Credentials, Grant, Scope, TokenDigest};
use crate::auth::{JwtAuthenticator, Secret};
use crate::config::problem::{all, both};
use crate::config::values::RateSetting;
use crate::config::{Problem, files};

use super::grpc::GrpcSection;

/// The shortest token: it must not be guessable, and 128 bits need 22 characters of base64.
const TOKEN_BYTES_MIN: usize = 22;

/// One backend service. It presents a token (`token`, `token_file` or `token_sha256`) or a client certificate.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSection {
    /// The name, for logs and rates.
    pub name: String,
    /// The token itself, at least 22 bytes. Better in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// A file with the token; a trailing line end is not part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The SHA-256 digest of the token as 64 hexadecimal digits, so that it need not be here at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_sha256: Option<String>,
    /// A DNS name or URI of its client certificate; needs `grpc.tls.client_ca_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The granted scopes.
    pub scopes: Vec<ScopeName>,
    /// The tenants. Not set: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Vec<String>>,
    /// Its publish rate. Not set: as `grpc.publish_rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_rate: Option<RateSetting>,
}

/// A right of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScopeName {
    /// Publish events.
    Publish,
    /// Read members, history, statistics and decisions.
    Read,
    /// Join, remove, disconnect and revoke.
    Manage,
    /// Watch joins, leaves and connections.
    Watch,
    /// Receive the events of rooms.
    Subscribe,
}

impl ScopeName {
    /// Every right.
    pub const ALL: [Self; 5] = [Self::Publish, Self::Read, Self::Manage, Self::Watch, Self::Subscribe];
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::Publish => Self::Publish,
            ScopeName::Read => Self::Read,
            ScopeName::Manage => Self::Manage,
            ScopeName::Watch => Self::Watch,
            ScopeName::Subscribe => Self::Subscribe,
        }
    }
}

impl GrpcSection {
    pub(in crate::config) fn credentials(&self) -> Result<Credentials, Vec<Problem>> {
        let digests = all(self.services.iter().enumerate().map(|(at, service)| service.shown(at)));
        let jwt = self.jwt.as_ref().map(JwtAuthenticator::new).transpose();
        let (digests, jwt) = both(digests, jwt.map_err(|error| Problem::new("grpc.jwt", error)))?;
        let with_digest = digests.into_iter().zip(&self.services);
        let tokens = with_digest.filter_map(|(digest, service)| Some((digest?, service.grant())));
        let certificates = self.services.iter();
        let certificates = certificates.filter_map(|service| Some((service.certificate.clone()?, service.grant())));
        let credentials = Credentials::none().with_tokens(tokens).with_certificates(certificates);
        Ok(match jwt {
            None => credentials,
            Some(verifier) => credentials.with_jwt(Arc::new(verifier)),
        })
    }
}

fn problem(at: usize, key: &str, why: impl std::fmt::Display) -> Problem {
    Problem::new(format!("grpc.services.{at}.{key}"), why)
}

impl ServiceSection {
    /// Returns the digest of its token, unless it presents only a certificate.
    fn shown(&self, at: usize) -> Result<Option<TokenDigest>, Problem> {
        let digest = self.digest().map_err(|(key, why)| problem(at, key, why))?;
        if digest.is_none() && self.certificate.is_none() {
            return Err(problem(at, "token", "needs a token or a certificate"));
        }
        Ok(digest)
    }

    fn grant(&self) -> Grant {
        Grant {
            name: self.name.clone(),
            scopes: self.scopes.iter().map(|name| Scope::from(*name)).collect(),
            tenants: self.tenants.clone(),
            publish_rate: self.publish_rate.map(|rate| rate.0),
        }
    }

    fn digest(&self) -> Result<Option<TokenDigest>, (&'static str, String)> {
        let token = files::secret(self.token.as_ref(), self.token_file.as_deref())
            .map_err(|error| ("token", error.to_string()))?;
        match (token, &self.token_sha256) {
            (Some(_), Some(_)) => Err((
                "token_sha256",
                "is given together with the token; keep one of them".to_owned(),
            )),
            (Some(token), None) if token.expose().len() < TOKEN_BYTES_MIN => Err((
                "token",
                format!("has fewer than {TOKEN_BYTES_MIN} bytes; `openssl rand -base64 32` makes a good one"),
            )),
            (Some(token), None) => Ok(Some(TokenDigest::of(token.expose()))),
            (None, Some(hex)) => TokenDigest::parse(hex)
                .map(Some)
                .ok_or_else(|| ("token_sha256", "is not 64 hexadecimal digits".to_owned())),
            (None, None) => Ok(None),
        }
    }
}
