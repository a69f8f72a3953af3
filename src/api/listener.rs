//! Accepted connections on their way to HTTP/2: bounded in number, and closed when they stay silent or their TLS
//! handshake takes too long.

pub(super) mod tls;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use self::tls::Acceptor;
use super::config::Config;

/// What has to arrive in time: the length of the HTTP/2 preface (RFC 9113 section 3.4).
const FIRST_BYTES: usize = 24;

/// How long accepting rests after the system refused it (no descriptors, no memory).
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// The connections of a listener. While as many are open as may be, none is accepted: the system's backlog waits.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Option<Acceptor>,
    config: &Config,
) -> impl Stream<Item = io::Result<Guarded>> + use<> {
    let places = Arc::new(Semaphore::new(config.connections_max));
    let timeout = config.first_bytes_timeout;
    let accepted = stream::unfold((listener, places), |(listener, places)| async move {
        let place = places.clone().acquire_owned().await.ok()?;
        let stream = accept(&listener).await;
        Some(((stream, place), (listener, places)))
    });
    // Handshakes run beside each other, so that a slow one holds up nobody.
    let opened = accepted.map(move |(stream, place)| open(stream, place, tls.clone(), timeout));
    opened
        .buffer_unordered(config.connections_max)
        .filter_map(std::future::ready)
        .map(Ok)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(error = %error.kind(), "accept failed");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn open(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    tls: Option<Acceptor>,
    timeout: Duration,
) -> Option<Guarded> {
    // A call is small: waiting to fill a packet costs more than it saves.
    let _ = stream.set_nodelay(true);
    let socket = match tls {
        None => Socket::Plain(stream),
        // Who fails here is no caller yet; there is nobody to tell.
        Some(tls) => Socket::Tls(Box::new(
            tokio::time::timeout(timeout, tls.accept(stream)).await.ok()?.ok()?,
        )),
    };
    Some(Guarded {
        socket,
        silence: Some(Silence {
            missing: FIRST_BYTES,
            over: Box::pin(tokio::time::sleep(timeout)),
        }),
        _place: place,
    })
}

/// The certificates a peer has shown, its own first; verified by the handshake.
#[derive(Clone)]
pub(super) struct Peer(pub(super) Option<Arc<[CertificateDer<'static>]>>);

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that has to say something before its time is over.
pub(super) struct Guarded {
    socket: Socket,
    silence: Option<Silence>,
    _place: OwnedSemaphorePermit,
}

struct Silence {
    missing: usize,
    over: Pin<Box<Sleep>>,
}

impl Connected for Guarded {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(match &self.socket {
            Socket::Plain(_) => None,
            Socket::Tls(stream) => stream.get_ref().1.peer_certificates().map(Arc::from),
        })
    }
}

/// Calls a method of whichever socket it is.
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
        if read.is_pending() {
            return silence
                .over
                .as_mut()
                .poll(cx)
                .map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        silence.missing = silence.missing.saturating_sub(buf.filled().len() - before);
        if silence.missing == 0 {
            self.silence = None;
        }
        read
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
