//! Accepted connections on their way to HTTP/2: bounded in number, and closed when they stay silent.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::config::Config;

/// What has to arrive in time: the length of the HTTP/2 preface (RFC 9113 section 3.4). A TLS hello is longer.
const FIRST_BYTES: usize = 24;

/// How long accepting rests after the system refused it (no descriptors, no memory).
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// The connections of a listener. While as many are open as may be, none is accepted: the system's backlog waits.
pub(super) fn incoming(listener: TcpListener, config: &Config) -> impl Stream<Item = io::Result<Guarded>> + use<> {
    let places = Arc::new(Semaphore::new(config.connections_max));
    let timeout = config.first_bytes_timeout;
    stream::unfold(listener, move |listener| {
        let places = places.clone();
        async move {
            let place = places.acquire_owned().await.ok()?;
            let (stream, address) = accept(&listener).await;
            // A call is small: waiting to fill a packet costs more than it saves.
            let _ = stream.set_nodelay(true);
            Some((Ok(Guarded::new(stream, address, timeout, place)), listener))
        }
    })
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(error = %error.kind(), "accept failed");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// A connection that has to say something before its time is over.
pub(super) struct Guarded {
    stream: TcpStream,
    address: SocketAddr,
    silence: Option<Silence>,
    _place: OwnedSemaphorePermit,
}

struct Silence {
    missing: usize,
    over: Pin<Box<Sleep>>,
}

impl Guarded {
    fn new(stream: TcpStream, address: SocketAddr, timeout: Duration, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            address,
            silence: Some(Silence {
                missing: FIRST_BYTES,
                over: Box::pin(tokio::time::sleep(timeout)),
            }),
            _place: place,
        }
    }
}

impl Connected for Guarded {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo {
            local_addr: self.stream.local_addr().ok(),
            remote_addr: Some(self.address),
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
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
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
