//! Single-flight: one request for all concurrent callers.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// A single-flight gate. One caller sends the request, and every caller that arrived before it was sent shares the
/// result. No caller gets the result of a request sent before its call, so everything that happened before the call is
/// in the result.
#[derive(Debug)]
pub(super) struct SingleFlight<T> {
    asked: AtomicU64,
    answered: Mutex<(u64, Option<T>)>,
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self {
            asked: AtomicU64::new(0),
            answered: Mutex::new((0, None)),
        }
    }
}

impl<T: Clone> SingleFlight<T> {
    /// Returns the result of a request that is sent after this call.
    ///
    /// # Cancel safety
    /// When the caller that sends the request is dropped, the next one sends its own.
    pub(super) async fn pass(&self, ask: impl AsyncFnOnce() -> T) -> T {
        let before = self.asked.load(Ordering::SeqCst);
        let mut answered = self.answered.lock().await;
        if let (number, Some(answer)) = &*answered
            && *number > before
        {
            return answer.clone();
        }
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = ask().await;
        *answered = (number, Some(answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn many_who_come_at_once_share_the_second_question() {
        let (gate, asked) = (SingleFlight::default(), AtomicU32::new(0));
        let passing = (0..1000).map(|_| {
            gate.pass(async || {
                tokio::task::yield_now().await;
                asked.fetch_add(1, Ordering::SeqCst)
            })
        });
        let answers = join_all(passing).await;
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert_eq!(answers.iter().filter(|answer| **answer == 1).count(), 999);
    }

    #[tokio::test]
    async fn nobody_gets_an_answer_from_before() {
        let (gate, truth) = (SingleFlight::default(), AtomicU32::new(1));
        assert_eq!(gate.pass(async || truth.load(Ordering::SeqCst)).await, 1);
        truth.store(2, Ordering::SeqCst);
        assert_eq!(gate.pass(async || truth.load(Ordering::SeqCst)).await, 2);
    }
}
