//! What all peers share: how they are started, how they end, and how they are told to publish.
//!
//! A peer is started as `peer [--port 0] [--control-port 0]`, binds 127.0.0.1, prints one line of JSON that says where it
//! listens, and ends when its standard input closes or on SIGTERM. `benches/README.md` has the whole interface.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process, thread,
};

use socket2::{Domain, Socket, Type};

pub mod control;

/// Connections the kernel completes before the peer accepts them. The kernel's own default maximum.
const BACKLOG: i32 = 4096;

/// The ports a peer was told to listen on; 0 lets the kernel choose.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Where members connect.
    pub members: u16,
    /// Where the load generator says what to publish.
    pub control: u16,
}

impl Ports {
    /// Reads `[--port N] [--control-port N]`.
    ///
    /// # Errors
    ///
    /// Says which argument was not understood.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut ports = Self::default();
        while let Some(name) = arguments.next() {
            let port = match name.as_str() {
                "--port" => &mut ports.members,
                "--control-port" => &mut ports.control,
                _ => {
                    return Err(format!(
                        "no such option: {name}. There are --port N and --control-port N"
                    ));
                }
            };
            let value = arguments.next().unwrap_or_default();
            *port = value.parse().map_err(|_| format!("{name} needs a port number"))?;
        }
        Ok(ports)
    }

    /// Those of this process; ends it if they cannot be understood.
    #[must_use]
    pub fn of_process() -> Self {
        Self::parse(std::env::args().skip(1)).unwrap_or_else(|error| {
            eprintln!("error: {error}");
            process::exit(2)
        })
    }
}

/// Listens on a port of 127.0.0.1, non-blocking, with room for many who connect at once.
///
/// # Errors
///
/// The kernel's, when the port is taken.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Says where the peer listens, in the one line that is waited for, and ends the process once standard input closes.
///
/// # Errors
///
/// The kernel's, when an address cannot be asked for or nobody reads the line.
pub fn announce_rooms(path: &str, members: &TcpListener, control: &TcpListener) -> io::Result<()> {
    announce(&format!(
        r#"{{"url":"ws://{}{path}","control":"{}"}}"#,
        members.local_addr()?,
        control.local_addr()?
    ))
}

/// Prints the line and ends the process once standard input closes.
///
/// # Errors
///
/// The kernel's, when nobody reads the line.
pub fn announce(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    thread::spawn(|| {
        let mut scratch = [0; 64];
        while io::stdin().read(&mut scratch).is_ok_and(|read| read > 0) {}
        process::exit(0);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Ports, String> {
        Ports::parse(arguments.iter().map(ToString::to_string))
    }

    #[test]
    fn ports_default_to_the_kernels_choice() {
        assert_eq!(parse(&[]), Ok(Ports::default()));
        let both = Ports { members: 1, control: 2 };
        assert_eq!(parse(&["--control-port", "2", "--port", "1"]), Ok(both));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert!(parse(&["--speed"]).unwrap_err().contains("--speed"));
        assert!(parse(&["--port"]).unwrap_err().contains("--port"));
        assert!(parse(&["--port", "70000"]).unwrap_err().contains("--port"));
    }
}
