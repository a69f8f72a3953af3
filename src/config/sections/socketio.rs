//! `[socketio]`: Socket.IO on the port for clients.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sse::wrong_prefix;
use crate::config::problem::all;
use crate::config::values::{Positive, PositiveSize, PositiveTime, Time};
use crate::config::{Problem, files};
use crate::transport::protocol::Protocols;
use crate::transport::socketio::{self, Application, BundleFile, NAMESPACES_MAX, TokenSource};

/// Socket.IO for stock clients, on the port for clients.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SocketIoSection {
    /// Serves Socket.IO.
    pub enabled: bool,
    /// The path, compared exactly: with the slash at its end as clients send it by default, without for clients with
    /// `addTrailingSlash: false`.
    pub path: String,
    /// The namespaces that clients may connect to, 1 to 8. Each is a session of its own, with its own token and rooms.
    pub namespaces: Vec<String>,
    /// Begins the names of the events that the gateway takes and sends itself, as in `roomcast:join`; 1 to 32 bytes.
    pub event_prefix: String,
    /// The interval of pings.
    #[serde(with = "PositiveTime")]
    pub ping_interval: Duration,
    /// The longest time for the answer to a ping; then the connection is closed.
    #[serde(with = "PositiveTime")]
    pub ping_timeout: Duration,
    /// The longest time for an upgrade from polling to a WebSocket; then the WebSocket is closed, and polling goes on.
    #[serde(with = "PositiveTime")]
    pub upgrade_timeout: Duration,
    /// The longest time until a client has connected to a namespace; then its connection is closed.
    #[serde(with = "PositiveTime")]
    pub connect_timeout: Duration,
    /// The largest message, and the largest body of a polling request as clients are told; a body may be a thirty-second
    /// larger. Base64 makes binary data a third larger.
    #[serde(with = "PositiveSize")]
    pub payload_bytes_max: usize,
    /// The most packets in the body of a polling request; then its connection is closed.
    #[serde(with = "Positive")]
    pub packets_max: usize,
    /// The most polling requests that wait at this node for the node of their connection, and the most of other nodes that wait
    /// here; more are refused with 503, and their connections end.
    #[serde(with = "Positive")]
    pub forwarded_max: usize,
    /// The places of the token. The first one that has a token counts.
    pub token_sources: Vec<TokenSourceName>,
    /// The message of an error for a token that is not accepted; `{reason}` stands for what is wrong with it.
    pub authentication_error: String,
    /// The client's own build, served beside the path for pages that load the client from their server: a file, served as
    /// `socket.io.js`, or a directory with some of `socket.io.js`, `socket.io.min.js`, `socket.io.esm.min.js`,
    /// `socket.io.msgpack.min.js` and their `.map`, as `dist` of the npm package `socket.io-client` has them. Read at the start.
    pub client_bundle: Option<PathBuf>,
    /// The time for which a client may be away and come back to its session, with the events that it has missed: connection
    /// state recovery. With it each event has one argument more, the offset, for all clients. Zero: off.
    #[serde(with = "Time")]
    pub recovery: Duration,
}

/// A place in which a Socket.IO client shows its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenSourceName {
    /// The field `token` of the client's option `auth`.
    Auth,
    /// The request: `Authorization`, or `?token=` where `client.token_in_query` allows it.
    Handshake,
}

impl Default for SocketIoSection {
    fn default() -> Self {
        let config = socketio::Config::default();
        let name = |source: &TokenSource| match source {
            TokenSource::Auth => TokenSourceName::Auth,
            TokenSource::Handshake => TokenSourceName::Handshake,
        };
        Self {
            enabled: true,
            path: config.path,
            namespaces: config.namespaces,
            event_prefix: config.event_prefix,
            ping_interval: config.ping_interval,
            ping_timeout: config.ping_timeout,
            upgrade_timeout: config.upgrade_timeout,
            connect_timeout: config.connect_timeout,
            payload_bytes_max: config.payload_bytes_max,
            packets_max: config.packets_max,
            forwarded_max: config.forwarded_max,
            token_sources: config.token_sources.iter().map(name).collect(),
            authentication_error: config.authentication_error,
            client_bundle: None,
            recovery: config.recovery.unwrap_or_default(),
        }
    }
}

impl SocketIoSection {
    /// Returns the problems of values that could be read.
    pub(in crate::config) fn problems(&self) -> Vec<Problem> {
        /// The paths that the port has already.
        const TAKEN: [&str; 3] = ["/", "/v1/ws", "/v1/events"];
        let mut problems = Vec::new();
        let mut wrong = |key: String, message: &str| problems.push(Problem::new(key, message));
        let is_path = |text: &str| {
            text.starts_with('/')
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b"?#,\"\\".contains(&byte))
        };
        if !is_path(&self.path) || TAKEN.contains(&&*self.path) {
            wrong(
                "socketio.path".to_owned(),
                "must be a path of its own, such as `/socket.io/`",
            );
        }
        if !(1..=NAMESPACES_MAX).contains(&self.namespaces.len()) {
            wrong("socketio.namespaces".to_owned(), "must have 1 to 8 entries");
        }
        for (at, namespace) in self.namespaces.iter().enumerate() {
            if !is_path(namespace) || self.namespaces[..at].contains(namespace) {
                let message =
                    "must be a name of its own that begins with a slash, without `,`, `?`, `#`, quotes and spaces";
                wrong(format!("socketio.namespaces.{at}"), message);
            }
        }
        problems.extend(wrong_prefix("socketio.event_prefix", &self.event_prefix));
        problems
    }

    /// Adds the protocol, with its configuration, to a gateway's.
    pub(in crate::config) fn register(&self, protocols: &Protocols, config: &Arc<socketio::Config>) -> Protocols {
        if !self.enabled {
            return protocols.clone();
        }
        socketio::register(protocols, config)
    }

    /// Returns the component's configuration, with the files of the client.
    pub(in crate::config) fn config(&self) -> Result<Arc<socketio::Config>, Vec<Problem>> {
        let source = |name: &TokenSourceName| match name {
            TokenSourceName::Auth => TokenSource::Auth,
            TokenSourceName::Handshake => TokenSource::Handshake,
        };
        Ok(Arc::new(socketio::Config {
            client_bundle: self.bundle()?,
            path: self.path.clone(),
            application: Application::SocketIo,
            namespaces: self.namespaces.clone(),
            event_prefix: self.event_prefix.clone(),
            ping_interval: self.ping_interval,
            ping_timeout: self.ping_timeout,
            upgrade_timeout: self.upgrade_timeout,
            connect_timeout: self.connect_timeout,
            payload_bytes_max: self.payload_bytes_max,
            packets_max: self.packets_max,
            forwarded_max: self.forwarded_max,
            token_sources: self.token_sources.iter().map(source).collect(),
            authentication_error: self.authentication_error.clone(),
            recovery: (!self.recovery.is_zero()).then_some(self.recovery),
        }))
    }

    /// Reads the files of the client.
    fn bundle(&self) -> Result<Vec<BundleFile>, Vec<Problem>> {
        const KEY: &str = "socketio.client_bundle";
        let Some(path) = self.client_bundle.as_ref().filter(|_| self.enabled) else {
            return Ok(Vec::new());
        };
        let read = |name: &str, path: &Path| {
            let bytes = files::bytes(path).map_err(|error| Problem::new(KEY, error))?;
            if bytes.len() > BundleFile::BYTES_MAX {
                return Err(Problem::new(KEY, format!("{} is larger than 4 MiB", path.display())));
            }
            Ok(BundleFile::new(name, bytes))
        };
        let files = if path.is_dir() {
            let there = BundleFile::names().map(|name| (name, path.join(name)));
            let there = there.filter(|(_, file)| file.exists());
            all(there.map(|(name, file)| read(name, &file)))?
        } else {
            vec![read(BundleFile::MAIN, path)?]
        };
        let files: Vec<BundleFile> = files.into_iter().flatten().collect();
        if files.is_empty() {
            let problem = format!("{} has none of the files that are served", path.display());
            return Err(vec![Problem::new(KEY, problem)]);
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(path: PathBuf) -> Result<Vec<BundleFile>, String> {
        let section = SocketIoSection {
            client_bundle: Some(path),
            ..SocketIoSection::default()
        };
        section.bundle().map_err(|problems| problems[0].to_string())
    }

    #[test]
    fn the_client_is_a_file_or_a_directory_with_known_names() {
        let root = std::env::temp_dir().join(format!("roomcast-bundle-{:032x}", rand::random::<u128>()));
        let file = |name: &str| BundleFile::new(name, format!("// {name}")).unwrap();
        let write = |name: &str| std::fs::write(root.join(name), format!("// {name}")).unwrap();
        std::fs::create_dir(&root).unwrap();
        let none = bundle(root.clone()).unwrap_err();
        assert!(none.contains("has none of the files"), "{none}");
        for name in ["socket.io.min.js", "socket.io.min.js.map", "index.html"] {
            write(name);
        }
        let files = bundle(root.clone()).unwrap();
        assert_eq!(files, ["socket.io.min.js", "socket.io.min.js.map"].map(file));
        let one = bundle(root.join("socket.io.min.js")).unwrap();
        assert_eq!(one, [BundleFile::new("socket.io.js", "// socket.io.min.js").unwrap()]);
        std::fs::write(root.join("large"), vec![b' '; BundleFile::BYTES_MAX + 1]).unwrap();
        let large = bundle(root.join("large")).unwrap_err();
        assert!(large.contains("larger than 4 MiB"), "{large}");
        let missing = bundle(root.join("missing.js")).unwrap_err();
        assert!(
            missing.contains("socketio.client_bundle") && missing.contains("cannot read"),
            "{missing}"
        );
        std::fs::remove_dir_all(&root).unwrap();
        let off = SocketIoSection {
            enabled: false,
            client_bundle: Some(root),
            ..SocketIoSection::default()
        };
        assert_eq!(off.bundle().unwrap(), [], "what is not served is not read");
    }
}
