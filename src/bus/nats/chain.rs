//! The sequence chain of one room: gap detection, and the order of delivery. Pure; the driver executes its outputs.
//!
//! The stream stamps each live event with its sequence and with that of the room's previous event. Everything through
//! `last` was delivered. A live event continues the chain exactly if nothing lies between `last` and it: its `prev` is
//! not after `last`. Every other event is held until the gap was fetched, or reported as lost.
//!
//! An event whose `prev` lies *before* `last` continues the chain only while nothing can have been lost unseen. The
//! room may have had events that this node never saw and that the stream has dropped since. So a chain that is
//! *suspect*, because a connection broke or the stream may be another one, holds everything until it was verified.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

/// An instruction to the driver, to be executed in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output<E> {
    /// Delivers the event to the subscribers.
    Deliver {
        /// Its sequence.
        seq: u64,
        /// The sequence of the room's previous event.
        prev: u64,
        /// The event.
        event: E,
    },
    /// Reports to the subscribers that they start afresh here.
    Reset {
        /// The room's head.
        head: u64,
    },
}

/// A range to fetch from the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fetch {
    /// The exclusive lower bound.
    pub after: u64,
    /// The least upper end; 0 when only the leader's confirmation is needed.
    pub want: u64,
    /// The leader has to confirm that there is no more.
    pub verify: bool,
    /// The number of suspicions at the time of the request.
    pub doubts: u64,
    /// The newest held event at the time of the request.
    pub held: u64,
}

/// The result of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fetched<E> {
    /// Exactly the room's next events.
    Exact {
        /// With their sequences, oldest first.
        events: Vec<(u64, E)>,
        /// The leader confirmed that there were no more at the time of the request.
        confirmed: bool,
    },
    /// The events after the position are not retained any more.
    Broken {
        /// The room's head.
        head: u64,
    },
}

/// One room's chain.
#[derive(Debug)]
pub(super) struct Chain<E> {
    joining: bool,
    suspect: bool,
    doubts: u64,
    last: u64,
    want: u64,
    held: BTreeMap<u64, (u64, E)>,
    held_max: usize,
}

impl<E> Chain<E> {
    /// Creates a chain that holds every event until its head is known.
    pub(super) const fn joining(held_max: usize) -> Self {
        Self {
            joining: true,
            suspect: false,
            doubts: 0,
            last: 0,
            want: 0,
            held: BTreeMap::new(),
            held_max,
        }
    }

    /// Returns the sequence through which everything was delivered; 0 while joining.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    pub(super) const fn is_joining(&self) -> bool {
        self.joining
    }

    pub(super) const fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Reports whether no gap is known and none suspected.
    pub(super) fn is_settled(&self) -> bool {
        !self.joining && self.fetch().is_none()
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns the range that has to be fetched now.
    pub(super) fn fetch(&self) -> Option<Fetch> {
        (!self.joining && (self.suspect || self.want > self.last)).then_some(Fetch {
            after: self.last,
            want: self.want,
            verify: self.suspect,
            doubts: self.doubts,
            held: self.held.last_key_value().map_or(0, |(seq, _)| *seq),
        })
    }

    /// Sets the head. Everything through it is not this chain's to deliver.
    pub(super) fn joined(&mut self, head: u64, out: &mut Vec<Output<E>>) {
        self.joining = false;
        self.suspect = false;
        self.last = head;
        self.drain(out);
    }

    /// Takes a live event.
    pub(super) fn live(&mut self, seq: u64, prev: u64, event: E, out: &mut Vec<Output<E>>) {
        if !self.joining && seq <= self.last {
            return;
        }
        if self.joining || self.suspect || prev > self.last {
            if prev > self.last && !self.joining {
                self.want = self.want.max(prev);
            }
            // A suspect chain holds even an event that follows: its predecessor may have been dropped unseen.
            self.hold(seq, prev, event);
            return;
        }
        self.deliver(seq, prev, event, out);
        self.drain(out);
    }

    /// Takes a hint that the room's head is at least here.
    pub(super) fn told(&mut self, head: u64) {
        if !self.joining && head > self.last {
            self.want = self.want.max(head);
        }
    }

    /// Marks the chain suspect: something may have been missed unseen.
    pub(super) fn suspect(&mut self) {
        self.suspect = !self.joining;
        self.doubts += 1;
    }

    /// Clears the suspicion: nothing was missed that a live event or a fetch would not show.
    pub(super) fn verified(&mut self, out: &mut Vec<Output<E>>) {
        self.suspect = false;
        self.drain(out);
    }

    /// Takes the result of a fetch.
    pub(super) fn fetched(&mut self, asked: Fetch, fetched: Fetched<E>, out: &mut Vec<Output<E>>) {
        match fetched {
            Fetched::Exact { events, confirmed } => {
                for (seq, event) in events {
                    if seq > self.last {
                        self.deliver(seq, self.last, event, out);
                    }
                }
                if confirmed {
                    if self.want <= asked.want {
                        self.want = 0;
                    }
                    // A suspicion raised after the leader was asked stays.
                    self.suspect &= !(asked.verify && asked.doubts == self.doubts);
                    self.drain(out);
                    self.forget_foreign(asked.held);
                }
            }
            // The gap was filled by live events during the fetch.
            Fetched::Broken { .. } if self.last > asked.after && !self.suspect => {}
            Fetched::Broken { head } => {
                self.last = head;
                self.suspect = false;
                out.push(Output::Reset { head });
            }
        }
        self.drain(out);
    }

    /// Restarts the chain: the history is another one.
    pub(super) fn restart(&mut self) {
        *self = Self::joining(self.held_max);
    }

    /// Drops foreign events. An event is foreign to this stream if it was held when the leader was asked, follows one
    /// that the leader does not know, and is still held.
    fn forget_foreign(&mut self, held: u64) {
        let last = self.last;
        self.held.retain(|seq, (prev, _)| *seq > held || *prev <= last);
        if self.want <= held {
            self.want = 0;
        }
    }

    fn deliver(&mut self, seq: u64, prev: u64, event: E, out: &mut Vec<Output<E>>) {
        self.last = seq;
        out.push(Output::Deliver { seq, prev, event });
    }

    fn drain(&mut self, out: &mut Vec<Output<E>>) {
        while let Some(first) = self.held.first_entry() {
            let (seq, prev) = (*first.key(), first.get().0);
            if seq <= self.last {
                first.remove();
            } else if prev > self.last {
                self.want = self.want.max(prev);
                break;
            } else if self.suspect {
                break;
            } else {
                let (prev, event) = first.remove();
                self.deliver(seq, prev, event, out);
            }
        }
        if self.want <= self.last {
            self.want = 0;
        }
    }

    /// Holds an event. Beyond the bound the newest is dropped and fetched later, because the oldest are delivered
    /// first.
    fn hold(&mut self, seq: u64, prev: u64, event: E) {
        self.held.insert(seq, (prev, event));
        if self.held.len() > self.held_max
            && let Some((dropped, _)) = self.held.pop_last()
        {
            self.want = self.want.max(dropped);
        }
    }
}
