//! The protocol of a request, by its head alone: gRPC, gRPC-Web, the HTTP mirror, or one that is not served here.
//!
//! A request of another protocol must not be executed as gRPC: its caller would misread the reply.

use http::header::{ALLOW, CONTENT_TYPE, HeaderName, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use tonic::body::Body;

use super::http::refused;
use super::status::Refusal;
use crate::headers::names_one_host;

/// Header of a browser's preflight (WHATWG Fetch, "CORS-preflight request").
const PREFLIGHT: HeaderName = HeaderName::from_static("access-control-request-method");

/// The content types of gRPC-Web, as tonic-web reads them.
const GRPC_WEB: [&[u8]; 4] = [
    b"application/grpc-web",
    b"application/grpc-web+proto",
    b"application/grpc-web-text",
    b"application/grpc-web-text+proto",
];

/// The reply to a protocol that is not served here.
type Refused = Box<Response<Body>>;

/// The protocol of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// gRPC, not from a browser.
    Grpc,
    /// Requests for the layers of browsers and the mirror: gRPC-Web, gRPC from a browser, the mirror's paths, preflights.
    Other,
}

impl Protocol {
    /// Returns the protocol of a request, or the reply when it is not served here.
    pub(super) fn of<B>(request: &Request<B>) -> Result<Self, Refused> {
        let (headers, path, method) = (request.headers(), request.uri().path(), request.method());
        if !names_one_host(request.version(), headers) {
            let refusal = Refusal::field("host", "has to be there once, and readable");
            return Err(Box::new(refused(StatusCode::BAD_REQUEST, refusal)));
        }
        let is_preflight = method == Method::OPTIONS && headers.contains_key(PREFLIGHT);
        if path.starts_with("/v1/") || is_preflight {
            return Ok(Self::Other);
        }
        let kind = Kind::of(headers);
        if kind == Kind::Unknown && path.split('/').count() != 3 {
            return Err(unsupported(StatusCode::NOT_FOUND, "path").into());
        }
        if method != Method::POST {
            let mut answer = unsupported(StatusCode::METHOD_NOT_ALLOWED, "http method");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Err(answer.into());
        }
        match kind {
            Kind::Unknown => Err(unsupported(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content type").into()),
            Kind::Grpc if request.version() < Version::HTTP_2 => {
                Err(unsupported(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "grpc over http/1").into())
            }
            Kind::Grpc if !headers.contains_key(ORIGIN) => Ok(Self::Grpc),
            Kind::Grpc | Kind::GrpcWeb => Ok(Self::Other),
        }
    }
}

fn unsupported(status: StatusCode, feature: &'static str) -> Response<Body> {
    refused(status, Refusal::Unimplemented(feature))
}

/// Protocol of the body, by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Grpc,
    GrpcWeb,
    Unknown,
}

impl Kind {
    /// Parses `application/grpc`, the encoding after `+`, parameters after `;` (gRPC over HTTP/2, "Requests"). The only
    /// encoding here is protobuf.
    fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if GRPC_WEB.contains(&kind) {
            return Self::GrpcWeb;
        }
        let rest = kind.strip_prefix(b"application/grpc");
        let rest = rest.map(|rest| rest.strip_prefix(b"+proto").unwrap_or(rest));
        match rest {
            Some([] | [b';', ..]) => Self::Grpc,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: Version, method: &str, path: &str, headers: &[(&'static str, &str)]) -> Result<Protocol, u16> {
        let mut request = Request::builder().version(version).method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Protocol::of(&request.body(()).unwrap()).map_err(|answer| answer.status().as_u16())
    }

    #[test]
    fn only_what_is_grpc_is_taken_for_it() {
        let publish = "/roomcast.v1.PublishService/Publish";
        let speaks = |kind: &str, origin: bool| {
            let headers = [("content-type", kind), ("origin", "https://app.example")];
            of(Version::HTTP_2, "POST", publish, &headers[..=usize::from(origin)])
        };
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;charset=utf-8",
            "application/grpc+proto; x=y",
        ] {
            assert_eq!(speaks(kind, false), Ok(Protocol::Grpc), "{kind}");
            assert_eq!(speaks(kind, true), Ok(Protocol::Other), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc-web-text+proto"] {
            assert_eq!(speaks(kind, true), Ok(Protocol::Other), "{kind}");
        }
        for kind in [
            "application/json",
            "application/grpcx",
            "application/grpc+json",
            "application/grpc-web+json",
            "text/plain",
            "",
        ] {
            assert_eq!(speaks(kind, false), Err(415), "{kind}");
        }
    }

    #[test]
    fn what_is_not_spoken_is_told_why() {
        let grpc = ("content-type", "application/grpc");
        let host = ("host", "x");
        let publish = "/roomcast.v1.PublishService/Publish";
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for (version, method, path, headers, expected) in [
            (two, "GET", publish, &[grpc][..], Err(405)),
            (two, "GET", publish, &[], Err(405)),
            (two, "OPTIONS", publish, &[], Err(405)),
            (one, "POST", publish, &[grpc, host], Err(505)),
            (one, "POST", publish, &[grpc], Err(400)),
            (one, "POST", publish, &[grpc, host, host], Err(400)),
            (two, "GET", "/", &[], Err(404)),
            (two, "POST", "/a/b/c", &[], Err(404)),
            (one, "PUT", "/v1/publish", &[host], Ok(Protocol::Other)),
            (
                one,
                "OPTIONS",
                publish,
                &[host, ("access-control-request-method", "POST")],
                Ok(Protocol::Other),
            ),
        ] {
            assert_eq!(
                of(version, method, path, headers),
                expected,
                "{version:?} {method} {path}"
            );
        }
    }
}
