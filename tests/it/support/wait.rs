//! Waiting for facts.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long anything may take. Generous: it is only ever reached by a failing test, or on a machine with other worries.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What `future` comes to, if it does in time.
pub async fn within<T>(what: impl Display, future: impl Future<Output = T>) -> T {
    let done = timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("waited {} s for {what}", PATIENCE.as_secs()))
}

/// Asks until there is an answer. For facts that nobody pushes.
pub async fn eventually<T, F>(what: impl Display, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "asked for {} s, in vain, for {what}",
            PATIENCE.as_secs()
        );
        sleep(Duration::from_millis(5)).await;
    }
}
