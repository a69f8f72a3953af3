//! The form in which an address may be shown: in an error, in a log line, in a printed configuration.

/// Stands for what is not shown.
const HIDDEN: &str = "(secret)";

/// Returns an address without what may be a secret: user and password, query and fragment.
///
/// It need not be a valid one. Where it cannot be said which part is which, all but the scheme is hidden.
#[must_use]
pub fn shown(address: &str) -> String {
    let (scheme, rest) = match address.find("://") {
        Some(at) => address.split_at(at + "://".len()),
        None => ("", address),
    };
    let (place, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    // A password may hold these marks, too.
    if query.contains('@') {
        return format!("{scheme}{HIDDEN}");
    }
    let (credentials, place) = match place.rsplit_once('@') {
        Some((_, place)) => (format!("{HIDDEN}@"), place),
        None => (String::new(), place),
    };
    let query = query
        .chars()
        .next()
        .map_or_else(String::new, |mark| format!("{mark}{HIDDEN}"));
    format!("{scheme}{credentials}{place}{query}")
}

/// Reports whether a text begins like an address with a scheme (RFC 3986 section 3.1).
#[must_use]
pub fn has_scheme(text: &str) -> bool {
    let scheme = text.trim_start().split_once("://").map_or("", |(scheme, _)| scheme);
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    !scheme.is_empty() && scheme.bytes().all(letters)
}

/// Reports whether an address holds a user or a password (RFC 3986 section 3.2.1).
#[must_use]
pub fn has_credentials(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_password_query_and_fragment_are_not_shown() {
        for (address, expected) in [
            ("https://app.example:8443/keys", "https://app.example:8443/keys"),
            ("nats://[::1]:4222", "nats://[::1]:4222"),
            ("", ""),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("https://ada:s3cret@app.example/x", "https://(secret)@app.example/x"),
            ("https://s3cret@app.example", "https://(secret)@app.example"),
            ("https://ada:s3@cret@app.example", "https://(secret)@app.example"),
            ("https://ada:s3/cret@app.example", "https://(secret)@app.example"),
            ("https://ada:s3?cret@app.example", "https://(secret)"),
            ("https://ada:s3#cret@app.example", "https://(secret)"),
            ("ada:s3cret@app.example:4222", "(secret)@app.example:4222"),
            ("https://app.example/?key=s3cret", "https://app.example/?(secret)"),
            ("https://app.example#s3cret", "https://app.example#(secret)"),
            ("https://app.example/?key=s3@cret", "https://(secret)"),
            ("https:// ada:s3 cret@app.example", "https://(secret)@app.example"),
        ] {
            assert_eq!(shown(address), expected, "{address}");
            assert!(
                !shown(address).contains("cret@") && !shown(address).contains("s3"),
                "{address}"
            );
        }
    }

    #[test]
    fn an_address_is_told_from_another_text() {
        assert!(has_scheme("https://x") && has_scheme(" nats://x") && has_scheme("h2+c-1.x://"));
        assert!(!has_scheme("claims.iss == \"https://x\"") && !has_scheme("://x") && !has_scheme("x"));
        assert!(has_credentials("https://a@x") && has_credentials("a:b@x") && !has_credentials("https://x/@a"));
    }
}
