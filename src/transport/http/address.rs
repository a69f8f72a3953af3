//! Where a client comes from, behind proxies that may be believed.

use std::net::IpAddr;
use std::str::FromStr;

use http::HeaderMap;

/// A range of addresses, `10.0.0.0/8` or `::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

/// The text is neither an address nor an address with a prefix length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address range such as `10.0.0.0/8`")]
pub struct NetworkError(String);

impl Network {
    /// Whether the range holds an address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => same_prefix(
                u128::from(base.to_bits()) << 96,
                u128::from(address.to_bits()) << 96,
                self.bits,
            ),
            (IpAddr::V6(base), IpAddr::V6(address)) => same_prefix(base.to_bits(), address.to_bits(), self.bits),
            _ => false,
        }
    }
}

/// Whether two addresses, written from the highest bit on, share their first bits.
const fn same_prefix(one: u128, other: u128, bits: u8) -> bool {
    bits == 0 || (one ^ other) >> (128 - bits as u32) == 0
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let error = || NetworkError(text.to_owned());
        let (base, bits) = text
            .split_once('/')
            .map_or((text, None), |(base, bits)| (base, Some(bits)));
        let base: IpAddr = base.parse().map_err(|_| error())?;
        let max = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(max), str::parse).map_err(|_| error())?;
        if bits > max {
            Err(error())
        } else {
            Ok(Self { base, bits })
        }
    }
}

/// The client's address: the peer's, or, where the peer is a trusted proxy, the last forwarded address that is not itself
/// a trusted proxy's.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    let forwarded: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let mut hops = forwarded
        .iter()
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .collect::<Vec<_>>();
    while is_trusted(client) {
        match hops.pop().map(str::parse::<IpAddr>) {
            Some(Ok(address)) => client = address.to_canonical(),
            Some(Err(_)) | None => break,
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_of(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_forwarded_address_counts_only_from_a_trusted_proxy() {
        assert_eq!(client_of("9.9.9.9", &["1.2.3.4"], &[]), "9.9.9.9");
        assert_eq!(client_of("9.9.9.9", &["1.2.3.4"], &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(client_of("10.1.1.1", &["1.2.3.4"], &["10.0.0.0/8"]), "1.2.3.4");
        assert_eq!(client_of("::ffff:10.1.1.1", &["1.2.3.4"], &["10.0.0.0/8"]), "1.2.3.4");
    }

    #[test]
    fn what_a_client_has_put_in_front_is_not_believed() {
        assert_eq!(
            client_of("10.1.1.1", &["6.6.6.6, 1.2.3.4", "10.2.2.2"], &["10.0.0.0/8"]),
            "1.2.3.4"
        );
        assert_eq!(client_of("10.1.1.1", &["junk"], &["10.0.0.0/8"]), "10.1.1.1");
        assert_eq!(client_of("::1", &["2001:db8::1"], &["::1"]), "2001:db8::1");
    }

    #[test]
    fn wrong_ranges_are_refused() {
        for text in ["", "10.0.0.0/33", "::1/129", "10.0.0/8", "a/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        assert!(
            "0.0.0.0/0"
                .parse::<Network>()
                .unwrap()
                .contains("1.2.3.4".parse().unwrap())
        );
    }
}
