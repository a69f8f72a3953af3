//! Keeping the control log whole: what it has lost is written back by those who know it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{GetStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::stream::Info;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{AGAIN, Log};
use crate::cluster::inventory::{Condition, Reread};
use crate::cluster::ledger::{Record, Restoration, WRITTEN_BACK, Withdrawal};
use crate::policy::RevocationState;
use crate::sync::lock;
use crate::units::millis;

/// The most records that are written back at once: several nodes may do so together, beside ordinary writes.
const WRITES_MAX: usize = 64;

/// Tolerance for records that the servers expire somewhat before or after their age.
const AGE_TOLERANCE: Duration = Duration::from_secs(3600);

/// The state of reading the log from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct Reading {
    /// The number of times it was read from its beginning to its end.
    pub read: u64,
    /// The last of these was because it had lost something.
    pub is_other: bool,
    /// After which of these what was missing had been written back.
    pub settled: u64,
}

/// The state of the log, as a server reports it.
#[derive(Debug, Clone, Copy)]
struct Look {
    condition: Condition,
    bytes: u64,
}

impl Log {
    pub(super) fn condition_of(info: &Info) -> Condition {
        Condition {
            created: u64::try_from(info.created.unix_timestamp_nanos()).unwrap_or_default(),
            last: info.state.last_sequence,
            subjects: info.state.subjects_count,
        }
    }

    /// Records stored before that may have gone by their age.
    pub(super) fn aged_ms(&self) -> u64 {
        let age = self.config.log_age_max.saturating_sub(AGE_TOLERANCE);
        let age_ms = millis(age);
        self.nats.clock().now_ms().saturating_sub(age_ms)
    }

    /// Asks a server for the state; the inner `None` for a log that is not there, the outer when none can be asked.
    async fn condition(&self) -> Option<Option<Look>> {
        match self.nats.jetstream().get_stream(&self.stream).await {
            Ok(stream) => {
                let info = stream.cached_info();
                Some(Some(Look {
                    condition: Self::condition_of(info),
                    bytes: info.state.bytes,
                }))
            }
            Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(_)) => Some(None),
            Err(_) => None,
        }
    }

    fn is_whole(&self, look: Option<Look>) -> bool {
        look.is_some_and(|look| self.inventory().is_whole(look.condition, self.aged_ms()))
    }

    /// Looks again and again whether the log has room and has lost nothing, until `stop`.
    pub(in super::super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.config.look_interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            if self.nats.control().is_connected() {
                stop.run_until_cancelled(self.look()).await;
            }
        }
    }

    async fn look(&self) {
        let Some(look) = self.condition().await else { return };
        let is_full = look.is_some_and(|look| look.bytes > self.config.log_bytes_max / 10 * 9);
        if is_full && !self.is_full.swap(is_full, Ordering::Relaxed) {
            tracing::error!("control log full, revocations refused");
        }
        self.is_full.store(is_full, Ordering::Relaxed);
        if !self.is_whole(look) {
            self.suspect.notify_one();
        }
    }

    /// Returns once the log holds everything that this node knows.
    pub(in super::super) async fn verify(&self) {
        let mut whole = self.whole.subscribe();
        loop {
            let reading = *whole.borrow_and_update();
            let is_settled = reading.read > 0 && reading.settled == reading.read;
            match self.condition().await {
                Some(look) if self.is_whole(look) && is_settled => return,
                Some(look) if !self.is_whole(look) => self.suspect.notify_one(),
                _ => {}
            }
            // Also when nothing changes: a server may have been asked in vain.
            let _ = tokio::time::timeout(AGAIN, whole.changed()).await;
        }
    }

    /// Says how the log was read, from now on.
    pub(in super::super) fn readings(&self) -> watch::Receiver<Reading> {
        self.whole.subscribe()
    }

    /// Counts a reading from the beginning that is through.
    pub(super) fn look_whether_read(&self) {
        let Some(reread) = self.inventory().caught_up() else {
            return;
        };
        self.whole.send_modify(|reading| {
            reading.read += 1;
            reading.is_other = reread == Reread::OtherLog;
        });
    }

    /// Writes back what the log has lost, after a reading; tries until it is done.
    pub(in super::super) async fn settle(&self, reading: Reading) {
        let mut is_missing = reading.is_other;
        while is_missing {
            match self.write_back().await {
                Ok(()) => is_missing = false,
                Err(error) => {
                    tracing::warn!(%error, "control log restore failed, records still missing");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        self.whole
            .send_modify(|now| now.settled = now.settled.max(reading.read));
    }

    async fn write_back(&self) -> Result<(), PublishErrorKind> {
        // First: whoever reads what follows must know that there may be leases that it cannot know of.
        let succession = self.ledger().succession(self.now().0);
        self.put(&Record::Succeed(succession)).await?;
        let known = self.policy.revocations().all();
        let missing = known.into_iter().filter_map(|(tenant, id, state)| {
            let restored = matches!(state, RevocationState::Restored(_));
            if self.inventory().holds(&self.subject_of(id, restored)) {
                return None;
            }
            Some(match state {
                RevocationState::InForce(entry) => Record::Withdraw(Withdrawal::again(&entry)),
                RevocationState::Restored(expires) => Record::Restore(Restoration {
                    operation: WRITTEN_BACK,
                    tenant,
                    id,
                    expires,
                }),
            })
        });
        let missing: Vec<Record> = missing.collect();
        let count = missing.len();
        let writes = stream::iter(missing).map(|record| async move { self.write_again(&record).await });
        writes.buffer_unordered(WRITES_MAX).try_collect::<()>().await?;
        if count > 0 {
            tracing::warn!(records = count, "control log records restored");
        }
        Ok(())
    }

    /// The others have written back what they know since that reading: leases asked for from now on count.
    pub(in super::super) fn agree(&self, reading: Reading) {
        let mut agreed = lock(&self.agreed);
        // Looked at under the lock: a loss that is found meanwhile takes the agreement back after this.
        let is_last = self.whole.borrow().read == reading.read && !self.inventory().is_being_read();
        if is_last {
            *agreed = Some(Instant::now());
            self.has_served.store(true, Ordering::Release);
            // Those that were asked for before do not count.
            self.renew_now.notify_one();
        }
    }
}
