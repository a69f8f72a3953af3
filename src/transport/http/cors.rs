//! Cross-origin requests: checks origins and answers preflights (Fetch standard, CORS protocol).
//!
//! An origin is named back exactly, never as `*`: answers are given to requests with credentials. So an answer differs by
//! origin, and `Vary` says so to caches.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::route::{Access, Route};
use super::{Origins, text};

/// The time a browser may cache a preflight, in seconds. Chromium keeps none longer than two hours; a list of origins that was
/// changed holds after ten minutes.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("600");

/// Compares whole origins, byte for byte: no suffixes, no `null`.
pub(super) fn origin_allowed(origins: &Origins, headers: &HeaderMap) -> bool {
    let mut given = headers.get_all(header::ORIGIN).iter();
    match (origins, given.next(), given.next()) {
        (Origins::Any, _, _) | (_, None, _) => true,
        (Origins::Listed(listed), Some(origin), None) => listed.iter().any(|own| own.as_bytes() == origin.as_bytes()),
        (Origins::Listed(_), Some(_), Some(_)) => false,
    }
}

/// Refuses a page that may not use a route. It learns nothing, not even whether its request was well-formed.
pub(super) fn refusal(route: &Route, origins: &Origins, headers: &HeaderMap) -> Option<Response<Bytes>> {
    if route.access == Access::Public || origin_allowed(origins, headers) {
        return None;
    }
    let mut response = text(StatusCode::FORBIDDEN, "this origin may not connect");
    vary(route, response.headers_mut());
    Some(response)
}

/// Lets an allowed page read the answer.
pub(super) fn share(route: &Route, asked: &HeaderMap, response: &mut HeaderMap) {
    if !route.access.is_shared() {
        return;
    }
    vary(route, response);
    if let Some(origin) = asked.get(header::ORIGIN) {
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.insert(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
}

/// Answers `OPTIONS` for a shared route; `None` for others, to which it is a method as any.
pub(super) fn options(route: &Route, origins: &Origins, asked: &HeaderMap) -> Option<Response<Bytes>> {
    let allowed = match &route.access {
        Access::Shared { headers } => listed(headers.iter().copied()),
        Access::SharedAnyHeader => asked
            .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
            .cloned()
            .unwrap_or_else(|| HeaderValue::from_static("")),
        Access::Public | Access::Listed => return None,
    };
    let refusal = refusal(route, origins, asked);
    if refusal.is_some() {
        return refusal;
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, methods(route));
    share(route, asked, headers);
    if asked.contains_key(header::ORIGIN) && asked.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            listed(route.methods.iter().map(Method::as_str)),
        );
        if !allowed.is_empty() {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE);
    }
    Some(response)
}

/// The methods of a route, for `Allow`.
pub(super) fn methods(route: &Route) -> HeaderValue {
    let options = route.access.is_shared().then_some("OPTIONS");
    listed(route.methods.iter().map(Method::as_str).chain(options))
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> HeaderValue {
    let names: Vec<&str> = names.collect();
    HeaderValue::try_from(names.join(", ")).expect("methods and header names are visible ASCII")
}

fn vary(route: &Route, headers: &mut HeaderMap) {
    if route.access.is_shared() {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::http::testing::headers;

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
}
