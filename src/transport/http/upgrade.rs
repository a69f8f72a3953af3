//! From an HTTP request to a WebSocket (RFC 6455 section 4.2): what is checked before the protocol changes.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::route::{Access, Answer, Call, HandOver, Route};
use super::text;
use super::token::{TOKEN_SUBPROTOCOL, offered};
use crate::headers::list_holds;
use crate::session::ProtocolId;
use crate::transport::protocol::Protocols;

/// The path of the upgrade.
const PATH: &str = "/v1/ws";

/// The route of WebSockets.
pub(super) fn route() -> Route {
    Route::new([Method::GET], PATH, |call: Call| std::future::ready(answer(&call))).access(Access::Listed)
}

fn answer(call: &Call) -> Answer {
    match check(call.protocols(), &call.request) {
        Ok((protocol, head)) => Answer::Session(HandOver {
            head,
            protocol,
            token: call.token(),
            opening: Vec::new(),
            engine: None,
        }),
        Err(refusal) => Answer::Response(*refusal),
    }
}

pub(in crate::transport) type Refused = Box<Response<Bytes>>;

fn bad_request(why: &'static str) -> Refused {
    Box::new(text(StatusCode::BAD_REQUEST, why))
}

/// Checks the handshake (RFC 6455 section 4.2.1) and makes its answer, in which a known subprotocol is chosen.
fn check(protocols: &Protocols, request: &Request<Bytes>) -> Result<(ProtocolId, Response<()>), Refused> {
    let mut response = accept(request)?;
    let protocol = subprotocol(protocols, request.headers()).map_err(bad_request)?;
    if let Some(protocol) = protocol {
        let name = HeaderValue::from_static(protocols.get(protocol).name());
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok((protocol.unwrap_or(ProtocolId::DEFAULT), response))
}

/// Checks the handshake and makes its answer, without a subprotocol.
///
/// # Errors
/// The refusal.
pub(in crate::transport) fn accept(request: &Request<Bytes>) -> Result<Response<()>, Refused> {
    let headers = request.headers();
    let mut versions = headers.get_all(header::SEC_WEBSOCKET_VERSION).iter().peekable();
    let is_spoken = versions.peek().is_some() && versions.all(|version| version.as_bytes() == b"13");
    if !list_holds(headers, header::UPGRADE, "websocket") || !is_spoken {
        return Err(Box::new(upgrade_required()));
    }
    if request.version() != Version::HTTP_11 || !list_holds(headers, header::CONNECTION, "upgrade") {
        return Err(bad_request("not a WebSocket handshake (RFC 6455 section 4.2.1)"));
    }
    if headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
        return Err(bad_request("more than one Authorization"));
    }
    let key = key(headers).ok_or_else(|| bad_request("Sec-WebSocket-Key is not 16 bytes in base64"))?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::try_from(derive_accept_key(key)).expect("base64 is visible ASCII");
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

fn upgrade_required() -> Response<Bytes> {
    let mut response = text(StatusCode::UPGRADE_REQUIRED, "a WebSocket of version 13 is spoken here");
    let headers = response.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::http::testing::headers;

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
}
