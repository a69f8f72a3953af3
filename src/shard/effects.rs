//! Asynchronous effects of a shard: calls to the authorizer, a backend or the bus run as futures, and their completions
//! take effect on the shard's own thread.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};

/// The continuation of an effect.
pub(super) type Completion<S> = Box<dyn FnOnce(&mut S)>;

/// The effects that wait.
pub(super) struct Effects<S>(FuturesUnordered<LocalBoxFuture<'static, Completion<S>>>);

impl<S> Default for Effects<S> {
    fn default() -> Self {
        Self(FuturesUnordered::new())
    }
}

impl<S: 'static> Effects<S> {
    /// Starts an effect; `complete` makes the completion of what it comes to. One that need not wait is complete at once.
    pub fn start<F: Future + 'static>(
        &mut self,
        effect: F,
        complete: impl FnOnce(F::Output) -> Completion<S> + 'static,
    ) -> Option<Completion<S>> {
        let mut effect = effect.map(complete).boxed_local();
        match effect.poll_unpin(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(completion) => Some(completion),
            Poll::Pending => {
                self.0.push(effect);
                None
            }
        }
    }

    /// The next completion; `None` while no effect waits.
    pub async fn next(&mut self) -> Option<Completion<S>> {
        self.0.next().await
    }
}
