//! Addresses of clients, behind proxies that may be believed.
//!
//! An IPv4 address has several spellings: `10.0.0.1`, `::ffff:10.0.0.1`, with a port, in brackets. They are one address here,
//! whichever side of a comparison they stand on.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use http::HeaderMap;

use crate::url;

/// The bits that precede an IPv4 address in its IPv6 form (RFC 4291 section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// A range of addresses, `10.0.0.0/8` or `::1`. An IPv4 range and the same range in IPv6 form are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// In IPv6 form.
    base: u128,
    bits: u8,
}

/// The text is neither an address nor an address with a prefix length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not an address range such as `10.0.0.0/8`", url::shown(.0))]
pub struct NetworkError(String);

impl Network {
    /// Reports whether the range holds an address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.bits == 0 || (self.base ^ bits_of(address)) >> (128 - u32::from(self.bits)) == 0
    }
}

/// The bits of an address in IPv6 form.
fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = || NetworkError(text.to_owned());
        let (base, bits) = text
            .trim()
            .split_once('/')
            .map_or((text.trim(), None), |(base, bits)| (base, Some(bits)));
        let base: IpAddr = base.parse().map_err(|_| error())?;
        let (before, max) = if base.is_ipv4() { (MAPPED_BITS, 32) } else { (0, 128) };
        let bits = bits.map_or(Ok(max), str::parse).map_err(|_| error())?;
        if bits > max {
            return Err(error());
        }
        Ok(Self {
            base: bits_of(base),
            bits: before + bits,
        })
    }
}

/// The header in which a trusted proxy names the client. One only: a proxy that writes the one passes the other on as the
/// client has sent it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, a list of addresses.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), of which `for` is read.
    Forwarded,
}

impl ForwardedHeader {
    /// The header's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
    }

    /// The hops that the header names, the last one first; `None` stands for one that cannot be read.
    fn hops(self, headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
        let lines = headers.get_all(self.name()).iter().rev();
        lines
            .flat_map(|line| elements(line.as_bytes()).into_iter().rev())
            .map(move |element| {
                let element = std::str::from_utf8(element).ok()?;
                match self {
                    Self::XForwardedFor => read(element),
                    Self::Forwarded => read(forwarded_for(element)?),
                }
            })
    }
}

/// The elements of a list, without those that are empty (RFC 9110 section 5.6.1).
fn elements(line: &[u8]) -> Vec<&[u8]> {
    let elements = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    elements.filter(|element| !element.is_empty()).collect()
}

/// The value of `for` among the pairs of one hop (RFC 7239 section 4). No quoted value that names an address holds a comma
/// or a semicolon.
fn forwarded_for(hop: &str) -> Option<&str> {
    let mut pairs = hop.split(';').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
        .map(|(_, value)| value)
}

/// Reads an address as proxies write it: bare or in brackets, with or without a port, quoted or not, with a zone or
/// without. `unknown` and obfuscated names are no addresses.
fn read(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?.trim(),
        None => text,
    };
    let address = if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let is_readable = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        IpAddr::V6(is_readable.then(|| without_zone(address))??)
    } else if let Ok(address) = text.parse() {
        address
    } else if let Some((address, port)) = text.split_once(':')
        && is_port(port)
    {
        IpAddr::V4(address.parse().ok()?)
    } else {
        IpAddr::V6(without_zone(text)?)
    };
    Some(address.to_canonical())
}

/// Reads an IPv6 address, whose zone says nothing to anybody else than its proxy (RFC 4007 section 11).
fn without_zone(text: &str) -> Option<Ipv6Addr> {
    match text.split_once('%') {
        Some((_, "")) => None,
        Some((address, _)) => address.parse().ok(),
        None => text.parse().ok(),
    }
}

/// A port, also one that is obfuscated (RFC 7239 section 6).
fn is_port(text: &str) -> bool {
    let is_obfuscated = |name: &str| {
        let mut bytes = name.bytes();
        !name.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    text.strip_prefix('_').map_or_else(|| is_number(text), is_obfuscated)
}

/// The origin of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    /// From this address.
    At(IpAddr),
    /// From a trusted proxy's own address, which has not said for whom. It may be a client itself: a probe, a test.
    Proxy(IpAddr),
    /// A trusted proxy has named it in a way that cannot be read.
    Unreadable,
}

/// The client's address: the peer's, or, where the peer is a trusted proxy, the last forwarded address that is not itself
/// a trusted proxy's.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Network], header: ForwardedHeader) -> Client {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return Client::At(client);
    }
    let mut hops = header.hops(headers).peekable();
    if hops.peek().is_none() {
        return Client::Proxy(client);
    }
    for hop in hops {
        let Some(address) = hop else {
            return Client::Unreadable;
        };
        client = address;
        if !is_trusted(client) {
            break;
        }
    }
    Client::At(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_in(header: ForwardedHeader, peer: &str, lines: &[&str], trusted: &[&str]) -> Client {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header.name(), line.parse().unwrap());
        }
        let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &headers, &trusted, header)
    }

    fn client_of(peer: &str, lines: &[&str], trusted: &[&str]) -> Client {
        client_in(ForwardedHeader::XForwardedFor, peer, lines, trusted)
    }

    fn at(address: &str) -> Client {
        Client::At(address.parse().unwrap())
    }

    #[test]
    fn a_forwarded_address_counts_only_from_a_trusted_proxy() {
        assert_eq!(client_of("9.9.9.9", &["1.2.3.4"], &[]), at("9.9.9.9"));
        assert_eq!(client_of("9.9.9.9", &["1.2.3.4"], &["10.0.0.0/8"]), at("9.9.9.9"));
        assert_eq!(client_of("10.1.1.1", &["1.2.3.4"], &["10.0.0.0/8"]), at("1.2.3.4"));
        assert_eq!(client_of("::1", &["2001:db8::1"], &["::1"]), at("2001:db8::1"));
    }

    #[test]
    fn what_a_client_has_put_in_front_is_not_believed() {
        let trusted = &["10.0.0.0/8"];
        assert_eq!(
            client_of("10.1.1.1", &["6.6.6.6, 1.2.3.4", "10.2.2.2"], trusted),
            at("1.2.3.4")
        );
        assert_eq!(client_of("10.1.1.1", &["junk, 1.2.3.4"], trusted), at("1.2.3.4"));
        assert_eq!(client_of("10.1.1.1", &["10.3.3.3, 10.2.2.2"], trusted), at("10.3.3.3"));
    }

    #[test]
    fn an_address_is_read_in_every_spelling_of_proxies() {
        for (written, address) in [
            ("1.2.3.4", "1.2.3.4"),
            ("1.2.3.4:4711", "1.2.3.4"),
            (" 1.2.3.4\t", "1.2.3.4"),
            ("\"1.2.3.4:4711\"", "1.2.3.4"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("[::ffff:1.2.3.4]:4711", "1.2.3.4"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:DB8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]:_hidden", "2001:db8::1"),
            ("\"1.2.3.4:_h-1\"", "1.2.3.4"),
            ("\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:4711", "fe80::1"),
        ] {
            let trusted = &["10.0.0.0/8"];
            assert_eq!(client_of("10.1.1.1", &[written], trusted), at(address), "{written}");
            for pairs in [
                format!("for={written}"),
                format!("proto=https;For={written};by=10.1.1.1"),
                format!("for=6.6.6.6, , for={written} ;host=x"),
            ] {
                let client = client_in(ForwardedHeader::Forwarded, "10.1.1.1", &[&pairs], trusted);
                assert_eq!(client, at(address), "{pairs}");
            }
        }
    }

    #[test]
    fn a_client_that_cannot_be_read_is_not_taken_for_its_proxy() {
        let trusted = &["10.0.0.0/8"];
        for written in [
            "unknown",
            "_hidden",
            "junk",
            "1.2.3",
            "1.2.3.4.5",
            "[1.2.3.4",
            "[1.2.3.4]",
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]x",
            "[2001:db8::1]:",
            "[2001:db8::1]:65536",
            "[2001:db8::1]:+1",
            "fe80::1%",
            "1.2.3.4:65536",
            "\"1.2.3.4",
            "1.2.3.4\"",
            "\"",
            "1.2.3.4 5",
            "unix:",
        ] {
            assert_eq!(
                client_of("10.1.1.1", &[written], trusted),
                Client::Unreadable,
                "{written}"
            );
        }
        for pairs in ["for=unknown", "proto=https", "for=\"_x\"", "1.2.3.4"] {
            let client = client_in(ForwardedHeader::Forwarded, "10.1.1.1", &[pairs], trusted);
            assert_eq!(client, Client::Unreadable, "{pairs}");
        }
        let proxy = Client::Proxy("10.1.1.1".parse().unwrap());
        for silent in [&[][..], &[""], &[" , "]] {
            assert_eq!(client_of("10.1.1.1", silent, trusted), proxy, "{silent:?}");
        }
        // The other header is the client's own word.
        assert_eq!(client_in(ForwardedHeader::Forwarded, "10.1.1.1", &[], trusted), proxy);
    }

    #[test]
    fn a_range_holds_an_address_in_either_form() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.1.2.3", "11.0.0.0"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.0.0.0"),
            ("10.1.2.3/8", "10.0.0.0", "11.0.0.0"),
            ("1.2.3.4", "1.2.3.4", "1.2.3.5"),
            ("::ffff:1.2.3.4", "1.2.3.4", "1.2.3.5"),
            ("0.0.0.0/0", "255.1.2.3", "2001:db8::1"),
            ("::ffff:0:0/96", "255.1.2.3", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:1::", "2001:db9::"),
        ] {
            let network: Network = range.parse().unwrap();
            let (inside, outside): (IpAddr, IpAddr) = (inside.parse().unwrap(), outside.parse().unwrap());
            assert!(network.contains(inside) && !network.contains(outside), "{range}");
            if let IpAddr::V4(inside) = inside {
                assert!(network.contains(inside.to_ipv6_mapped().into()), "{range}");
                let mapped = format!("::ffff:{inside}");
                assert_eq!(client_of(&mapped, &["9.9.9.9"], &[range]), at("9.9.9.9"), "{range}");
            }
        }
        let all: Network = "::/0".parse().unwrap();
        assert!(all.contains("1.2.3.4".parse().unwrap()) && all.contains("::1".parse().unwrap()));
    }

    #[test]
    fn wrong_ranges_are_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "::1/129",
            "10.0.0/8",
            "a/8",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "10.0.0.0/8/8",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
