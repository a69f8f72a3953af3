//! Admission of a connection: the address it counts for, and its place.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use super::{ClientPort, address, later, text};
use crate::admission::{Place, Refused};

/// Counts the connection among those of its client's address.
pub(super) fn admit(port: &ClientPort, peer: IpAddr, headers: &HeaderMap) -> Result<Place, Box<Response<Bytes>>> {
    let (config, notices) = (port.config(), &port.notices);
    let header = config.forwarded_header;
    let address = match address::client(peer, headers, &config.trusted_proxies, header) {
        address::Client::At(address) => address,
        address::Client::Proxy(address) => {
            if let Some(count) = notices.proxy_silent.count() {
                let header = header.name();
                tracing::warn!(
                    count,
                    header,
                    "trusted proxy names no client, its connections count as one address"
                );
            }
            address
        }
        // Counted as the proxy's own, it would share one limit with every other client of the proxy.
        address::Client::Unreadable => {
            if let Some(count) = notices.proxy_unreadable.count() {
                tracing::warn!(
                    count,
                    header = header.name(),
                    "forwarded address unreadable, upgrade refused"
                );
            }
            return Err(Box::new(text(
                StatusCode::BAD_REQUEST,
                "the address that the proxy has forwarded cannot be read",
            )));
        }
    };
    port.admit(address).map_err(|refused| {
        if refused == Refused::AddressFull
            && let Some(count) = notices.address_full.count()
        {
            tracing::warn!(count, "address has too many connections, upgrade refused");
        }
        Box::new(not_admitted(refused))
    })
}

fn not_admitted(refused: Refused) -> Response<Bytes> {
    match refused {
        Refused::NodeFull => later(StatusCode::SERVICE_UNAVAILABLE, "the node is full"),
        Refused::AddressFull | Refused::UserFull => {
            later(StatusCode::TOO_MANY_REQUESTS, "too many connections from this address")
        }
    }
}
