//! Unread replies: bounded for each connection and in all, and in time.
//!
//! HTTP/2 lets a caller send requests without reading (a window of zero), and so does TCP. A call whose reply may be large
//! waits until the unread bytes of its connection, and of all, leave room for the largest reply. Then only the reply's own
//! bytes count, for as long as anything holds them: the permits ride in the bytes. A reply that is unread a while after the
//! call's deadline ends its connection: a healthy caller has ended the call by itself then.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;

use super::listener::Connection;
use super::status::Refusal;

use crate::sync::lock;

/// Room reserved for a large reply: pages have at most 1 MiB of content, and the rest of a reply is less than as much
/// again.
pub(super) const ANSWER_BYTES_MAX: u32 = 2 << 20;

/// Time after its deadline for which a reply may be unread: the caller's own cancellation may be in flight.
const GRACE: Duration = Duration::from_secs(2);

/// The unread replies of a listener.
#[derive(Debug)]
pub(super) struct Unread {
    all: Arc<Semaphore>,
    #[cfg(test)]
    bytes_max: usize,
    tasks: TaskTracker,
}

/// One reply's share of both bounds.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Permits of the connection, and of all.
    permits: Mutex<[OwnedSemaphorePermit; 2]>,
    connection: Arc<Connection>,
    deadline: Instant,
    tasks: TaskTracker,
}

impl Unread {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(bytes_max)),
            #[cfg(test)]
            bytes_max,
            tasks: TaskTracker::new(),
        }
    }

    /// Waits for the allowance of a reply to a call that ends at `deadline`.
    pub(super) async fn allowance(
        &self,
        connection: &Arc<Connection>,
        deadline: Instant,
    ) -> Result<Arc<Allowance>, Refusal> {
        // The connection's own first: one that does not read waits for itself, and holds no permits that others need.
        let own = Arc::clone(connection.unread())
            .acquire_many_owned(ANSWER_BYTES_MAX)
            .await;
        let all = Arc::clone(&self.all).acquire_many_owned(ANSWER_BYTES_MAX).await;
        let (Ok(own), Ok(all)) = (own, all) else {
            return Err(Refusal::Internal);
        };
        Ok(Arc::new(Allowance {
            permits: Mutex::new([own, all]),
            connection: Arc::clone(connection),
            deadline,
            tasks: self.tasks.clone(),
        }))
    }

    /// Returns the bytes that are unread or may become so.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes_max - self.all.available_permits()
    }
}

impl Allowance {
    /// Releases the permits that a reply of this size does not need.
    fn shrink(&self, bytes: usize) {
        let mut permits = lock(&self.permits);
        for permit in permits.iter_mut() {
            drop(permit.split(permit.num_permits().saturating_sub(bytes)));
        }
    }
}

/// The bytes of a reply, with their permits.
struct Held {
    bytes: Bytes,
    _allowance: Arc<Allowance>,
    _gone: DropGuard,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Counts a reply as unread until its last byte is dropped, if it has an allowance.
pub(super) async fn count(mut response: Response<Body>) -> Response<Body> {
    let Some(allowance) = response.extensions_mut().remove::<Arc<Allowance>>() else {
        return response;
    };
    let (parts, body) = response.into_parts();
    let Ok(collected) = body.collect().await else {
        return Status::from(Refusal::Internal).into_http();
    };
    let trailers = collected.trailers().cloned();
    let bytes = collected.to_bytes();
    allowance.shrink(bytes.len());
    let content = if bytes.is_empty() {
        bytes
    } else {
        hold(bytes, allowance)
    };
    Response::from_parts(
        parts,
        Body::new(Answer {
            content: Some(content).filter(|content| !content.is_empty()),
            trailers,
        }),
    )
}

fn hold(bytes: Bytes, allowance: Arc<Allowance>) -> Bytes {
    let (gone, overdue) = (CancellationToken::new(), allowance.deadline + GRACE);
    let (connection, unread) = (Arc::clone(&allowance.connection), gone.clone());
    let tasks = allowance.tasks.clone();
    tasks.spawn(async move {
        let wait = tokio::time::sleep_until(overdue);
        if unread.run_until_cancelled(wait).await.is_some() {
            tracing::warn!("caller too slow to read its response, connection closed");
            connection.end();
        }
    });
    Bytes::from_owner(Held {
        bytes,
        _allowance: allowance,
        _gone: gone.drop_guard(),
    })
}

/// A complete reply.
struct Answer {
    content: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let content = self.content.take().map(Frame::data);
        Poll::Ready(content.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.content.as_ref().map_or(0, Bytes::len) as u64)
    }
}
