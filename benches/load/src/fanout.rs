//! `bench fanout`: events to all members of rooms.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::crowd::{Crowd, Progress};
use super::outcome::Outcome;
use super::publisher::{Load, Pace, Publisher, Style, With};
use super::report::{Counts, Report, Timeline};
use super::run::{Run, check_files};
use super::stamp::Stamp;
use super::target::At;
use roomcast::cli::failure::Failure;
use roomcast::cli::publish::Retention;

/// The longest schedule.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// The most calls under way at once.
const STREAMS_MAX: u32 = 8;
const CALLS_MAX: u32 = 64;

/// From the last preparation to the first event.
const LEAD: Duration = Duration::from_millis(50);

/// The time of listening for surplus events after everything has arrived.
const LINGER: Duration = Duration::from_millis(250);

/// The first group of members, and here the only one.
const ALL: usize = 0;

/// Events to all members of rooms: CPU per delivery, latency, losses
#[derive(Debug, Args)]
pub(super) struct Fanout {
    /// Members, spread evenly over the rooms
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = bounded(1, 100_000))]
    pub(super) members: u32,
    /// Rooms
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = bounded(1, 1_000_000))]
    pub(super) rooms: u32,
    /// Further rooms of each member, in which nothing happens
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = bounded(0, 100))]
    pub(super) other_rooms: u32,
    /// Events published into each room
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = bounded(1, 10_000_000))]
    pub(super) events: u32,
    /// Events published into each room before, which are not counted
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = bounded(0, 1_000_000))]
    pub(super) warmup: u32,
    /// Events per second and room
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = rate)]
    pub(super) rate: f64,
    /// Events of a room that are due at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = bounded(1, 1000))]
    pub(super) burst: u32,
    /// No schedule: always keep up to this many events of each room under way
    #[arg(long, value_name = "EVENTS", conflicts_with = "rate", value_parser = bounded(1, 10_000))]
    pub(super) saturate: Option<u32>,
    /// The size of each payload, which is JSON
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = bounded(Stamp::BYTES_MIN, 65_536))]
    pub(super) payload_bytes: u32,
    /// The retention of the events
    #[arg(long, value_enum, default_value_t = Retention::Reliable)]
    pub(super) retention: Retention,
    /// The method of publishing to a gateway; by default a stream for single events and batches for bursts
    #[arg(long, value_enum, value_name = "METHOD")]
    pub(super) publish_with: Option<With>,
    /// Silence after which missing events count as lost
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(super) patience: Duration,
    #[command(flatten)]
    pub(super) at: At,
}

pub(super) fn bounded(min: u32, max: u32) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(u64::from(min)..=u64::from(max))
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("expected a number from 0.001 to 100000".to_owned()),
    }
}

impl Fanout {
    /// Checks combinations of arguments, beyond the bounds of each.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let wrong = |text: &str| Err(Failure::Usage(text.to_owned()));
        if self.rooms > self.members {
            return wrong("--rooms: there are fewer --members than that");
        }
        let seconds = f64::from(self.events + self.warmup) / self.rate;
        if self.saturate.is_none() && seconds >= DURATION_MAX.as_secs_f64() {
            return wrong("--events at this --rate take longer than an hour");
        }
        self.at.check()?;
        check_files(self.members)
    }

    pub(super) fn measure(&self, stop: &Arc<AtomicBool>) -> Result<Outcome, Failure> {
        let report = self.report(stop)?;
        Ok(Outcome {
            text: report.to_string(),
            json: report.as_json(),
            complaint: report.complaint(),
        })
    }

    fn report(&self, stop: &Arc<AtomicBool>) -> Result<Report, Failure> {
        let run = Run::of(self.at.start()?, stop.clone());
        let (rooms, others) = (self.rooms, self.other_rooms);
        let rooms_of = move |number| {
            let others = (0..others).map(|other| rooms + number * others + other);
            std::iter::once(number % rooms).chain(others).collect()
        };
        let mut crowd = run.crowd(Box::new(rooms_of), u32::MAX)?;
        let before = run.moment()?;
        crowd.enter(0..self.members)?;
        let entered = run.moment()?;
        let progress = Arc::new(Progress::new(rooms));
        if self.saturate.is_some() {
            crowd.ledger.count_progress(progress.clone());
        }
        let mut publisher = Publisher::start(&run.target, self.style(&run), run.clock, progress)?;
        let warmup = u64::from(self.warmup);
        self.publish(&mut crowd, &mut publisher, 0..warmup)?;
        crowd.ledger.restart();
        let warmed = run.moment()?;
        self.publish(&mut crowd, &mut publisher, warmup..warmup + u64::from(self.events))?;
        let settled = run.moment()?;
        crowd.during(LINGER)?;
        let published = publisher.finish();
        if let Some(why) = published.breakage() {
            return Err(Failure::Undone(why));
        }
        let (received, polls) = (crowd.ledger.received, crowd.ledger.polls);
        Ok(Report {
            server: run.target.name.clone(),
            wire: run.target.wire,
            timeline: Timeline {
                before,
                entered,
                warmed,
                settled,
            },
            counts: Counts {
                members: self.members,
                rooms: self.rooms,
                events: self.events,
                rate: self.saturate.is_none().then_some(self.rate),
                window: self.saturate,
                burst: self.burst,
                payload_bytes: self.payload_bytes,
                retention: self.retention,
                publish_with: self.with(),
                busy: crowd.ledger.busy,
                received,
                polls,
            },
            faults: crowd.faults(),
            latency: std::mem::take(&mut crowd.ledger.latencies[ALL]),
            published,
            warmup: u64::from(self.rooms) * warmup,
        })
    }

    /// Publishes these into every room and waits until they are received, or do not come any more.
    fn publish(
        &self,
        crowd: &mut Crowd,
        publisher: &mut Publisher,
        numbers: std::ops::Range<u64>,
    ) -> Result<(), Failure> {
        crowd.expect(ALL, numbers.end);
        publisher.publish(Load {
            rooms: 0..self.rooms,
            numbers,
            burst: self.burst.into(),
            pace: self.pace(),
        });
        // Between two events of a slow schedule nothing comes either.
        let patience = self.patience + self.interval();
        crowd.until(patience, |ledger| ledger.all_complete() && publisher.is_done())?;
        Ok(())
    }

    fn interval(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.burst) / self.rate)
    }

    fn pace(&self) -> Pace {
        match self.saturate {
            Some(events) => Pace::Window {
                events: events.into(),
                members: u64::from(self.members / self.rooms),
            },
            None => Pace::Every(self.interval(), Instant::now() + LEAD),
        }
    }

    fn with(&self) -> With {
        let usual = if self.burst > 1 { With::Batch } else { With::Stream };
        self.publish_with.unwrap_or(usual)
    }

    fn style(&self, run: &Run) -> Style {
        let lanes = match self.with() {
            With::Stream => self.rooms.min(STREAMS_MAX),
            With::Unary | With::Batch => self.rooms.min(CALLS_MAX),
        };
        Style {
            run: run.name.clone(),
            tenant: run.target.tenant.clone(),
            payload_bytes: self.payload_bytes as usize,
            retention: self.retention.into(),
            with: self.with(),
            lanes: lanes as usize,
        }
    }
}
