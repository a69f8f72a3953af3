//! One bounded HTTP GET of a key set.

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tokio::time::timeout;

use super::published::{self, LeftOut};
use crate::auth::config::JwksConfig;
use crate::auth::keys::Key;

/// Reason why a fetch has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer in time")]
    Timeout,
    #[error("not reachable: {0}")]
    Connect(#[from] hyper_util::client::legacy::Error),
    #[error("status {0}; redirects are not followed")]
    Status(StatusCode),
    #[error("the answer breaks off or is longer than {0} bytes")]
    Body(usize),
    #[error("the answer is no key set: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("{0} keys are too many")]
    TooMany(usize),
}

/// Fetches from one address.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    url: Uri,
    config: JwksConfig,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

impl Fetcher {
    pub(super) fn new(url: Uri, config: &JwksConfig) -> Result<Self, String> {
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| format!("the system's certificates cannot be read: {error}"))?
            .https_or_http()
            .enable_http1()
            .build();
        // Fetches are minutes apart: a kept connection would only grow stale.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self {
            client,
            url,
            config: config.clone(),
        })
    }

    /// Fetches the key set. Returns the keys and the unused ones.
    pub(super) async fn fetch(&self) -> Result<(Vec<Key>, Vec<LeftOut>), FetchError> {
        timeout(self.config.timeout, self.get())
            .await
            .map_err(|_| FetchError::Timeout)?
    }

    async fn get(&self) -> Result<(Vec<Key>, Vec<LeftOut>), FetchError> {
        let request = Request::get(self.url.clone())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .body(Empty::new())
            .expect("an address that was parsed and a constant header make a request");
        let response = self.client.request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), self.config.bytes_max);
        let body = body
            .collect()
            .await
            .map_err(|_| FetchError::Body(self.config.bytes_max))?;
        self.read(&body.to_bytes())
    }

    fn read(&self, text: &[u8]) -> Result<(Vec<Key>, Vec<LeftOut>), FetchError> {
        let set: KeySet = serde_json::from_slice(text)?;
        if set.keys.len() > self.config.keys_max {
            return Err(FetchError::TooMany(set.keys.len()));
        }
        Ok(published::read(&set.keys))
    }
}
