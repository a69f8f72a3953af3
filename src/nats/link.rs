//! One managed connection of a node, and its state. After a move it uses another connection of the library.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::client::SubscribeError;
use async_nats::connection::State;
use async_nats::{Client, Event};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, watch};

use super::subscription::{Move, Registry};
use super::{Subscription, self_test};

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The connection is established.
    pub connected: bool,
    /// Changes with every event of the connection. A lossy hint; see [`ManagedConnection::connects`].
    pub events: u64,
    /// The server has announced that it will end soon ("lame duck mode").
    pub lame_duck: bool,
}

/// A connection of the library, which reconnects by itself.
#[derive(Debug)]
pub(super) struct LibraryConnection {
    pub client: Client,
    pub standing: watch::Receiver<Standing>,
    pub number: u64,
}

impl LibraryConnection {
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.client.connection_state(), State::Connected)
    }

    pub(super) fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }
}

/// The reported state of the line in use, whichever that is.
#[derive(Debug)]
pub(super) struct ReportedState {
    standing: watch::Sender<Standing>,
    /// The number of the line in use.
    current: AtomicU64,
    lines: AtomicU64,
    /// The number of operations refused for want of a permission, over all lines.
    refusals: AtomicU64,
}

impl ReportedState {
    pub(super) fn new() -> Arc<Self> {
        let standing = Standing {
            connected: true,
            events: 0,
            lame_duck: false,
        };
        Arc::new(Self {
            standing: watch::channel(standing).0,
            current: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
        })
    }

    /// Assigns a number to the next line; the first one is in use.
    pub(super) fn next_line(&self) -> u64 {
        self.lines.fetch_add(1, Ordering::SeqCst)
    }

    /// Takes an event of a line; returns whether that line is in use.
    pub(super) fn tell(&self, line: u64, own: &watch::Sender<Standing>, event: &Event) -> bool {
        // Counted for every line: the account is the same, and an unused line may still owe an answer.
        if let Event::ServerError(error) = event
            && self_test::is_refusal(&error.to_string())
        {
            self.refusals.fetch_add(1, Ordering::Relaxed);
        }
        own.send_modify(|standing| {
            standing.events += 1;
            match event {
                Event::Connected => {
                    standing.connected = true;
                    standing.lame_duck = false;
                }
                Event::Disconnected | Event::Closed => standing.connected = false,
                Event::LameDuckMode => standing.lame_duck = true,
                Event::Draining | Event::SlowConsumer(_) | Event::ServerError(_) | Event::ClientError(_) => {}
            }
        });
        let is_current = self.current.load(Ordering::SeqCst) == line;
        if is_current {
            self.take_over(&own.borrow());
        }
        is_current
    }

    fn take_over(&self, of_line: &Standing) {
        self.standing.send_modify(|standing| {
            *standing = Standing {
                events: standing.events + 1,
                ..*of_line
            };
        });
    }
}

/// The line in use.
#[derive(Debug, Clone)]
struct Current {
    line: Arc<LibraryConnection>,
    /// The move that brought it into use.
    moved: Option<Arc<Move>>,
    /// The offset added to the line's own count, so that [`ManagedConnection::connects`] continues over moves.
    before: u64,
}

/// One connection to NATS that reconnects by itself, and can move to another server without a break.
#[derive(Debug)]
pub struct ManagedConnection {
    name: &'static str,
    current: watch::Sender<Current>,
    told: Arc<ReportedState>,
    registry: Arc<Registry>,
    /// Held for writing during the last step of a move, while a publish or a subscription would fall between the
    /// connections.
    order: RwLock<()>,
}

impl ManagedConnection {
    pub(super) fn new(name: &'static str, line: LibraryConnection, told: Arc<ReportedState>) -> Self {
        let current = Current {
            line: Arc::new(line),
            moved: None,
            before: 0,
        };
        Self {
            name,
            current: watch::channel(current).0,
            told,
            registry: Arc::default(),
            order: RwLock::new(()),
        }
    }

    /// Returns the purpose of the link.
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the connection in use. Its requests are still answered for some time after a move. For a publish that
    /// must not overtake an earlier one use [`Self::in_order`] instead.
    #[must_use]
    pub fn client(&self) -> Client {
        self.line().client.clone()
    }

    pub(super) fn line(&self) -> Arc<LibraryConnection> {
        Arc::clone(&self.current.borrow().line)
    }

    pub(super) fn told(&self) -> &Arc<ReportedState> {
        &self.told
    }

    /// Pins the current connection while the guard is held. Waits for a move that is about to end: some milliseconds, a
    /// quarter of a second at the most. Hold it only until the publish is submitted.
    pub async fn in_order(&self) -> InOrder<'_> {
        let turn = self.order.read().await;
        InOrder {
            line: self.line(),
            _turn: turn,
        }
    }

    /// Subscribes to a subject. The subscription survives moves of the link.
    ///
    /// # Errors
    /// When the connection is closed, or the subject is invalid.
    pub async fn subscribe(&self, subject: String) -> Result<Subscription, SubscribeError> {
        let current = self.in_order().await;
        let messages = current.line.client.subscribe(subject.clone()).await?;
        Ok(self.registry.register(&subject, messages, current.line.number))
    }

    /// Returns the number of operations that the server has refused for want of a permission.
    pub(super) fn refusals(&self) -> u64 {
        self.told.refusals.load(Ordering::Relaxed)
    }

    /// Returns a watch of the connection's state.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.told.standing.subscribe()
    }

    /// Returns a receiver of the link's moves.
    #[must_use]
    pub fn moves(&self) -> Moves {
        Moves(self.current.subscribe())
    }

    /// Reports whether the connection is established, as far as the library knows.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.line().is_connected()
    }

    /// Returns the number of times the connection was made. A changed number means that something may have been missed
    /// in between. It is exact, unlike events, of which the library drops some. A move in which nothing was missed does
    /// not count.
    #[must_use]
    pub fn connects(&self) -> u64 {
        let current = self.current.borrow();
        current.before.wrapping_add(current.line.connects())
    }

    /// Returns the number of the line in use, unique among the link's lines.
    pub(crate) fn line_number(&self) -> u64 {
        self.current.borrow().line.number
    }

    /// Returns the line in use if it is this one and every subscription reads from it alone.
    pub(super) fn settled_line(&self, number: u64) -> Option<Arc<LibraryConnection>> {
        let current = self.current.borrow();
        let alone = |moved: &Arc<Move>| Arc::strong_count(moved) == 1;
        let is_settled = current.line.number == number && current.moved.as_ref().is_none_or(alone);
        is_settled.then(|| Arc::clone(&current.line))
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Holds publishes and subscriptions, so that none falls between the connections.
    pub(super) async fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.order.write().await
    }

    /// Switches to another line. `is_whole` says that nothing is missed. Call it while [`Self::hold`] holds.
    pub(super) fn change_over(&self, line: &Arc<LibraryConnection>, its_move: &Arc<Move>, is_whole: bool) {
        let connects = self.connects().wrapping_add(u64::from(!is_whole));
        let current = Current {
            before: connects.wrapping_sub(line.connects()),
            line: Arc::clone(line),
            moved: Some(Arc::clone(its_move)),
        };
        // The number goes before the state is taken over: an event in between is then reported, not lost.
        self.told.current.store(line.number, Ordering::SeqCst);
        its_move.settle();
        self.current.send_replace(current);
        self.told.take_over(&line.standing.borrow());
        self.registry.wake_all();
    }
}

/// A guard that pins the connection in use.
#[derive(Debug)]
pub struct InOrder<'a> {
    line: Arc<LibraryConnection>,
    _turn: RwLockReadGuard<'a, ()>,
}

impl InOrder<'_> {
    /// Returns the connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.line.client
    }
}

/// Reports moves of a link.
#[derive(Debug)]
pub struct Moves(watch::Receiver<Current>);

impl Moves {
    /// Waits for the next move of the link; for ever when the link is gone.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
