//! Source and target addresses of members.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// The number of members that share a source address on the loopback network: below the gateway's default limit per address,
/// and below the number of ports of an address.
const MEMBERS_PER_SOURCE: u32 = 150;

/// Begins to connect.
pub(super) fn dial(address: SocketAddr, number: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source(address, number) {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if !is_under_way(&error) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

fn is_under_way(error: &io::Error) -> bool {
    // Rust has no stable kind for EINPROGRESS.
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("in progress")
}

/// On Linux the whole of 127.0.0.0/8 is the loopback network.
fn source(address: SocketAddr, number: u32) -> Option<Ipv4Addr> {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_loopback() && cfg!(target_os = "linux") => {
            let host = number / MEMBERS_PER_SOURCE;
            Some(Ipv4Addr::from_bits(
                Ipv4Addr::LOCALHOST.to_bits() + (host / 250) * 256 + host % 250,
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_members_come_from_many_addresses_of_the_loopback_network() {
        let gateway = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let from = |number| source(gateway, number).map(|ip| ip.to_string());
        if cfg!(target_os = "linux") {
            assert_eq!(from(149).as_deref(), Some("127.0.0.1"));
            assert_eq!(from(150).as_deref(), Some("127.0.0.2"));
            assert_eq!(from(99_999).as_deref(), Some("127.0.2.167"));
        }
        assert_eq!(source(SocketAddr::from(([10, 0, 0, 1], 1)), 0), None);
    }
}
