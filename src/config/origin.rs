//! Origins of pages, as browsers send them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::url;

/// An origin, `scheme://host[:port]`, in the spelling of browsers: only that is ever equal to a sent one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin(String);

/// A text that is no origin, or not in the spelling of browsers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OriginError {
    text: String,
    /// The spelling of browsers, where it is known.
    meant: Option<String>,
}

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = url::shown(&self.text);
        match &self.meant {
            Some(meant) => write!(f, "`{text}` is never sent; browsers send `{meant}`"),
            None => write!(f, "`{text}` is not scheme://host[:port] as browsers send it"),
        }
    }
}

impl Origin {
    /// Parses an origin that browsers may send (RFC 6454 section 6.2, and "ASCII serialization" in WHATWG HTML).
    pub(super) fn parse(text: &str) -> Result<Self, OriginError> {
        match canonical(text) {
            Some(canonical) if canonical == text => Ok(Self(canonical)),
            meant => Err(OriginError {
                text: text.to_owned(),
                meant,
            }),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns the origin of an address, in lower case and without a default port.
fn canonical(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok().filter(|_| is_digits(port))?),
        _ => (authority, 0),
    };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
    let host = canonical_host(host).filter(|_| is_scheme)?;
    match (scheme, port) {
        (_, 0) | ("http" | "ws", 80) | ("https" | "wss", 443) => Some(format!("{scheme}://{host}")),
        _ => Some(format!("{scheme}://{host}:{port}")),
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A name, which is ASCII (browsers write others in Punycode), or an address as browsers spell it.
fn canonical_host(host: &str) -> Option<String> {
    if let Some(address) = host.strip_prefix('[') {
        let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{}]", in_hexadecimal(address)));
    }
    let is_name = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    if host.is_empty() || !host.bytes().all(is_name) {
        return None;
    }
    // Browsers take a host that ends in a number for an IPv4 address, whatever stands before (WHATWG URL, "host parser").
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let is_number = is_digits(last) || last.starts_with("0x");
    if is_number && host.parse::<Ipv4Addr>().is_err() {
        return None;
    }
    Some(host.to_owned())
}

/// Browsers write no part of an IPv6 address as an IPv4 address (WHATWG URL, "IPv6 serializer").
fn in_hexadecimal(address: Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => format!("::ffff:{high:x}:{low:x}"),
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_taken_as_browsers_spell_it_only() {
        for text in [
            "https://app.example",
            "https://app.example:8443",
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "http://[::1]:3000",
            "http://[::1]",
            "http://[::ffff:a00:1]",
            "http://10.example",
            "https://app.example.",
            "https://xn--bcher-kva.example",
            "http://app.example:443",
            "capacitor://localhost",
            "chrome-extension://abcdefghijklmnop",
        ] {
            assert_eq!(Origin::parse(text).unwrap().as_str(), text);
        }
        for (text, meant) in [
            ("https://app.example/", "https://app.example"),
            ("https://app.example/chat?x#y", "https://app.example"),
            ("https://app.example:443", "https://app.example"),
            ("http://app.example:80", "http://app.example"),
            ("http://app.example:080", "http://app.example"),
            ("https://app.example:08443", "https://app.example:8443"),
            (" https://app.example", "https://app.example"),
            ("https://app.example\t", "https://app.example"),
            ("HTTPS://App.Example", "https://app.example"),
            ("http://[0:0:0:0:0:0:0:1]:80", "http://[::1]"),
            ("http://[2001:DB8::1]", "http://[2001:db8::1]"),
            ("http://[::ffff:10.0.0.1]", "http://[::ffff:a00:1]"),
        ] {
            let error = Origin::parse(text).unwrap_err().to_string();
            assert!(error.ends_with(&format!("browsers send `{meant}`")), "{error}");
        }
        for text in [
            "",
            "*",
            "null",
            "app.example",
            "//app.example",
            "https://",
            "https://*.app.example",
            "https://app example",
            "https://user@app.example",
            "https://app.example:",
            "https://app.example:99999",
            "https://app.example:+1",
            "https://[app]",
            "http://127.1",
            "http://0x7f.0.0.1",
            "http://010.0.0.1",
            "http://10.0.0.1.",
            "https://b\u{fc}cher.example",
            "1://app.example",
        ] {
            let error = Origin::parse(text).unwrap_err().to_string();
            assert!(error.contains("scheme://host"), "{text}: {error}");
        }
    }
}
