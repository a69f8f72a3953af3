//! The chain of one room: what is delivered, what waits, what has to be fetched. Pure; the driver does what it says.
//!
//! The stream stamps each live event with its sequence and with that of the room's event before it. What was delivered
//! reaches through `last`. A live event continues exactly if nothing lies between `last` and it: its `prev` is not after
//! `last`. All else waits until what is missing was fetched, or it is said that it cannot be.
//!
//! An event whose `prev` lies *before* `last` continues only as long as nothing can have been lost unseen: the room may
//! have had events that nobody here saw and that the stream has dropped since. So a chain that is *suspect*, because a
//! connection broke or the stream may be another one, holds everything until it was verified.

use std::collections::BTreeMap;

/// What the driver does, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output<E> {
    /// Hands the event to the subscribers.
    Deliver {
        /// Its sequence.
        seq: u64,
        /// The sequence of the room's event before it.
        prev: u64,
        /// The event.
        event: E,
    },
    /// Tells the subscribers that they start afresh here.
    Reset {
        /// Where the room stands.
        head: u64,
    },
}

/// What has to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fetch {
    /// Everything after this.
    pub after: u64,
    /// At least up to this; 0 when only the leader's word is needed.
    pub want: u64,
    /// Whether the leader has to say that there is no more.
    pub verify: bool,
    /// How often something was suspected when it was asked.
    pub doubts: u64,
}

/// What a fetch came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fetched<E> {
    /// These are exactly the room's next events.
    Exact {
        /// With their sequences, oldest first.
        events: Vec<(u64, E)>,
        /// The leader has confirmed that no more there were when it was asked.
        confirmed: bool,
    },
    /// What came after is not known any more.
    Broken {
        /// Where the room stands.
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
    /// A chain that holds what comes until its head is known.
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

    /// Through where everything was delivered; 0 while joining.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    pub(super) const fn is_joining(&self) -> bool {
        self.joining
    }

    pub(super) const fn is_suspect(&self) -> bool {
        self.suspect
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// What has to be fetched now.
    pub(super) fn fetch(&self) -> Option<Fetch> {
        (!self.joining && (self.suspect || self.want > self.last)).then_some(Fetch {
            after: self.last,
            want: self.want,
            verify: self.suspect,
            doubts: self.doubts,
        })
    }

    /// The head is known: all before it is not ours to deliver.
    pub(super) fn joined(&mut self, head: u64, out: &mut Vec<Output<E>>) {
        self.joining = false;
        self.suspect = false;
        self.last = head;
        self.drain(out);
    }

    /// A live event came.
    pub(super) fn live(&mut self, seq: u64, prev: u64, event: E, out: &mut Vec<Output<E>>) {
        if !self.joining && seq <= self.last {
            return;
        }
        if self.joining || self.suspect || prev > self.last {
            if prev > self.last && !self.joining {
                self.want = self.want.max(prev);
            }
            self.hold(seq, prev, event);
            return;
        }
        self.deliver(seq, prev, event, out);
        self.drain(out);
    }

    /// Somebody says that the room's head is at least here.
    pub(super) fn told(&mut self, head: u64) {
        if !self.joining && head > self.last {
            self.want = self.want.max(head);
        }
    }

    /// Something may have been missed unseen.
    pub(super) fn suspect(&mut self) {
        self.suspect = !self.joining;
        self.doubts += 1;
    }

    /// Nothing was missed that a live event or a fetch would not show.
    pub(super) fn verified(&mut self, out: &mut Vec<Output<E>>) {
        self.suspect = false;
        self.drain(out);
    }

    /// What was asked for is here.
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
                    // What was suspected while the leader was asked stays.
                    self.suspect &= !(asked.verify && asked.doubts == self.doubts);
                }
            }
            // While it was fetched, what was missing has come live.
            Fetched::Broken { .. } if self.last > asked.after && !self.suspect => {}
            Fetched::Broken { head } => {
                self.last = head;
                self.suspect = false;
                out.push(Output::Reset { head });
            }
        }
        self.drain(out);
    }

    /// The history is another one: as at the beginning.
    pub(super) fn restart(&mut self) {
        *self = Self::joining(self.held_max);
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

    /// Keeps the oldest; what does not fit is fetched.
    fn hold(&mut self, seq: u64, prev: u64, event: E) {
        self.held.insert(seq, (prev, event));
        if self.held.len() > self.held_max
            && let Some((dropped, _)) = self.held.pop_last()
        {
            self.want = self.want.max(dropped);
        }
    }
}
