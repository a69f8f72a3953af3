//! From an HTTP request to a WebSocket (RFC 6455 section 4.2): what is checked before the protocol changes.

use std::net::IpAddr;
use std::sync::Mutex;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Body, ClientPort, Origins, address, later, text};
use crate::admission::{Place, Refused as NotAdmitted};
use crate::headers::list_holds;
use crate::session::ProtocolId;
use crate::transport::protocol::Protocols;

/// Announces a token among the subprotocols: `bearer.<token>`. Browsers cannot set headers.
const TOKEN_SUBPROTOCOL: &str = "bearer.";

/// An upgrade under way.
pub(super) struct Upgrading {
    pub protocol: ProtocolId,
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
    let has_body = !body.is_end_stream();
    drop(body);
    let mut request = Request::from_parts(parts, ());
    let checked = check(port, &request, has_body)
        .and_then(|(protocol, response)| Ok((protocol, response, admit(port, peer, request.headers())?)));
    let (protocol, response, place) = match checked {
        Ok(checked) => checked,
        Err(refusal) => return *refusal,
    };
    let token = token(request.headers(), request.uri().query(), port.config().token_in_query);
    let Some(on_upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        port.dismiss(place);
        return text(StatusCode::BAD_REQUEST, "this connection cannot be upgraded");
    };
    slot.put(Upgrading {
        protocol,
        token,
        place,
        on_upgrade,
    });
    response
}

type Refused = Box<Response<Body>>;

fn bad_request(why: &'static str) -> Refused {
    Box::new(text(StatusCode::BAD_REQUEST, why))
}

/// Checks the handshake (RFC 6455 section 4.2.1) and makes its answer.
fn check(port: &ClientPort, request: &Request<()>, has_body: bool) -> Result<(ProtocolId, Response<Body>), Refused> {
    let headers = request.headers();
    // Before anything else: a foreign page learns nothing, not even whether its upgrade was well-formed.
    if !origin_allowed(&port.config().origins, headers) {
        return Err(Box::new(text(StatusCode::FORBIDDEN, "this origin may not connect")));
    }
    let mut versions = headers.get_all(header::SEC_WEBSOCKET_VERSION).iter().peekable();
    let is_spoken = versions.peek().is_some() && versions.all(|version| version.as_bytes() == b"13");
    if !list_holds(headers, header::UPGRADE, "websocket") || !is_spoken {
        return Err(Box::new(upgrade_required()));
    }
    if request.version() != Version::HTTP_11 || !list_holds(headers, header::CONNECTION, "upgrade") {
        return Err(bad_request("not a WebSocket handshake (RFC 6455 section 4.2.1)"));
    }
    if has_body {
        return Err(bad_request("an upgrade carries no body"));
    }
    if headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
        return Err(bad_request("more than one Authorization"));
    }
    let key = key(headers).ok_or_else(|| bad_request("Sec-WebSocket-Key is not 16 bytes in base64"))?;
    let protocol = subprotocol(port.protocols(), headers).map_err(bad_request)?;
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::try_from(derive_accept_key(key)).expect("base64 is visible ASCII");
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        let name = HeaderValue::from_static(port.protocols().get(protocol).name());
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok((protocol.unwrap_or(ProtocolId::DEFAULT), response))
}

/// Counts the connection among those of its client's address.
fn admit(port: &ClientPort, peer: IpAddr, headers: &HeaderMap) -> Result<Place, Refused> {
    let (config, notices) = (port.config(), &port.notices);
    let header = config.forwarded_header;
    let address = match address::client(peer, headers, &config.trusted_proxies, header) {
        address::Client::At(address) => address,
        address::Client::Proxy(address) => {
            if let Some(count) = notices.proxy_silent.count() {
                let header = header.name();
                tracing::warn!(
                    count,
                    header,
                    "trusted proxy names no client, its connections count as one address"
                );
            }
            address
        }
        // Counted as the proxy's own, it would share one limit with every other client of the proxy.
        address::Client::Unreadable => {
            if let Some(count) = notices.proxy_unreadable.count() {
                tracing::warn!(
                    count,
                    header = header.name(),
                    "forwarded address unreadable, upgrade refused"
                );
            }
            return Err(bad_request("the address that the proxy has forwarded cannot be read"));
        }
    };
    port.admit(address).map_err(|refused| {
        if refused == NotAdmitted::AddressFull
            && let Some(count) = notices.address_full.count()
        {
            tracing::warn!(count, "address has too many connections, upgrade refused");
        }
        Box::new(not_admitted(refused))
    })
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

/// The one key of the handshake, if it stands for 16 bytes. Bits beyond them count for nothing, and the key is only
/// echoed: RFC 6455 section 4.1 prints one in which they are set.
fn key(headers: &HeaderMap) -> Option<&[u8]> {
    use base64::Engine as _;
    use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return None;
    };
    let key = key.as_bytes();
    LENIENT.decode(key).is_ok_and(|key| key.len() == 16).then_some(key)
}

/// What the client offers as subprotocols, a token included.
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let names = lines
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim);
    names.filter(|name| !name.is_empty())
}

/// The first offered subprotocol that is known; `None` where nothing is offered.
fn subprotocol(protocols: &Protocols, headers: &HeaderMap) -> Result<Option<ProtocolId>, &'static str> {
    let mut names = offered(headers)
        .filter(|name| !name.starts_with(TOKEN_SUBPROTOCOL))
        .peekable();
    if names.peek().is_some() {
        return match names.find_map(|name| protocols.by_subprotocol(name)) {
            None => Err("none of the subprotocols is known"),
            known => Ok(known),
        };
    }
    // Browsers drop a connection whose answer names none of what they offered, and a token is not to be echoed.
    match offered(headers).next() {
        None => Ok(None),
        Some(_) => Err("offer `roomcast.v1.json` or `roomcast.v1.protobuf` beside the token"),
    }
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
    if let Some(token) = offered(headers).find_map(|name| name.strip_prefix(TOKEN_SUBPROTOCOL)) {
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
        let protocols = crate::transport::native::protocols();
        let spoken = |offer| subprotocol(&protocols, &headers(&[("sec-websocket-protocol", offer)]));
        assert_eq!(
            spoken("roomcast.v1.protobuf, roomcast.v1.json"),
            Ok(protocols.find("roomcast.v1.protobuf"))
        );
        assert_eq!(spoken("x, roomcast.v1.json"), Ok(Some(ProtocolId::DEFAULT)));
        assert_eq!(spoken("bearer.abc,\troomcast.v1.json"), Ok(Some(ProtocolId::DEFAULT)));
        assert_eq!(spoken(""), Ok(None));
        assert!(spoken("bearer.abc").is_err() && spoken("graphql-ws").is_err());
    }

    #[test]
    fn a_key_is_sixteen_bytes_whatever_follows_them() {
        let is_key = |text| key(&headers(&[("sec-websocket-key", text)])).is_some();
        // The second stands in RFC 6455 section 4.1.
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ==") && is_key("AQIDBAUGBwgJCgsMDQ4PEC=="));
        for text in ["", "c2hvcnQ=", "AQIDBAUGBwgJCgsMDQ4PECA=", "not base64, but it has 24"] {
            assert!(!is_key(text), "{text}");
        }
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
