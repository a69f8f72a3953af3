//! A connection's socket with a deadline for its first bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::connection::Connection;
use super::places::Places;

/// Bytes that must arrive in time: the length of the HTTP/2 preface (RFC 9113 section 3.4).
const FIRST_BYTES: usize = 24;

/// A socket, with TLS or without.
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Returns the peer's certificates, its own first.
    pub(super) fn certificates(&self) -> Option<Arc<[CertificateDer<'static>]>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.peer_certificates().map(Arc::from),
        }
    }
}

/// A connection with a deadline for its first bytes. Then it counts as open.
pub(super) struct Guarded {
    socket: Socket,
    silence: Option<SilenceTimeout>,
}

struct SilenceTimeout {
    missing: usize,
    over: Pin<Box<Sleep>>,
    connection: Arc<Connection>,
    places: Arc<Places>,
}

impl Guarded {
    pub(super) fn new(
        socket: Socket,
        connection: Arc<Connection>,
        places: Arc<Places>,
        first_bytes_timeout: Duration,
    ) -> Self {
        Self {
            socket,
            silence: Some(SilenceTimeout {
                missing: FIRST_BYTES,
                over: Box::pin(tokio::time::sleep(first_bytes_timeout)),
                connection,
                places,
            }),
        }
    }
}

/// Calls a method of either socket.
macro_rules! socket {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match &mut $self.socket {
            Socket::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Socket::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = socket!(self.poll_read(cx, buf));
        let Some(silence) = &mut self.silence else {
            return read;
        };
        // Only while nothing is readable: bytes that arrived in time must not lose against the timer.
        if read.is_pending() {
            return silence
                .over
                .as_mut()
                .poll(cx)
                .map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        silence.missing = silence.missing.saturating_sub(buf.filled().len() - before);
        if silence.missing > 0 {
            return read;
        }
        let opened = silence.connection.open(&silence.places);
        if let Err(full) = opened {
            silence.places.note(full);
        }
        self.silence = None;
        match opened {
            Ok(()) => read,
            Err(_) => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        socket!(self.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        socket!(self.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        socket!(self.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        socket!(self.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Plain(stream) => stream.is_write_vectored(),
            Socket::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
