//! Writing to the control log.

use std::sync::Arc;
use std::time::Instant;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};
use async_nats::jetstream::context::PublishErrorKind;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::super::record;
use super::{AGAIN, Log};
use crate::cluster::NotDone;
use crate::cluster::ledger::{LeaseTaken, Operation, Record};
use crate::policy::RevocationId;

impl Log {
    /// Writes an operation; returns once a quorum has stored it.
    pub(in super::super) async fn write(&self, operation: Operation, record: &Record) -> Result<(), NotDone> {
        if self.is_full() {
            return Err(NotDone::NotStored("the control log is full"));
        }
        let (subject, payload) = self.written(record);
        let mut headers = self.of_this_stream();
        headers.insert(NATS_MESSAGE_ID, format!("{operation:032x}"));
        let until = Instant::now() + self.nats.config().publish_timeout;
        // Whether an attempt may have been stored although its acknowledgement did not come.
        let mut perhaps = false;
        while Instant::now() < until {
            if self.nats.control().is_connected() {
                match self.attempt(&subject, &headers, payload.clone()).await {
                    Ok(()) => return Ok(()),
                    Err(kind) => perhaps |= is_ambiguous(kind),
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
        Err(if perhaps {
            NotDone::Unknown("the control log has not acknowledged it")
        } else {
            NotDone::NotStored("the control log cannot be written")
        })
    }

    /// Writes what the log has lost, unless another node has done so.
    pub(super) async fn write_again(&self, record: &Record) -> Result<(), PublishErrorKind> {
        let (subject, payload) = self.written(record);
        let mut headers = self.of_this_stream();
        // Only where there is none: it must not take the place of one that says more.
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        match self.attempt(&subject, &headers, payload).await {
            Err(PublishErrorKind::WrongLastSequence) => Ok(()),
            outcome => outcome,
        }
    }

    /// Writes a record in the place of the one before it.
    pub(super) async fn put(&self, record: &Record) -> Result<(), PublishErrorKind> {
        let (subject, payload) = self.written(record);
        self.attempt(&subject, &self.of_this_stream(), payload).await
    }

    fn of_this_stream(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, &*self.stream);
        headers
    }

    async fn attempt(&self, subject: &str, headers: &HeaderMap, payload: Bytes) -> Result<(), PublishErrorKind> {
        let context = self.nats.jetstream();
        let attempt = async {
            let sent = context.publish_with_headers(subject.to_owned(), headers.clone(), payload);
            sent.await?.await
        };
        match tokio::time::timeout(self.nats.config().request_timeout, attempt).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                if error.kind() != PublishErrorKind::WrongLastSequence {
                    tracing::warn!(%error, "control log write failed");
                }
                Err(error.kind())
            }
            Err(_) => Err(PublishErrorKind::TimedOut),
        }
    }

    /// Takes a lease once per interval until `stop`.
    pub(in super::super) async fn renew(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.config.renew_interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = async {
                tokio::select! {
                    _ = tick.tick() => {}
                    () = self.renew_now.notified() => {}
                }
            };
            if stop.run_until_cancelled(due).await.is_none() {
                return;
            }
            // What is kept for later while the connection is away would be an old lease.
            if !self.nats.control().is_connected() {
                continue;
            }
            let released = self.released.lock().await;
            if *released {
                return;
            }
            // The moment is taken before it is written: so the lease is never longer than it should be.
            let asked = self.ledger().ask(Instant::now());
            self.write_lease(asked).await;
            drop(released);
        }
    }

    /// Tells the others that this node delivers nothing more. To be called when that is so.
    pub(in super::super) async fn release(&self) {
        // Nothing that was asked for before may come after it.
        let mut is_released = self.released.lock().await;
        *is_released = true;
        let released = self.ledger().release();
        let (subject, payload) = self.written(&Record::Lease(released));
        let jetstream = self.nats.jetstream();
        // Acknowledged, so that a withdrawal that is begun after this finds it.
        let storing = async { jetstream.publish(subject, payload).await?.await };
        if !matches!(
            tokio::time::timeout(self.config.renew_interval, storing).await,
            Ok(Ok(_))
        ) {
            tracing::debug!("lease release failed, lease left to expire");
        }
    }

    /// A record and its subject. What is never to be taken away has a subject of its own: fewer subjects are a loss.
    fn written(&self, record: &Record) -> (String, Bytes) {
        let subject = match record {
            Record::Withdraw(withdrawal) => self.subject_of(withdrawal.id, false),
            Record::Restore(restoration) => self.subject_of(restoration.id, true),
            Record::Lease(lease) => self
                .nats
                .subjects()
                .command(&format!("l.{:016x}", lease.holder.incarnation)),
            Record::Succeed(succession) => self.nats.subjects().command(&format!("s.{:016x}", succession.node)),
        };
        (subject, record::encode(record).into())
    }

    /// Returns the subject of a revocation in the log, or of its restoration.
    pub(super) fn subject_of(&self, id: RevocationId, restored: bool) -> String {
        let kind = if restored { 'u' } else { 'r' };
        self.nats.subjects().command(&format!("{kind}.{id}"))
    }

    /// Not acknowledged: that it is read back says more.
    async fn write_lease(&self, lease: LeaseTaken) {
        let (subject, payload) = self.written(&Record::Lease(lease));
        let publishing = async {
            let order = self.nats.control().in_order().await;
            order.client().publish(subject, payload).await
        };
        if !matches!(
            tokio::time::timeout(self.config.renew_interval, publishing).await,
            Ok(Ok(()))
        ) {
            tracing::debug!("lease request not sent");
        }
    }
}

fn is_ambiguous(kind: PublishErrorKind) -> bool {
    matches!(kind, PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe)
}
