//! The token of a request, wherever it stands.

use http::{HeaderMap, header};

use super::Origins;

/// Announces a token among the subprotocols: `bearer.<token>`. Browsers cannot set headers.
pub(super) const TOKEN_SUBPROTOCOL: &str = "bearer.";

/// Lists the offered subprotocols, a token included.
pub(super) fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let names = lines
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim);
    names.filter(|name| !name.is_empty())
}

/// The token, from the header, the subprotocols or, where allowed, the query.
pub(super) fn token(headers: &HeaderMap, query: Option<&str>, in_query: bool) -> Option<String> {
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

/// The value of a cookie, where it can stand for its user.
pub(super) fn cookie<'h>(origins: &Origins, headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    if *origins == Origins::Any || is_hidden_from_origins(headers) {
        return None;
    }
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .filter(|(own, _)| *own == name)
        .map(|(_, value)| value.trim_matches('"'))
        .next()
}

/// Reports whether a browser says that the request is another site's, and does not say whose: an image, or a link (Fetch
/// Metadata). A page's own requests name no origin either, but are of the same one.
fn is_hidden_from_origins(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site");
    !headers.contains_key(header::ORIGIN) && site.is_some_and(|site| site != "same-origin")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::http::testing::headers;

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

    #[test]
    fn a_cookie_counts_only_from_pages_that_are_listed_or_the_ports_own() {
        let listed = Origins::Listed(vec!["https://app.example".to_owned()]);
        let found = |origins: &Origins, pairs: &[(&'static str, &str)]| {
            cookie(origins, &headers(pairs), "session").map(str::to_owned)
        };
        let sent = ("cookie", "a=b; session=x=y ; session=z");
        assert_eq!(found(&listed, &[sent]).as_deref(), Some("x=y"));
        assert_eq!(
            found(
                &listed,
                &[("cookie", "session=\"q\""), ("sec-fetch-site", "same-origin")]
            )
            .as_deref(),
            Some("q")
        );
        let cross = [sent, ("sec-fetch-site", "cross-site")];
        assert_eq!(found(&listed, &cross), None);
        let named = [
            sent,
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://app.example"),
        ];
        assert_eq!(found(&listed, &named).as_deref(), Some("x=y"));
        assert_eq!(found(&Origins::Any, &[sent]), None);
        assert_eq!(found(&listed, &[("cookie", "sessions=x; session")]), None);
    }
}
