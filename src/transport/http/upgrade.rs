//! From an HTTP request to a WebSocket (RFC 6455 section 4.2): what is checked before the protocol changes.

use std::net::IpAddr;
use std::sync::Mutex;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::server::create_response;

use super::{Body, ClientPort, Origins, address, later, text};
use crate::session::{NotAdmitted, Place};
use crate::transport::native::Encoding;

/// Announces a token among the subprotocols: `bearer.<token>`. Browsers cannot set headers.
const TOKEN_SUBPROTOCOL: &str = "bearer.";

/// An upgrade under way.
pub(super) struct Upgrading {
    pub encoding: Encoding,
    pub token: Option<String>,
    pub place: Place,
    pub on_upgrade: OnUpgrade,
}

/// Where the request's handler leaves an upgrade for the connection's task.
#[derive(Default)]
pub(super) struct Slot(Mutex<Option<Upgrading>>);

impl Slot {
    pub(super) fn put(&self, upgrading: Upgrading) {
        *self.0.lock().expect("nobody panics with the slot") = Some(upgrading);
    }

    pub(super) fn take(&self) -> Option<Upgrading> {
        self.0.lock().expect("nobody panics with the slot").take()
    }
}

pub(super) fn answer(port: &ClientPort, peer: IpAddr, slot: &Slot, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    drop(body);
    let mut request = Request::from_parts(parts, ());
    match check(port, &request) {
        Ok((encoding, mut response)) => {
            let address = address::client(peer, request.headers(), &port.config().trusted_proxies);
            let place = match port.admit(address) {
                Ok(place) => place,
                Err(refused) => return not_admitted(refused),
            };
            let token = token(request.headers(), request.uri().query(), port.config().token_in_query);
            let Some(on_upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
                port.dismiss(place);
                return text(StatusCode::BAD_REQUEST, "this connection cannot be upgraded");
            };
            slot.put(Upgrading {
                encoding,
                token,
                place,
                on_upgrade,
            });
            response.headers_mut().insert(
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(encoding.subprotocol()),
            );
            if offered(request.headers()).next().is_none() {
                response.headers_mut().remove(header::SEC_WEBSOCKET_PROTOCOL);
            }
            response
        }
        Err(refusal) => *refusal,
    }
}

type Checked = Result<(Encoding, Response<Body>), Box<Response<Body>>>;

fn check(port: &ClientPort, request: &Request<()>) -> Checked {
    let headers = request.headers();
    // Before anything else: a foreign page learns nothing, not even whether its upgrade was well-formed.
    if !origin_allowed(&port.config().origins, headers) {
        return Err(Box::new(text(StatusCode::FORBIDDEN, "this origin may not connect")));
    }
    let is_upgrade = headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    if !is_upgrade || version != Some(b"13") {
        return Err(Box::new(upgrade_required()));
    }
    if !has_valid_key(headers) {
        return Err(Box::new(text(
            StatusCode::BAD_REQUEST,
            "Sec-WebSocket-Key is not 16 bytes in base64",
        )));
    }
    let encoding =
        encoding(headers).ok_or_else(|| text(StatusCode::BAD_REQUEST, "none of the subprotocols is known"))?;
    let response = create_response(request).map_err(|_| {
        text(
            StatusCode::BAD_REQUEST,
            "not a WebSocket handshake (RFC 6455 section 4.2.1)",
        )
    })?;
    Ok((encoding, response.map(|()| Body::default())))
}

fn upgrade_required() -> Response<Body> {
    let mut response = text(StatusCode::UPGRADE_REQUIRED, "a WebSocket of version 13 is spoken here");
    let headers = response.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response
}

fn not_admitted(refused: NotAdmitted) -> Response<Body> {
    match refused {
        NotAdmitted::NodeFull => later(StatusCode::SERVICE_UNAVAILABLE, "the node is full"),
        NotAdmitted::AddressFull | NotAdmitted::UserFull => {
            later(StatusCode::TOO_MANY_REQUESTS, "too many connections from this address")
        }
    }
}

/// Compares whole origins, byte for byte: no suffixes, no `null`.
fn origin_allowed(origins: &Origins, headers: &HeaderMap) -> bool {
    let mut given = headers.get_all(header::ORIGIN).iter();
    match (origins, given.next(), given.next()) {
        (Origins::Any, _, _) | (_, None, _) => true,
        (Origins::Listed(listed), Some(origin), None) => listed.iter().any(|own| own.as_bytes() == origin.as_bytes()),
        (Origins::Listed(_), Some(_), Some(_)) => false,
    }
}

fn has_valid_key(headers: &HeaderMap) -> bool {
    use base64::Engine as _;
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return false;
    };
    base64::engine::general_purpose::STANDARD
        .decode(key.as_bytes())
        .is_ok_and(|key| key.len() == 16)
}

fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let names = lines
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim);
    names.filter(|name| !name.is_empty() && !name.starts_with(TOKEN_SUBPROTOCOL))
}

/// The first offered subprotocol that is known; JSON where none is offered.
fn encoding(headers: &HeaderMap) -> Option<Encoding> {
    if offered(headers).next().is_none() {
        return Some(Encoding::Json);
    }
    offered(headers).find_map(from_subprotocol)
}

fn from_subprotocol(name: &str) -> Option<Encoding> {
    Encoding::ALL
        .into_iter()
        .find(|encoding| encoding.subprotocol() == name)
}

/// The token, from the header, the subprotocols or, where allowed, the query.
fn token(headers: &HeaderMap, query: Option<&str>, in_query: bool) -> Option<String> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    if let Some((_, token)) = bearer {
        return Some(token.trim().to_owned());
    }
    let lines = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut names = lines.flat_map(|line| line.split(',')).map(str::trim);
    if let Some(token) = names.find_map(|name| name.strip_prefix(TOKEN_SUBPROTOCOL)) {
        return Some(token.to_owned());
    }
    let mut pairs = query.filter(|_| in_query)?.split('&');
    // Tokens are base64url and dots (RFC 7519): nothing in them is ever percent-encoded.
    pairs.find_map(|pair| pair.strip_prefix("token=")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_whole_origins_are_allowed() {
        let listed = Origins::Listed(vec!["https://app.example".to_owned()]);
        let allowed = |origin| origin_allowed(&listed, &headers(&[("origin", origin)]));
        assert!(allowed("https://app.example"));
        for origin in [
            "null",
            "https://evil-app.example",
            "https://app.example.evil",
            "http://app.example",
            "https://app.example:444",
            "https://APP.example",
            "",
        ] {
            assert!(!allowed(origin), "{origin}");
        }
        assert!(origin_allowed(&listed, &headers(&[])));
        assert!(origin_allowed(
            &Origins::Any,
            &headers(&[("origin", "https://x.example")])
        ));
    }

    #[test]
    fn the_first_known_subprotocol_is_spoken() {
        let encoding = |offer| encoding(&headers(&[("sec-websocket-protocol", offer)]));
        assert_eq!(
            encoding("roomcast.v1.protobuf, roomcast.v1.json"),
            Some(Encoding::Protobuf)
        );
        assert_eq!(encoding("x, roomcast.v1.json"), Some(Encoding::Json));
        assert_eq!(encoding("bearer.abc"), Some(Encoding::Json));
        assert_eq!(encoding("graphql-ws"), None);
    }

    #[test]
    fn a_token_is_found_in_header_subprotocol_and_allowed_query() {
        let from = |pairs: &[(&'static str, &str)], query, allowed| token(&headers(pairs), query, allowed);
        assert_eq!(
            from(&[("authorization", "bearer  a.b.c")], None, false).as_deref(),
            Some("a.b.c")
        );
        assert_eq!(
            from(
                &[("sec-websocket-protocol", "roomcast.v1.json, bearer.a.b")],
                None,
                false
            )
            .as_deref(),
            Some("a.b")
        );
        assert_eq!(from(&[], Some("x=1&token=q"), true).as_deref(), Some("q"));
        assert_eq!(from(&[], Some("token=q"), false), None);
        assert_eq!(from(&[("authorization", "Basic eA==")], None, true), None);
    }
}
