//! Effects: what has to wait for somebody else (an authorizer, a backend, a bus) runs as a future, and its completion comes
//! back to the one who started it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;

/// What an effect comes back with.
pub(super) type Completion<S> = Box<dyn FnOnce(&mut S)>;

/// The effects that wait.
pub(super) struct Effects<S>(FuturesUnordered<LocalBoxFuture<'static, Completion<S>>>);

impl<S> Default for Effects<S> {
    fn default() -> Self {
        Self(FuturesUnordered::new())
    }
}

impl<S: 'static> Effects<S> {
    /// Starts an effect. One that need not wait is complete at once.
    pub fn start<C: FnOnce(&mut S) + 'static>(
        &mut self,
        effect: impl Future<Output = C> + 'static,
    ) -> Option<Completion<S>> {
        let mut effect: LocalBoxFuture<'static, Completion<S>> =
            Box::pin(async move { Box::new(effect.await) as Completion<S> });
        match Pin::new(&mut effect).poll(&mut Context::from_waker(Waker::noop())) {
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
