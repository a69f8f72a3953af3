//! Waits at the start for a NATS that is not ready yet: unreachable, without a leader, or still restoring its streams.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::NatsError;

/// The pause between two attempts. No fact to wait for: a server that is not there notifies nobody.
const PAUSE: Duration = Duration::from_millis(500);

/// The interval between log lines while the node waits.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Repeats an attempt until it succeeds, fails for a reason that does not go away by itself, or `within` has passed.
///
/// # Errors
/// The failure of the attempt; [`NatsError::NotReady`] when time is over.
pub async fn patiently<T>(
    within: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, NatsError>,
) -> Result<T, NatsError> {
    let began = Instant::now();
    let mut reported: Option<Instant> = None;
    loop {
        let error = match attempt().await {
            Ok(done) => {
                if reported.is_some() {
                    tracing::info!("nats ready");
                }
                return Ok(done);
            }
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error),
        };
        let waited = began.elapsed();
        if waited + PAUSE >= within {
            return Err(NatsError::NotReady {
                waited: within,
                last: Box::new(error),
            });
        }
        if reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
            reported = Some(Instant::now());
            let left_s = within.saturating_sub(waited).as_secs();
            tracing::warn!(%error, left_s, "nats not ready, waiting");
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(60);

    fn not_ready() -> NatsError {
        NatsError::JetStream("no leader".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_waited_for() {
        let began = Instant::now();
        let ready = patiently(WITHIN, async || match began.elapsed().as_secs() {
            0..20 => Err(not_ready()),
            _ => Ok("ready"),
        });
        assert_eq!(ready.await.unwrap(), "ready");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_ends_at_once() {
        let began = Instant::now();
        let refused = patiently::<()>(WITHIN, async || Err(NatsError::Permission("publish".to_owned())));
        assert!(matches!(refused.await, Err(NatsError::Permission(_))));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_ends_with_the_last_reason_and_the_setting() {
        let error = patiently::<()>(WITHIN, async || Err(not_ready())).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "nats: JetStream: no leader; not ready within nats.start_timeout (1m)"
        );
    }
}
