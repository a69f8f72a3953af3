//! Rules of HTTP for header fields in general, for every port that uses HTTP.

use http::header::{AsHeaderName, HOST};
use http::uri::Authority;
use http::{HeaderMap, Version};

/// Reports whether a header that is a list names a token, in any case. Several lines are one list, and blanks and tabs
/// around its commas are ignored (RFC 9110 sections 5.3 and 5.6.1).
pub fn list_holds(headers: &HeaderMap, name: impl AsHeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).into_iter();
    let mut elements = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    elements.any(|element| element.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Reports whether a request names its host once and readably, as HTTP/1.1 demands (RFC 9112 section 3.2). Otherwise
/// two servers on a request's way may each assume another host. Later versions use `:authority` for it.
#[must_use]
pub fn names_one_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).into_iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version != Version::HTTP_11,
        (Some(host), None) => host.is_empty() || Authority::try_from(host.as_bytes()).is_ok(),
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_over_all_its_lines() {
        let holds = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("connection", line.parse().unwrap());
            }
            list_holds(&headers, "connection", "upgrade")
        };
        for lines in [
            &["Upgrade"][..],
            &["keep-alive, Upgrade"],
            &["keep-alive,\tupgrade ,x"],
            &["keep-alive", "Upgrade"],
            &["Upgrade", "keep-alive"],
            &[", ,upgrade"],
        ] {
            assert!(holds(lines), "{lines:?}");
        }
        for lines in [
            &[][..],
            &[""],
            &["upgrade2"],
            &["keep-alive upgrade"],
            &["x-upgrade", "up", "grade"],
        ] {
            assert!(!holds(lines), "{lines:?}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let named = |version, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(HOST, line.parse().unwrap());
            }
            names_one_host(version, &headers)
        };
        for lines in [&["a.example"][..], &["a.example:80"], &["[::1]:80"], &[""]] {
            assert!(named(Version::HTTP_11, lines), "{lines:?}");
        }
        for lines in [&[][..], &["a", "a"], &["a", "b"], &["a b"], &["a/b"], &["a,b c"]] {
            assert!(!named(Version::HTTP_11, lines), "{lines:?}");
        }
        assert!(named(Version::HTTP_10, &[]) && named(Version::HTTP_2, &[]));
        assert!(!named(Version::HTTP_2, &["a", "b"]));
    }
}
