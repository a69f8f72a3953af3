//! The parameters of a request, and the errors of one that does not fit.

use bytes::Bytes;
use http::{Method, Response, StatusCode};

use super::route::respond;
use super::sid::Sid;

/// An error of a handshake or of a request, by its code (Engine.IO protocol; reference server, `Server.errors`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EngineError {
    UnknownTransport = 0,
    UnknownSid = 1,
    BadMethod = 2,
    BadRequest = 3,
    UnsupportedVersion = 5,
}

impl EngineError {
    const fn message(self) -> &'static str {
        match self {
            Self::UnknownTransport => "Transport unknown",
            Self::UnknownSid => "Session ID unknown",
            Self::BadMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::UnsupportedVersion => "Unsupported protocol version",
        }
    }

    /// The refusal.
    pub(super) fn response(self) -> Response<Bytes> {
        let body = format!(r#"{{"code":{},"message":"{}"}}"#, self as u8, self.message());
        respond(StatusCode::BAD_REQUEST, "application/json", body)
    }
}

/// The parameters of a request. Others are the application's, or keep caches away.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query<'q> {
    version: Option<&'q str>,
    transport: Option<&'q str>,
    sid: Option<&'q str>,
}

/// The purpose of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Open,
    Poll(Sid),
    Post(Sid),
    WebSocket(Option<Sid>),
}

impl<'q> Query<'q> {
    /// Reads a query; what it does not know is left.
    pub(super) fn of(query: &'q str) -> Self {
        let mut read = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "EIO" => read.version = Some(value),
                "transport" => read.transport = Some(value),
                "sid" => read.sid = Some(value),
                _ => {}
            }
        }
        read
    }

    /// Reports whether the request is one of a connection, which may be open.
    pub(super) fn names_connection(&self) -> bool {
        self.sid.and_then(Sid::parse).is_some()
    }

    /// Checks the parameters in the order in which the reference does.
    pub(super) fn check(&self, method: &Method) -> Result<Wanted, EngineError> {
        let is_websocket = match self.transport {
            Some("polling") => false,
            Some("websocket") => true,
            _ => return Err(EngineError::UnknownTransport),
        };
        let sid = match self.sid {
            Some(text) => Some(Sid::parse(text).ok_or(EngineError::UnknownSid)?),
            None if method != Method::GET => return Err(EngineError::BadMethod),
            None => None,
        };
        if self.version != Some("4") {
            return Err(EngineError::UnsupportedVersion);
        }
        match (is_websocket, sid, method) {
            (true, sid, &Method::GET) => Ok(Wanted::WebSocket(sid)),
            (false, None, _) => Ok(Wanted::Open),
            (false, Some(sid), &Method::GET) => Ok(Wanted::Poll(sid)),
            (false, Some(sid), &Method::POST) => Ok(Wanted::Post(sid)),
            _ => Err(EngineError::BadRequest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_their_parameters() {
        let sid = Sid::draw(7, 0, 1);
        let check = |query: &str, method: Method| Query::of(&query.replace("SID", &sid.to_string())).check(&method);
        assert_eq!(
            check("EIO=4&transport=polling&t=x&b64=1", Method::GET),
            Ok(Wanted::Open)
        );
        assert_eq!(
            check("EIO=4&transport=polling&sid=SID", Method::GET),
            Ok(Wanted::Poll(sid))
        );
        assert_eq!(
            check("EIO=4&transport=polling&sid=SID", Method::POST),
            Ok(Wanted::Post(sid))
        );
        assert_eq!(
            check("EIO=4&transport=websocket", Method::GET),
            Ok(Wanted::WebSocket(None))
        );
        assert_eq!(
            check("EIO=4&transport=websocket&sid=SID", Method::GET),
            Ok(Wanted::WebSocket(Some(sid)))
        );
        for (query, method, error) in [
            ("", Method::GET, EngineError::UnknownTransport),
            ("EIO=4", Method::GET, EngineError::UnknownTransport),
            ("EIO=4&transport=abc", Method::GET, EngineError::UnknownTransport),
            ("EIO=4&transport=polling&sid=abc", Method::GET, EngineError::UnknownSid),
            ("EIO=4&transport=polling", Method::POST, EngineError::BadMethod),
            ("EIO=4&transport=websocket", Method::POST, EngineError::BadMethod),
            ("EIO=3&transport=polling", Method::GET, EngineError::UnsupportedVersion),
            ("transport=polling", Method::GET, EngineError::UnsupportedVersion),
            (
                "EIO=abc&transport=websocket",
                Method::GET,
                EngineError::UnsupportedVersion,
            ),
            (
                "EIO=4&transport=polling&sid=SID",
                Method::DELETE,
                EngineError::BadRequest,
            ),
            (
                "EIO=4&transport=websocket&sid=SID",
                Method::POST,
                EngineError::BadRequest,
            ),
        ] {
            assert_eq!(check(query, method), Err(error), "{query}");
        }
    }

    #[test]
    fn an_error_is_told_with_its_code() {
        let response = EngineError::UnsupportedVersion.response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(
            response.body(),
            r#"{"code":5,"message":"Unsupported protocol version"}"#
        );
    }
}
