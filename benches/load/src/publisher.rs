//! A backend that publishes on a schedule which does not wait for the server.
//!
//! The schedule is kept by a thread of its own and each event says when it was due. So what a slow server, or a slow
//! generator, delays is counted as late, and not left out (coordinated omission).

mod caller;
mod control;
mod grpc;
mod pace;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub(super) use self::caller::Caller;
use self::control::Control;
use self::grpc::Grpc;
pub(super) use self::grpc::{With, publish_each};
pub(super) use self::pace::{Load, Pace};
use super::crowd::Progress;
use super::target::{Inlet, Target};
use roomcast::cli::failure::Failure;
use roomcast::proto::v1::Retention;

/// Loads that wait for their turn.
const LOADS_MAX: usize = 4;

/// The common properties of all events of a publisher.
#[derive(Debug, Clone)]
pub(super) struct Style {
    pub(super) run: String,
    pub(super) tenant: String,
    pub(super) payload_bytes: usize,
    pub(super) retention: Retention,
    pub(super) with: With,
    /// Calls under way at once, each with a share of the rooms.
    pub(super) lanes: usize,
}

/// The outcomes up to now.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) acknowledged: AtomicU64,
    pub(super) refused: AtomicU64,
    handed_over: AtomicU64,
    /// By how much the schedule was missed at most when an event was handed over, in microseconds.
    late_max_us: AtomicU64,
    loads_done: AtomicU64,
    is_broken: AtomicBool,
    /// The first refusal, or what broke.
    trouble: Mutex<Option<String>>,
}

/// The thread that publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    loads: SyncSender<Load>,
    loads_given: u64,
    pub(super) counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

/// Events of a room that are due together.
#[derive(Debug, Clone)]
struct Burst {
    room: u32,
    first: u64,
    count: u64,
    due_us: u64,
}

/// The destination of bursts.
enum Outlet {
    Grpc(Grpc),
    Control(Control),
}

impl Publisher {
    pub(super) fn start(
        target: &Target,
        style: Style,
        clock: Instant,
        progress: Arc<Progress>,
    ) -> Result<Self, Failure> {
        let counts = Arc::new(Counts::default());
        let outlet = match &target.inlet {
            Inlet::Grpc(api) => Outlet::Grpc(Grpc::start(api.clone(), style, counts.clone())?),
            Inlet::Control(address) => Outlet::Control(Control::connect(*address, style, counts.clone())?),
        };
        let (loads, waiting) = sync_channel(LOADS_MAX);
        let counting = counts.clone();
        let thread = thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || publish(&waiting, outlet, clock, &progress, &counting))
            .map_err(|error| Failure::Undone(format!("no thread to publish from: {error}")))?;
        Ok(Self {
            loads,
            loads_given: 0,
            counts,
            thread,
        })
    }

    /// Begins with this as soon as what was asked for before is handed over.
    pub(super) fn publish(&mut self, load: Load) {
        self.loads_given += 1;
        // It only fails when the thread is gone, which `is_done` tells.
        let _ = self.loads.send(load);
    }

    /// Reports whether everything requested is answered, or nothing more will be.
    pub(super) fn is_done(&self) -> bool {
        let counts = &self.counts;
        let all = counts.loads_done.load(Ordering::Acquire) == self.loads_given
            && counts.answered() == counts.handed_over.load(Ordering::Acquire);
        all || counts.is_broken.load(Ordering::Acquire) || self.thread.is_finished()
    }

    /// Ends it, waiting for what is under way.
    pub(super) fn finish(self) -> Arc<Counts> {
        drop(self.loads);
        // A panic has told about itself.
        let _ = self.thread.join();
        self.counts
    }
}

fn publish(loads: &Receiver<Load>, mut outlet: Outlet, clock: Instant, progress: &Progress, counts: &Counts) {
    progress.follow();
    while let Ok(load) = loads.recv() {
        if let Err(error) = load.run(clock, progress, counts, |burst| outlet.send(burst, counts)) {
            counts.breaks(error);
        }
        counts.loads_done.fetch_add(1, Ordering::Release);
    }
    if let Outlet::Grpc(grpc) = outlet {
        grpc.finish();
    }
}

impl Outlet {
    fn send(&mut self, burst: Burst, counts: &Counts) -> Result<(), String> {
        counts.handed_over.fetch_add(burst.count, Ordering::Release);
        match self {
            Self::Grpc(grpc) => grpc.send(burst),
            Self::Control(control) => control.send(&burst),
        }
    }
}

impl Counts {
    pub(super) fn answered(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire) + self.refused.load(Ordering::Acquire)
    }

    pub(super) fn late_max(&self) -> Duration {
        Duration::from_micros(self.late_max_us.load(Ordering::Relaxed))
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn refuses(&self, count: u64, why: String) {
        self.refused.fetch_add(count, Ordering::Release);
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.get_or_insert(why);
    }

    fn breaks(&self, why: String) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.get_or_insert(why);
        self.is_broken.store(true, Ordering::Release);
    }

    /// Returns the reason why publishing ended early.
    pub(super) fn breakage(&self) -> Option<String> {
        self.is_broken
            .load(Ordering::Acquire)
            .then(|| self.trouble().unwrap_or_default())
    }
}
