//! The phases of an HTTP connection and their deadlines.
//!
//! Every phase has an end that no byte of the client puts off, so a client that is slow at any stage is cut off:
//!
//! | phase | from | until | bound |
//! |---|---|---|---|
//! | head | the connection, or the first byte after rest | a complete head | `head_timeout` |
//! | request | a complete head | the answer has left for the kernel | the route's deadline |
//! | idle | an answer that has left | the first byte of the next request | `idle_timeout` |

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::admission::Place;
use crate::session::ProtocolId;
use crate::transport::socketio::EngineEntry;

/// A connection whose next bytes are a session's.
#[derive(Debug)]
pub(super) struct Leaving {
    pub protocol: ProtocolId,
    pub token: Option<String>,
    pub place: Place,
    /// The bytes that the carrier gets first.
    pub opening: Vec<u8>,
    pub engine: Option<EngineEntry>,
    /// Set if the bytes behind the request belong to the session. Behind a 101 they do; behind any other answer they would
    /// be another request, which is never answered.
    pub upgraded: bool,
}

/// The phase of one connection. Shared by its bytes, its handler and its clock, which one task runs.
#[derive(Debug)]
pub(super) struct Exchange {
    head_timeout: Duration,
    idle_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    until: Instant,
    requests: u32,
    /// A pipelined request that waits for the answer before it.
    waiting: Option<Waker>,
    leaving: Option<Leaving>,
    /// The place among the connections without a session; none while a request rests.
    place: Option<OwnedSemaphorePermit>,
    standing: Standing,
    /// The first request is there as a whole.
    is_heard: bool,
    /// Another connection has the place; woken when it takes it.
    is_displaced: bool,
    displaced: Option<Waker>,
}

/// The standing of a connection among the new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It counts against the rate of new connections with its first request that begins something.
    Uncounted,
    /// It has counted.
    Counted,
    /// There was no place for it: it is read only to be told so, unless its request goes on with something.
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Handling,
    /// The answer is HTTP's to write.
    Answered,
    Idle,
}

impl Exchange {
    /// A connection that was just accepted, with its place among those without a session.
    pub(super) fn new(
        (head_timeout, idle_timeout): (Duration, Duration),
        place: OwnedSemaphorePermit,
        standing: Standing,
    ) -> Self {
        let state = State {
            phase: Phase::Head,
            until: Instant::now() + head_timeout,
            requests: 0,
            waiting: None,
            leaving: None,
            place: Some(place),
            standing,
            is_heard: false,
            is_displaced: false,
            displaced: None,
        };
        Self {
            head_timeout,
            idle_timeout,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the state")
    }

    /// Waits until the answer before has left, then begins a request; returns how many there were, this one included.
    ///
    /// HTTP would read pipelined requests, and keep their answers, for a client that takes none of them.
    pub(super) async fn begin(&self, deadline: Duration) -> u32 {
        poll_fn(|context| {
            let mut state = self.state();
            if state.phase == Phase::Answered {
                state.waiting = Some(context.waker().clone());
                return Poll::Pending;
            }
            state.phase = Phase::Handling;
            state.until = Instant::now() + deadline;
            state.requests += 1;
            Poll::Ready(state.requests)
        })
        .await
    }

    /// Gives the request under way another deadline.
    pub(super) fn extend(&self, deadline: Duration) {
        self.state().until = Instant::now() + deadline;
    }

    /// Gives the request under way so long, and its connection's place to another one meanwhile.
    pub(super) fn rest(&self, deadline: Duration) {
        self.extend(deadline);
        self.state().place = None;
    }

    /// Takes a place again, if the connection has none, or none but for being told so; returns whether it has one.
    pub(super) fn take_place(&self, places: &Arc<Semaphore>) -> bool {
        let mut state = self.state();
        if state.standing == Standing::Late {
            state.place = None;
        }
        if state.place.is_none() {
            state.place = Arc::clone(places).try_acquire_owned().ok();
        }
        let has_place = state.place.is_some();
        if has_place && state.standing == Standing::Late {
            state.standing = Standing::Uncounted;
        }
        has_place
    }

    /// Counts the connection among the new ones, once; returns whether it may begin something.
    pub(super) fn count(&self, is_in_time: impl FnOnce() -> bool) -> bool {
        let mut state = self.state();
        if state.standing == Standing::Uncounted && is_in_time() {
            state.standing = Standing::Counted;
        }
        state.standing == Standing::Counted
    }

    /// The request is there as a whole.
    pub(super) fn heard(&self) {
        let mut state = self.state();
        state.is_heard = true;
        state.displaced = None;
    }

    /// Reports whether the first request is there as a whole.
    pub(super) fn is_heard(&self) -> bool {
        self.state().is_heard
    }

    /// Takes the place from a connection whose first request is not there yet, and ends it.
    pub(super) fn displace(&self) -> Option<(OwnedSemaphorePermit, Standing)> {
        let mut state = self.state();
        if state.is_heard || state.is_displaced {
            return None;
        }
        let place = state.place.take()?;
        state.is_displaced = true;
        if let Some(waker) = state.displaced.take() {
            waker.wake();
        }
        Some((place, state.standing))
    }

    /// Reports whether another connection has taken the place.
    pub(super) fn is_displaced(&self) -> bool {
        self.state().is_displaced
    }

    /// Reports whether another connection has taken the place; if none has, this task is woken when one does.
    pub(super) fn poll_displaced(&self, context: &Context<'_>) -> bool {
        let mut state = self.state();
        if !state.is_heard && !state.is_displaced {
            state.displaced = Some(context.waker().clone());
        }
        state.is_displaced
    }

    /// The handler is done; what it has answered is to be written.
    pub(super) fn answered(&self) {
        // Also where the request was refused by its head: an answer on its way is not cut off.
        self.heard();
        self.state().phase = Phase::Answered;
    }

    /// Lets the connection go to a shard once the answer has left.
    pub(super) fn leave(&self, leaving: Leaving) {
        self.state().leaving = Some(leaving);
    }

    /// Reports whether the answer before the session has left.
    pub(super) fn has_left(&self) -> bool {
        let state = self.state();
        state.leaving.is_some() && state.phase == Phase::Idle
    }

    /// Takes what [`Self::leave`] was given.
    pub(super) fn take_leaving(&self) -> Option<Leaving> {
        self.state().leaving.take()
    }

    /// Returns the deadline of the phase.
    pub(super) fn until(&self) -> Instant {
        self.state().until
    }

    fn read(&self) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            state.phase = Phase::Head;
            state.until = Instant::now() + self.head_timeout;
        }
    }

    fn flushed(&self) {
        let mut state = self.state();
        if state.phase == Phase::Answered {
            state.phase = Phase::Idle;
            state.until = Instant::now() + self.idle_timeout;
            if let Some(waiting) = state.waiting.take() {
                waiting.wake();
            }
        }
    }
}

/// The bytes of a connection, which tell its exchange what happens. HTTP flushes when nothing of it waits any longer.
#[derive(Debug)]
pub(super) struct Watched {
    pub stream: TcpStream,
    pub exchange: Arc<Exchange>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.exchange.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.exchange.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
