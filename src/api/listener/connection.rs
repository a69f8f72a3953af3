//! One accepted connection, as its calls see it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::places::{Full, Place, Places};

use crate::sync::lock;

/// One accepted connection.
#[derive(Debug)]
pub(in crate::api) struct Connection {
    /// The peer's certificate chain, its own certificate first; verified by the handshake.
    certificates: Option<Arc<[CertificateDer<'static>]>>,
    /// Permits for unread reply bytes.
    unread: Arc<Semaphore>,
    is_proven: AtomicBool,
    place: Mutex<Option<Place>>,
    end: CancellationToken,
}

impl Connection {
    pub(super) fn new(
        place: Place,
        certificates: Option<Arc<[CertificateDer<'static>]>>,
        unread_bytes_max: usize,
    ) -> Self {
        Self {
            certificates,
            unread: Arc::new(Semaphore::new(unread_bytes_max)),
            is_proven: AtomicBool::new(false),
            place: Mutex::new(Some(place)),
            end: CancellationToken::new(),
        }
    }

    /// Counts the connection as open.
    pub(super) fn open(self: &Arc<Self>, places: &Arc<Places>) -> Result<(), Full> {
        let beginning = self.lock().take();
        let Some(beginning) = beginning else {
            return Ok(());
        };
        let place = places.open(self, beginning)?;
        *self.lock() = Some(place);
        Ok(())
    }

    /// Returns the peer's certificates.
    pub(in crate::api) fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.certificates.as_deref()
    }

    /// Returns the permits for unread reply bytes.
    pub(in crate::api) const fn unread(&self) -> &Arc<Semaphore> {
        &self.unread
    }

    /// Records that a call had a valid credential.
    pub(in crate::api) fn prove(&self) {
        // Read first: otherwise all calls of a connection would write to one cache line.
        if !self.is_proven() {
            self.is_proven.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }

    /// Ends the connection with all its calls, and releases its place.
    pub(in crate::api) fn end(&self) {
        self.end.cancel();
        // Dropped after the lock is released: releasing a place takes another lock.
        let place = self.lock().take();
        drop(place);
    }

    /// Completes when the connection must end.
    pub(super) fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.end.cancelled()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Place>> {
        lock(&self.place)
    }
}
