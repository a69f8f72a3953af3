//! Session records in this process. They end with it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{Record, RecordKey, Store, StoreUnavailable, Stored};
use crate::sync::lock;

/// The most records of sessions whose clients are away; then the one that is away for longest is dropped, and its client begins
/// anew. At some 300 bytes they take 30 MB.
const AWAY_MAX: usize = 100_000;

#[derive(Debug, Default)]
struct Records {
    kept: HashMap<RecordKey, Stored>,
    /// Those whose clients are away, in the order in which they end.
    away: VecDeque<(Instant, RecordKey, u64)>,
    revision: u64,
}

/// The records of one process.
#[derive(Debug)]
pub struct MemoryStore {
    away_max: Duration,
    records: Mutex<Records>,
}

impl MemoryStore {
    /// No records yet. One is dropped when its client was away for so long.
    #[must_use]
    pub fn new(away_max: Duration) -> Self {
        Self {
            away_max,
            records: Mutex::default(),
        }
    }

    /// The number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.current().kept.len()
    }

    /// Reports whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The records, without those whose time is over.
    fn current(&self) -> MutexGuard<'_, Records> {
        let mut records = lock(&self.records);
        let now = Instant::now();
        while records.away.front().is_some_and(|(ends, ..)| *ends <= now) || records.away.len() > AWAY_MAX {
            let Some((_, key, revision)) = records.away.pop_front() else {
                break;
            };
            records.drop_at(&key, revision);
        }
        records
    }
}

impl Records {
    fn drop_at(&mut self, key: &RecordKey, revision: u64) {
        if self.kept.get(key).is_some_and(|stored| stored.revision == revision) {
            self.kept.remove(key);
        }
    }
}

impl Store for MemoryStore {
    fn read(self: Arc<Self>, key: RecordKey) -> BoxFuture<'static, Result<Option<Stored>, StoreUnavailable>> {
        let found = self.current().kept.get(&key).cloned();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn write(
        self: Arc<Self>,
        key: RecordKey,
        record: Record,
        over: u64,
    ) -> BoxFuture<'static, Result<Option<u64>, StoreUnavailable>> {
        let mut records = self.current();
        let is_there = records.kept.get(&key).map_or(0, |stored| stored.revision);
        let written = (is_there == over).then(|| {
            records.revision += 1;
            let revision = records.revision;
            records.kept.insert(key, Stored { record, revision });
            revision
        });
        drop(records);
        Box::pin(std::future::ready(Ok(written)))
    }

    fn remove(self: Arc<Self>, key: RecordKey, revision: u64) -> BoxFuture<'static, ()> {
        self.current().drop_at(&key, revision);
        Box::pin(std::future::ready(()))
    }

    fn left(&self, key: RecordKey, revision: u64) {
        let ends = Instant::now() + self.away_max;
        let mut records = self.current();
        let is_there = records.kept.get(&key).is_some_and(|stored| stored.revision == revision);
        if is_there {
            records.away.push_back((ends, key, revision));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ConnectionId, UserId};
    use crate::room::Tenant;

    fn record(version: u64) -> Record {
        Record {
            tenant: Tenant::default(),
            user: UserId::parse("ada").unwrap(),
            protocol: "socket.io".into(),
            connection: ConnectionId::random(),
            version,
            rooms: Vec::new(),
            unconfirmed: None,
            holder: 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_written_over_by_one_and_ends_when_its_client_stays_away() {
        let (store, key) = (Arc::new(MemoryStore::new(Duration::from_secs(120))), [7; 32]);
        let write = |version, over| Arc::clone(&store).write(key, record(version), over);
        let first = write(1, 0).await.unwrap().unwrap();
        assert_eq!(write(1, 0).await.unwrap(), None);
        let second = write(2, first).await.unwrap().unwrap();
        assert_eq!(write(3, first).await.unwrap(), None, "it was taken over");
        // The one that had it before leaves: that ends nothing.
        store.left(key, first);
        tokio::time::advance(Duration::from_secs(121)).await;
        assert_eq!(Arc::clone(&store).read(key).await.unwrap().unwrap().record.version, 2);
        store.left(key, second);
        tokio::time::advance(Duration::from_secs(119)).await;
        assert_eq!(store.len(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(store.is_empty());
        let third = write(1, 0).await.unwrap().unwrap();
        Arc::clone(&store).remove(key, second).await;
        assert_eq!(store.len(), 1);
        Arc::clone(&store).remove(key, third).await;
        assert!(store.is_empty());
    }
}
