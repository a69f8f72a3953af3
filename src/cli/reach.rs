//! Reasons why a gateway was not reached, for the person who typed its address.
//!
//! Libraries describe them for their developers, in several layers. The causes below are few.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::url::shown;

/// A port of a gateway, as a command needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    /// For backends.
    Grpc,
    /// For clients.
    Client,
}

impl Port {
    /// Returns the protocol of the port.
    const fn protocol(self) -> &'static str {
        match self {
            Self::Grpc => "gRPC",
            Self::Client => "WebSocket",
        }
    }

    /// Returns advice for the likely mistake.
    const fn advice(self) -> &'static str {
        match self {
            Self::Grpc => "--url needs the port for backends (grpc.listen, usually 50051), not the one for clients",
            Self::Client => "--url needs the port for clients (client.listen, usually 8080) and the path /v1/ws",
        }
    }

    const fn schemes(self) -> [&'static str; 2] {
        match self {
            Self::Grpc => ["http", "https"],
            Self::Client => ["ws", "wss"],
        }
    }

    /// Checks the form of an address.
    pub(super) fn check(self, url: &str) -> Result<(), String> {
        let [plain, encrypted] = self.schemes();
        match url.split_once("://") {
            Some((scheme, rest)) if (scheme == plain || scheme == encrypted) && !rest.is_empty() => Ok(()),
            _ => Err(format!(
                "--url {}: expected {plain}://HOST:PORT or {encrypted}://HOST:PORT",
                shown(url)
            )),
        }
    }
}

/// An attempt without the reply of a gateway.
#[derive(Debug)]
pub(super) struct Unreached<'a> {
    pub(super) url: &'a str,
    pub(super) port: Port,
    pub(super) cause: Cause,
}

/// The cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// Connection refused.
    Refused,
    /// The name has no address.
    NoSuchHost,
    /// No reply for this long.
    Silent(Duration),
    /// The system could not connect, for this reason.
    System(String),
    /// The port has no TLS, or the certificate is not trusted.
    Tls(String),
    /// The server uses another protocol.
    OtherProtocol,
}

impl Cause {
    /// Finds the cause in the layers of an error. `patience` is the deadline of the reply.
    pub(super) fn of(error: &(dyn Error + 'static), patience: Duration) -> Self {
        let mut cause = Self::OtherProtocol;
        let mut layer = Some(error);
        while let Some(error) = layer {
            let text = error.to_string();
            if let Some(error) = error.downcast_ref::<io::Error>() {
                match error.kind() {
                    io::ErrorKind::ConnectionRefused => return Self::Refused,
                    io::ErrorKind::TimedOut => return Self::Silent(patience),
                    io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::AddrNotAvailable
                    | io::ErrorKind::PermissionDenied => cause = Self::System(text.clone()),
                    _ => {}
                }
            }
            if text.contains("lookup address") {
                return Self::NoSuchHost;
            }
            if let Some(error) = tls(error) {
                cause = Self::Tls(error.to_string());
            }
            layer = error.source();
        }
        cause
    }
}

/// Returns the TLS error of this layer. An IO error is no layer around its content: its source is the content's source.
fn tls<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let held = held.and_then(|held| held.downcast_ref());
    held.or_else(|| error.downcast_ref())
}

impl fmt::Display for Unreached<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, port, cause } = self;
        let url = shown(url);
        let [plain, encrypted] = port.schemes();
        match cause {
            Cause::Refused => write!(f, "nothing listens at {url} (connection refused); {}", port.advice()),
            Cause::NoSuchHost => write!(f, "the host of {url} is not known"),
            Cause::Silent(time) => write!(f, "{url} did not answer within {}", humantime::format_duration(*time)),
            Cause::System(text) => write!(f, "cannot connect to {url}: {text}"),
            Cause::Tls(text) if text.contains("InvalidContentType") => {
                write!(f, "{url} does not speak TLS; try {plain}:// instead of {encrypted}://")
            }
            Cause::Tls(text) => write!(f, "no TLS connection to {url}: {text}"),
            Cause::OtherProtocol => write!(f, "{url} does not speak {}; {}", port.protocol(), port.advice()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_another_kind_is_refused_before_connecting() {
        for (port, url, good) in [
            (Port::Grpc, "http://127.0.0.1:50051", true),
            (Port::Grpc, "https://gateway.example.com", true),
            (Port::Grpc, "127.0.0.1:50051", false),
            (Port::Grpc, "ws://127.0.0.1:8080/v1/ws", false),
            (Port::Client, "ws://127.0.0.1:8080/v1/ws", true),
            (Port::Client, "http://127.0.0.1:8080", false),
            (Port::Client, "ws://", false),
        ] {
            assert_eq!(port.check(url).is_ok(), good, "{url}");
        }
    }
}
