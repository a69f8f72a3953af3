//! The contract of [`crate::bus`] as tests that every bus runs: `conformance_suite!(start)` makes one test of each
//! sentence.
//!
//! `start` is an async function from the [`HistoryLimits`] of every room to a bus. A suite knows nothing of how offsets
//! are assigned, only that they increase.

pub(crate) mod delivery;
pub(crate) mod history;
pub(crate) mod parts;
pub(crate) mod publishing;
pub(crate) mod recovery;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::history::HistoryLimits;
use super::{Bus, Delivery, Parcel, PublishError, Published, ReadBounds, Subscriber};
use crate::event::{Envelope, Event, EventId, EventName, Except, IdempotencyKey, Payload, Publish, Retention};
use crate::identity::UserId;
use crate::position::{Offset, Position};
use crate::room::{Room, Tenant};

/// The timeout for facts that must happen, long enough for a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const ALL: ReadBounds = ReadBounds {
    events_max: 1_000_000,
    bytes_max: 1 << 30,
};

/// Makes the suite's tests for the bus that the async function `$start` makes.
macro_rules! conformance_suite {
    ($start:path) => {
        $crate::bus::conformance::conformance_suite!(@tests $start, publishing:
            acknowledged_events_are_in_the_history,
            an_event_carries_everything_that_was_published,
            offsets_increase_and_each_event_names_the_one_before_it_in_its_room,
            one_name_in_two_tenants_is_two_rooms,
            a_repeated_key_stores_and_delivers_once,
            a_key_with_another_event_is_refused,
            a_key_is_scoped_to_its_room,
            a_key_is_scoped_to_its_publisher,
            the_expected_version_is_the_head,
            a_room_without_events_is_expected_at_zero_or_at_its_told_head,
            a_conflict_names_a_position_that_works,
            of_racing_expectations_exactly_one_wins,
            a_repeated_conditional_publish_is_a_duplicate_and_no_conflict,
            ephemeral_events_have_no_position_and_are_not_kept,
            several_together_are_as_one_after_the_other,
        );
        $crate::bus::conformance::conformance_suite!(@tests $start, delivery:
            a_subscriber_gets_every_later_event_once_and_in_order,
            what_came_before_the_subscription_is_not_delivered,
            ephemeral_events_keep_their_publishers_order,
            two_subscriptions_of_one_id_are_one,
            after_unsubscribing_others_still_receive,
            concurrent_publishers_make_one_order_for_all_subscribers,
            members_of_other_rooms_are_left_alone,
        );
        $crate::bus::conformance::conformance_suite!(@tests $start, recovery:
            from_every_position_exactly_the_later_events_are_recovered,
            from_the_head_of_a_room_without_events_everything_is_recovered,
            another_epoch_and_a_position_of_the_future_are_lost,
            what_the_history_has_dropped_is_lost_and_never_answered_in_part,
            beside_older_events_of_other_rooms_dropped_ones_are_lost,
            more_than_the_bounds_is_lost,
            without_history_only_the_head_itself_is_recovered,
            recovering_and_subscribing_leave_no_seam,
        );
        $crate::bus::conformance::conformance_suite!(@tests $start, history:
            pages_are_oldest_first_and_bounded,
            a_page_has_at_least_one_event,
            a_page_says_whether_a_bound_has_cut_it,
            a_page_says_whether_everything_after_its_beginning_is_kept,
            the_oldest_event_does_not_claim_to_follow_on_an_older_position,
            walking_the_pages_reads_everything_once,
            the_newest_value_of_each_name_is_kept,
            stats_tell_head_events_and_bytes,
            an_unknown_room_is_empty,
        );
        $crate::bus::conformance::conformance_suite!(@tests $start, parts:
            a_follower_gets_the_later_events_of_every_room_that_matches,
            a_follower_is_left_alone_by_other_rooms_and_tenants,
            from_every_place_exactly_the_later_events_are_read,
            another_epoch_is_told_as_partial,
            a_room_that_has_dropped_events_is_named,
            an_ended_follower_gets_nothing_and_others_go_on,
            what_was_followed_reaches_beyond_other_rooms_events,
        );
    };
    (@tests $start:path, $module:ident: $($name:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::bus::conformance::$module::$name($start).await;
            }
        )+
    };
}
pub(crate) use conformance_suite;

/// Starts a bus whose rooms all have these limits.
pub(crate) trait Start: AsyncFn(HistoryLimits) -> Arc<dyn Bus> {}
impl<F: AsyncFn(HistoryLimits) -> Arc<dyn Bus>> Start for F {}

pub(crate) fn room(name: &str) -> Room {
    Room::parse(&Tenant::default(), name).unwrap()
}

/// A publish under construction.
#[derive(Clone)]
pub(crate) struct Draft(pub Publish);

/// Drafts a reliable event named `e` with this payload.
pub(crate) fn event(room: &Room, payload: &str) -> Draft {
    Draft(Publish {
        room: room.clone(),
        id: EventId::random(),
        name: EventName::parse("e").unwrap(),
        retention: Retention::Reliable,
        payload: Payload::Binary(Bytes::copy_from_slice(payload.as_bytes())),
        actor: None,
        except: Except::NOBODY,
        key: None,
        expected: None,
    })
}

impl Draft {
    pub(crate) fn retention(mut self, retention: Retention) -> Self {
        self.0.retention = retention;
        self
    }

    pub(crate) fn name(mut self, name: &str) -> Self {
        self.0.name = EventName::parse(name).unwrap();
        self
    }

    pub(crate) fn key(mut self, key: &str) -> Self {
        self.0.key = Some(IdempotencyKey::of_backend(key).unwrap());
        self
    }

    /// Sets the key as a client of this user would.
    pub(crate) fn key_of(mut self, user: &str, key: &str) -> Self {
        let user = UserId::parse(user).unwrap();
        self.0.key = Some(IdempotencyKey::of_user(&user, key).unwrap());
        self.0.actor = Some(user);
        self
    }

    pub(crate) fn expected(mut self, offset: Offset) -> Self {
        self.0.expected = Some(offset);
        self
    }

    pub(crate) async fn send(self, bus: &dyn Bus) -> Result<Published, PublishError> {
        bus.publish(Envelope(self.0)).await
    }

    /// Publishes an event that must be stored, and returns its position.
    pub(crate) async fn stored(self, bus: &dyn Bus) -> Position {
        let published = self.send(bus).await.unwrap();
        assert!(!published.duplicate);
        published.position.unwrap()
    }
}

/// Stores events with the payloads `0`, `1` and so on.
pub(crate) async fn store(bus: &dyn Bus, room: &Room, count: usize) -> Vec<Position> {
    let mut positions = Vec::new();
    for number in 0..count {
        positions.push(event(room, &number.to_string()).stored(bus).await);
    }
    positions
}

pub(crate) fn text(event: &Event) -> String {
    match &event.payload {
        Payload::Binary(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        Payload::Json(json) => json.as_str().to_owned(),
    }
}

pub(crate) fn texts(events: &[Arc<Event>]) -> Vec<String> {
    events.iter().map(|event| text(event)).collect()
}

pub(crate) fn offsets(events: &[Arc<Event>]) -> Vec<Offset> {
    events.iter().filter_map(|event| event.offset()).collect()
}

/// A subscriber that records its deliveries.
pub(crate) struct Recorder {
    id: u16,
    seen: Mutex<Vec<Arc<Event>>>,
    grown: Notify,
}

impl Recorder {
    pub(crate) fn new(id: u16) -> Arc<Self> {
        Arc::new(Self {
            id,
            seen: Mutex::default(),
            grown: Notify::new(),
        })
    }

    pub(crate) fn seen(&self) -> Vec<Arc<Event>> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for so many events, and returns them.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Arc<Event>> {
        let enough = async {
            loop {
                let grown = self.grown.notified();
                if self.seen().len() >= count {
                    return self.seen();
                }
                grown.await;
            }
        };
        let seen = timeout(PATIENCE, enough).await;
        seen.unwrap_or_else(|_| panic!("{} of {count} events came", self.seen().len()))
    }
}

impl Subscriber for Recorder {
    fn id(&self) -> u16 {
        self.id
    }

    fn deliver(&self, delivery: Arc<Delivery>) {
        self.seen.lock().unwrap().push(Arc::clone(&delivery.event));
        self.grown.notify_one();
    }

    fn reset(&self, room: Room, _: Position) {
        panic!("the continuity of {room:?} was lost");
    }
}
