//! The liveness of nodes, from heartbeats and the clock alone. The simulation of presence runs it, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{ECHO_MAX, HEARTBEAT_INTERVAL, Node, NodeChange, SILENCE_MAX};
use crate::proto::node_v1::Heartbeat;

/// The most nodes that are remembered, the ended ones included: the heartbeats of strangers must not fill memory.
const NODES_MAX: usize = 4096;

/// The time for which an ended node is remembered (tombstone), so that a late heartbeat does not revive it.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The nodes known here.
#[derive(Debug)]
pub(crate) struct Roster {
    own: u64,
    sequence: u64,
    /// The time this node last heard itself, and the start of the period without a break.
    echo: Instant,
    hearing_since: Instant,
    has_heard_itself: bool,
    others: HashMap<u64, Known>,
    /// The last lease of each node, by incarnation.
    leases: HashMap<u64, LastLease>,
}

/// The last lease of a node. Until it ends the node may deliver, heard or not.
#[derive(Debug)]
struct LastLease {
    node: Node,
    until: Instant,
}

#[derive(Debug)]
struct Known {
    node: Node,
    sequence: u64,
    settings: u64,
    heard: Instant,
    life: Life,
    /// The node has released its lease, which it does when it delivers nothing more.
    has_released: bool,
    /// Its first heartbeat was heard: it served no client before that.
    heard_begin: bool,
}

/// The last known state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Lives,
    /// Silent, and may continue.
    GivenUp,
    /// Said goodbye.
    Ended,
}

impl Known {
    fn lives(&self) -> bool {
        self.life == Life::Lives
    }
}

impl Roster {
    pub(crate) fn new(own: u64, now: Instant) -> Self {
        Self {
            own,
            sequence: 0,
            echo: now,
            hearing_since: now,
            has_heard_itself: false,
            others: HashMap::new(),
            leases: HashMap::new(),
        }
    }

    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Reports whether this node has heard itself lately.
    pub(crate) fn hears(&self, now: Instant) -> bool {
        now.duration_since(self.echo) < ECHO_MAX
    }

    /// Reports whether this node has ever heard itself.
    pub(crate) const fn has_heard_itself(&self) -> bool {
        self.has_heard_itself
    }

    pub(crate) fn live(&self) -> Vec<Node> {
        let live = self.others.values().filter(|known| known.lives());
        live.map(|known| known.node.clone()).collect()
    }

    /// Reports whether no other node delivers. Every publish calls it. Leases are only inspected when no other node
    /// lives, and then there are few or none.
    pub(crate) fn is_alone(&self, now: Instant) -> bool {
        !self.others.values().any(Known::lives) && self.hears_all(now)
    }

    /// Reports whether every node that may deliver lives: none was given up, or never heard, before its lease has
    /// ended.
    pub(crate) fn hears_all(&self, now: Instant) -> bool {
        self.unheard(now).next().is_none()
    }

    /// Returns the nodes that may deliver and do not live: given up, or never heard, before their leases have ended.
    pub(crate) fn unheard(&self, now: Instant) -> impl Iterator<Item = &Node> {
        let leased = self.leases.values().filter(move |lease| lease.until > now);
        let unheard = leased.filter(|lease| {
            let known = self.others.get(&lease.node.incarnation);
            known.is_none_or(|known| known.life == Life::GivenUp)
        });
        unheard.map(|lease| &lease.node)
    }

    /// Records that a node holds a lease until then.
    pub(crate) fn lease_taken(&mut self, node: &Node, until: Instant) {
        let has_room = self.leases.len() < NODES_MAX || self.leases.contains_key(&node.incarnation);
        if node.incarnation != self.own && has_room {
            let last = self.leases.entry(node.incarnation).or_insert_with(|| LastLease {
                node: node.clone(),
                until,
            });
            last.until = until.max(last.until);
        }
    }

    /// Records that a node has released its lease.
    pub(crate) fn lease_released(&mut self, incarnation: u64) {
        self.leases.remove(&incarnation);
        if let Some(known) = self.others.get_mut(&incarnation) {
            known.has_released = true;
        }
    }

    pub(crate) fn unreleased(&self) -> Vec<(u64, Arc<str>)> {
        let others = self
            .others
            .iter()
            .filter(|(_, known)| known.lives() && !known.has_released);
        others
            .map(|(node, known)| (*node, Arc::clone(&known.node.id)))
            .collect()
    }

    /// Reports whether every living node announces these settings; `false` while this node cannot hear.
    pub(crate) fn are_set_like(&self, digest: u64, now: Instant) -> bool {
        let mut live = self.others.values().filter(|known| known.lives());
        self.hears(now) && live.all(|known| known.settings == digest)
    }

    pub(crate) fn silent_for(&self, incarnation: u64, now: Instant) -> Option<Duration> {
        let known = self.others.get(&incarnation)?;
        Some(now.duration_since(known.heard))
    }

    /// Reports whether a node is known from its first heartbeat on. Any other node has lived unheard for an unknown
    /// time.
    pub(crate) fn has_heard_begin(&self, incarnation: u64) -> bool {
        self.others.get(&incarnation).is_some_and(|known| known.heard_begin)
    }

    pub(crate) fn hear(&mut self, heartbeat: &Heartbeat, now: Instant) -> Option<NodeChange> {
        if heartbeat.incarnation == self.own {
            if !self.hears(now) {
                self.hearing_since = now;
            }
            self.echo = now;
            self.has_heard_itself = true;
            return None;
        }
        let is_new = !self.others.contains_key(&heartbeat.incarnation);
        if is_new && (heartbeat.leaving || self.others.len() >= NODES_MAX) {
            return None;
        }
        let known = self.others.entry(heartbeat.incarnation).or_insert_with(|| Known {
            node: Node {
                id: heartbeat.node_id.as_str().into(),
                incarnation: heartbeat.incarnation,
            },
            sequence: 0,
            settings: 0,
            heard: now,
            life: Life::GivenUp,
            has_released: false,
            heard_begin: heartbeat.sequence <= 1,
        });
        if heartbeat.sequence <= known.sequence {
            return None;
        }
        known.sequence = heartbeat.sequence;
        known.settings = heartbeat.settings;
        known.heard = now;
        let life = if heartbeat.leaving { Life::Ended } else { Life::Lives };
        let lived = std::mem::replace(&mut known.life, life) == Life::Lives;
        match (lived, known.lives()) {
            (false, true) => Some(NodeChange::Came(known.node.clone())),
            (true, false) => Some(NodeChange::Went(known.node.clone())),
            _ => None,
        }
    }

    /// Gives up nodes that were silent for too long while this node could hear: it has heard itself meanwhile. When
    /// both fell silent together, NATS was at fault.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Node> {
        self.leases.retain(|_, lease| lease.until > now);
        if !self.hears(now) {
            return Vec::new();
        }
        let mut gone = Vec::new();
        for known in self.others.values_mut().filter(|known| known.lives()) {
            let silent_since = known.heard.max(self.hearing_since);
            let heard_itself_for = self.echo.saturating_duration_since(silent_since);
            if now.duration_since(silent_since) >= SILENCE_MAX && heard_itself_for + HEARTBEAT_INTERVAL >= SILENCE_MAX {
                known.life = Life::GivenUp;
                gone.push(known.node.clone());
            }
        }
        self.others
            .retain(|_, known| known.lives() || now.duration_since(known.heard) < REMEMBERED);
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 1;
    const OTHER: u64 = 2;

    fn heartbeat(incarnation: u64, sequence: u64) -> Heartbeat {
        Heartbeat {
            node_id: format!("node-{incarnation}"),
            incarnation,
            sequence,
            ..Heartbeat::default()
        }
    }

    fn node(incarnation: u64) -> Node {
        Node {
            id: format!("node-{incarnation}").into(),
            incarnation,
        }
    }

    fn incarnations(nodes: &[Node]) -> Vec<u64> {
        nodes.iter().map(|node| node.incarnation).collect()
    }

    /// Returns a roster and the time of its creation.
    fn roster() -> (Roster, Instant) {
        let now = Instant::now();
        (Roster::new(OWN, now), now)
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test]
    async fn a_silent_node_is_given_up_and_comes_back_with_its_next_heartbeat() {
        let (mut roster, start) = roster();
        assert!(matches!(
            roster.hear(&heartbeat(OTHER, 1), start),
            Some(NodeChange::Came(_))
        ));
        for second in 1..=3 {
            let now = start + ms(second * 1000);
            assert_eq!(roster.hear(&heartbeat(OWN, second), now), None);
            assert!(roster.expire(now).is_empty(), "second {second}");
        }
        roster.hear(&heartbeat(OWN, 4), start + ms(3500));
        assert_eq!(incarnations(&roster.expire(start + ms(3500))), [OTHER]);
        assert!(roster.live().is_empty() && roster.expire(start + ms(3600)).is_empty());
        assert!(matches!(
            roster.hear(&heartbeat(OTHER, 2), start + ms(4000)),
            Some(NodeChange::Came(_))
        ));
    }

    #[tokio::test]
    async fn only_of_a_node_whose_first_heartbeat_came_the_beginning_is_known() {
        let (mut roster, start) = roster();
        roster.hear(&heartbeat(OTHER, 1), start);
        roster.hear(&heartbeat(OTHER, 2), start);
        roster.hear(&heartbeat(OTHER + 1, 2), start);
        assert!(roster.has_heard_begin(OTHER));
        assert!(!roster.has_heard_begin(OTHER + 1), "its first one was missed");
        assert!(!roster.has_heard_begin(OTHER + 2));
    }

    #[tokio::test]
    async fn goodbye_is_heard_at_once_and_a_late_heartbeat_does_not_bring_back() {
        let (mut roster, start) = roster();
        roster.hear(&heartbeat(OTHER, 1), start);
        let goodbye = Heartbeat {
            leaving: true,
            ..heartbeat(OTHER, 3)
        };
        assert!(matches!(roster.hear(&goodbye, start), Some(NodeChange::Went(_))));
        assert_eq!(roster.hear(&heartbeat(OTHER, 2), start), None);
        assert!(roster.live().is_empty());
    }

    #[tokio::test]
    async fn a_node_that_cannot_hear_gives_nobody_up_and_waits_after_it_hears_again() {
        let (mut roster, start) = roster();
        roster.hear(&heartbeat(OTHER, 1), start);
        assert!(!roster.hears(start + ms(40_000)));
        assert!(roster.expire(start + ms(40_000)).is_empty(), "it was the deaf one");
        roster.hear(&heartbeat(OWN, 1), start + ms(40_000));
        assert!(
            roster.expire(start + ms(40_000)).is_empty(),
            "the other may be about to speak"
        );
        for later in [41_000, 42_000, 43_000, 43_500] {
            roster.hear(&heartbeat(OWN, later), start + ms(later));
        }
        assert_eq!(incarnations(&roster.expire(start + ms(43_500))), [OTHER]);
    }

    #[tokio::test]
    async fn who_fell_silent_together_with_this_node_is_not_given_up() {
        let (mut roster, start) = roster();
        roster.hear(&heartbeat(OTHER, 1), start);
        // The other node's heartbeat was due next when the server failed.
        roster.hear(&heartbeat(OWN, 1), start + ms(990));
        for later in (1000..60_000).step_by(10) {
            assert!(roster.expire(start + ms(later)).is_empty(), "{later} ms");
        }
    }

    #[tokio::test]
    async fn a_node_given_up_may_deliver_until_its_lease_ends() {
        let (mut roster, start) = roster();
        assert!(roster.is_alone(start));
        roster.lease_taken(&node(OTHER), start + ms(10_000));
        assert!(
            !roster.is_alone(start) && !roster.hears_all(start),
            "it was never heard"
        );
        roster.hear(&heartbeat(OTHER, 1), start);
        assert!(roster.hears_all(start) && !roster.is_alone(start));
        for second in 1..=4 {
            roster.hear(&heartbeat(OWN, second), start + ms(second * 1000));
            roster.expire(start + ms(second * 1000));
        }
        assert!(roster.live().is_empty());
        for (at, has_ended) in [(4000, false), (9999, false), (10_000, true)] {
            let now = start + ms(at);
            assert_eq!((roster.hears_all(now), roster.is_alone(now)), (has_ended, has_ended));
            let unheard: Vec<&Node> = roster.unheard(now).collect();
            assert_eq!(unheard == [&node(OTHER)], !has_ended);
        }
    }

    #[tokio::test]
    async fn a_node_that_says_goodbye_or_gives_its_lease_back_delivers_nothing() {
        let (mut roster, start) = roster();
        roster.hear(&heartbeat(OTHER, 1), start);
        roster.lease_taken(&node(OTHER), start + ms(10_000));
        roster.lease_taken(&node(OTHER + 1), start + ms(10_000));
        let goodbye = Heartbeat {
            leaving: true,
            ..heartbeat(OTHER, 2)
        };
        roster.hear(&goodbye, start);
        assert!(!roster.hears_all(start));
        roster.lease_released(OTHER + 1);
        // A lease lasts until its release, which follows the goodbye.
        roster.lease_taken(&node(OTHER), start + ms(11_000));
        assert!(roster.hears_all(start) && roster.is_alone(start));
    }

    #[tokio::test]
    async fn two_processes_of_one_name_are_two_nodes() {
        let (mut roster, start) = roster();
        for incarnation in [2, 3] {
            let twin = Heartbeat {
                node_id: "twin".to_owned(),
                ..heartbeat(incarnation, 1)
            };
            assert!(matches!(roster.hear(&twin, start), Some(NodeChange::Came(_))));
        }
        assert_eq!(roster.live().len(), 2);
    }

    #[tokio::test]
    async fn the_ended_are_forgotten_after_a_while() {
        let (mut roster, start) = roster();
        for incarnation in 2..500 {
            roster.hear(&heartbeat(incarnation, 1), start);
        }
        let later = start + ms(100_000);
        roster.hear(&heartbeat(OWN, 1), later);
        for at in [later + ms(1000), later + ms(2000), later + ms(3000), later + ms(3500)] {
            roster.hear(&heartbeat(OWN, 2), at);
            roster.expire(at);
        }
        assert!(roster.others.is_empty(), "{}", roster.others.len());
    }
}
