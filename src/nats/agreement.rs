//! The settings shared by all nodes of a deployment, stored with it.
//!
//! One record holds the cluster's settings. The first node writes it. Every other node compares its own configuration
//! with it before it serves anything, and again every two seconds. A difference in a setting that must be equal is
//! refused, at the start and at a running node, which serves nothing from then on. A difference in any other setting is
//! safe in both directions of a rolling change: the larger limit is in force at once, and is lowered when all living
//! nodes say less (see [`Rule`]).
//!
//! A running node writes the record back when it is lost. A node that starts and finds none therefore first asks
//! whether others run.

mod follow;
mod record;
mod setting;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_nats::client::RequestErrorKind;
use async_nats::jetstream::Context;
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

pub use self::setting::{Rule, Setting, Value};

use self::record::{Comparison, Difference, Record};
use super::records;
use super::request::RequestFailed;
use super::{Nats, NatsError, Subscription, streams};

use crate::digest::Digest;
use crate::sync::lock;

/// The time that a starting node waits for running ones to write records back: they are called at once, and look every two seconds anyway.
const WRITTEN_BACK_WITHIN: Duration = Duration::from_secs(5);

/// The pause between two reads of a record that is being written back.
const AGAIN: Duration = Duration::from_millis(50);

/// The most attempts to write a record while other nodes write it, too: each is lost only to another's success.
const ATTEMPTS_MAX: usize = 20;

/// The agreed settings of the deployment, and whether this node conforms to them.
#[derive(Debug)]
pub struct Agreement {
    nats: Arc<Nats>,
    own: Vec<Setting>,
    known: Mutex<Known>,
    /// The node must not serve.
    is_refused: AtomicBool,
    /// Changes with the limits in force.
    revision: watch::Sender<u64>,
    /// Another node has requested lost records.
    called: Notify,
}

#[derive(Debug, Default)]
struct Known {
    record: Record,
    /// The differences that were last logged.
    reported: Vec<Difference>,
    refused: Option<String>,
    trouble: Option<RequestFailed>,
    /// The time since which all living nodes have equal settings while the record differs.
    alike_since: Option<Instant>,
}

impl Agreement {
    /// Compares the node's settings with the record. Nothing is written before [`Self::commit`], because NATS may
    /// refuse what the settings require.
    ///
    /// # Errors
    /// [`NatsError::Refused`] names every setting that must be equal and is not; [`NatsError::JetStream`].
    pub async fn join(nats: Arc<Nats>, own: Vec<Setting>) -> Result<Arc<Self>, NatsError> {
        let agreement = Self {
            nats,
            own,
            known: Mutex::default(),
            is_refused: AtomicBool::new(false),
            revision: watch::channel(0).0,
            called: Notify::new(),
        };
        agreement.make_stream().await?;
        let mut found = agreement.read().await.map_err(|error| unread(&error))?;
        if found.is_none() && agreement.call().await {
            let again = async || agreement.read().await;
            found = agreement.written_back(again).await.map_err(|error| unread(&error))?;
        }
        let (_, record) = found.unwrap_or_default();
        agreement.admit(record.compare(&agreement.own))?;
        Ok(Arc::new(agreement))
    }

    /// Writes the record once the streams have the shape in force. Returns `false` when other limits have taken effect
    /// meanwhile: then the streams have to be updated, and the call repeated.
    ///
    /// # Errors
    /// As [`Self::join`]: of several nodes that start at the same time the first one is followed.
    pub async fn commit(&self) -> Result<bool, NatsError> {
        for _ in 0..ATTEMPTS_MAX {
            let (seq, record) = self.read().await.map_err(|error| unread(&error))?.unwrap_or_default();
            let compared = record.compare(&self.own);
            let (next, before) = (compared.next.clone(), self.lock().record.clone());
            self.admit(compared)?;
            if next != before {
                return Ok(false);
            }
            if next == record || self.write(seq, &next).await.map_err(|error| unread(&error))? {
                // The stream of records follows the replicas in force, which were unknown when it was created.
                self.shape_stream().await?;
                return Ok(true);
            }
        }
        Err(unread(&RequestFailed::unavailable(
            "other nodes wrote it at the same time",
        )))
    }

    fn admit(&self, compared: Comparison) -> Result<(), NatsError> {
        if !compared.refused.is_empty() {
            return Err(NatsError::Refused(lines(&compared.refused)));
        }
        let mut known = self.lock();
        known.record = compared.next;
        known.report(compared.differs);
        Ok(())
    }

    /// Returns the number in force for a setting: for [`Rule::Largest`] never less than the node's own.
    #[must_use]
    pub fn amount(&self, key: &str) -> u64 {
        let own = self.own.iter().find(|setting| setting.key == key);
        let own = own.map_or(0, Setting::amount);
        self.lock().record.amount(key).unwrap_or_default().max(own)
    }

    /// Reports whether the node conforms to the cluster's settings. If not, it must not accept, deliver or serve
    /// anything.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.is_refused.load(Ordering::Relaxed)
    }

    /// Returns the reason why the node should not serve, for logs.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let known = self.lock();
        let records = known
            .trouble
            .as_ref()
            .filter(|trouble| matches!(trouble, RequestFailed::ReadOnly));
        known
            .refused
            .clone()
            .or_else(|| records.map(|trouble| format!("the stream of records: {trouble}")))
    }

    /// Returns a watch that changes whenever the limits in force change.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Waits until records may have to be written back or read again, because another node requested it.
    pub async fn called(&self) {
        self.called.notified().await;
    }

    /// Returns a digest of the node's own settings, for its heartbeats.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        // Keys in the record's order, whatever order they were given in: the digest must be equal on all nodes.
        digest.add(&Record::default().compare(&self.own).next.encode());
        digest.value().max(1)
    }

    /// Subscribes to requests of other nodes for records. Call it once everything this node knows is settled: from then
    /// on others rely on it to write records back.
    ///
    /// # Errors
    /// [`NatsError::Subscribe`].
    pub async fn listen(&self) -> Result<Subscription, NatsError> {
        let subject = self.nats.subjects().records();
        let subscribed = self.nats.control().subscribe(subject.clone()).await;
        subscribed.map_err(NatsError::subscribing(&subject))
    }

    /// Requests running nodes to write back the records they know; `false` when none runs.
    pub async fn call(&self) -> bool {
        let client = self.nats.control().client();
        match client.request(self.nats.subjects().records(), Bytes::new()).await {
            Err(error) if error.kind() == RequestErrorKind::NoResponders => false,
            // A node that did not respond in time may still write back.
            Ok(_) | Err(_) => true,
        }
    }

    /// Notifies running nodes to read the records again. Only a hint: they do so by themselves, later.
    pub async fn announce(&self) {
        let client = self.nats.control().client();
        if let Err(error) = client.publish(self.nats.subjects().records(), Bytes::new()).await {
            tracing::debug!(%error, "settings announcement not sent");
        }
    }

    /// Waits until another node has written a record back, or the time is over.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn written_back<T, E>(
        &self,
        mut read: impl AsyncFnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let until = Instant::now() + WRITTEN_BACK_WITHIN;
        loop {
            let found = read().await?;
            if found.is_some() || Instant::now() >= until {
                return Ok(found);
            }
            sleep(AGAIN).await;
        }
    }

    /// Creates the stream of records if it is missing.
    ///
    /// # Errors
    /// [`NatsError::JetStream`] and [`NatsError::Refused`].
    pub async fn make_stream(&self) -> Result<(), NatsError> {
        let context = self.nats.jetstream_to_make_streams();
        match records::read(&context, &self.stream(), &self.subject()).await {
            Err(RequestFailed::NoStream) => self.shape_stream().await,
            // Any other fault shows when the stream is used.
            _ => Ok(()),
        }
    }

    async fn shape_stream(&self) -> Result<(), NatsError> {
        let context = self.nats.jetstream_to_make_streams();
        let replicas = usize::try_from(self.amount(REPLICAS)).unwrap_or(self.nats.config().replicas);
        let replicas = replicas.max(self.nats.config().replicas);
        let shape = streams::records(self.nats.config(), self.nats.subjects(), replicas);
        streams::ensure(&context, self.nats.config(), shape).await
    }

    async fn read(&self) -> Result<Option<(u64, Record)>, RequestFailed> {
        let found = records::read(&self.context(), &self.stream(), &self.subject()).await?;
        Ok(found.map(|stored| (stored.seq, Record::decode(&stored.payload).unwrap_or_default())))
    }

    async fn write(&self, over: u64, record: &Record) -> Result<bool, RequestFailed> {
        let written = records::put(&self.context(), self.subject(), over, record.encode().into()).await?;
        Ok(written.is_some())
    }

    fn context(&self) -> Context {
        self.nats.jetstream()
    }

    fn stream(&self) -> String {
        self.nats.subjects().stream_of('m')
    }

    fn subject(&self) -> String {
        self.nats.subjects().settings()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

/// The key of the setting that the stream of records itself follows.
const REPLICAS: &str = "nats.replicas";

impl Known {
    /// Logs the differences, each once.
    fn report(&mut self, differs: Vec<Difference>) {
        for difference in differs.iter().filter(|difference| !self.reported.contains(difference)) {
            tracing::warn!(%difference, "setting differs from the cluster");
        }
        if differs.is_empty() && !self.reported.is_empty() {
            tracing::info!("settings agree on all nodes");
        }
        self.reported = differs;
    }
}

fn unread(error: &RequestFailed) -> NatsError {
    NatsError::JetStream(format!("the record of the settings: {error}"))
}

fn lines(differences: &[Difference]) -> String {
    let lines: Vec<_> = differences.iter().map(ToString::to_string).collect();
    lines.join("; ")
}
