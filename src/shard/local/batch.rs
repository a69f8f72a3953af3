//! Fan-out batches: items of one room that are delivered together, with the bytes that members share.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::RoomItem;
use crate::event::Event;
use crate::position::Offset;
use crate::session::Encoder;

/// Up to [`FanoutBatch::ITEMS_MAX`] items, the oldest first. A member receives those from some index on.
#[derive(Debug, Default)]
pub struct FanoutBatch {
    items: Vec<RoomItem>,
    bytes: usize,
    /// From this index on every member receives the same bytes: only events, none of which excludes a member.
    uniform_from: usize,
    joints: RefCell<Vec<SharedBytes>>,
}

/// The encoded bytes of all items from an index on, in one format.
#[derive(Debug)]
struct SharedBytes {
    from: usize,
    format: usize,
    bytes: Bytes,
}

impl FanoutBatch {
    /// The most items of one batch.
    pub const ITEMS_MAX: usize = 64;

    /// The payload bytes after which a batch accepts no further item.
    const BYTES_FULL: usize = 32 * 1024;

    /// Returns the items, in order.
    #[must_use]
    pub fn items(&self) -> &[RoomItem] {
        &self.items
    }

    /// Returns the batch extended by further items of its line, as many as fit; `None` when there are none. Events up to
    /// `start_max` are not for every member.
    #[must_use]
    pub fn extended(&self, line: &VecDeque<RoomItem>, start_max: Offset) -> Option<Self> {
        if self.items.len() == line.len() || self.is_full() {
            return None;
        }
        let mut more = Self {
            items: self.items.clone(),
            bytes: self.bytes,
            uniform_from: self.uniform_from,
            joints: RefCell::default(),
        };
        for item in line.iter().skip(self.items.len()) {
            if more.is_full() {
                break;
            }
            more.push(item.clone(), start_max);
        }
        Some(more)
    }

    const fn is_full(&self) -> bool {
        self.items.len() >= Self::ITEMS_MAX || self.bytes >= Self::BYTES_FULL
    }

    fn push(&mut self, item: RoomItem, start_max: Offset) {
        let uniform = match &item {
            RoomItem::Event(delivery) => {
                self.bytes += delivery.event.payload.bytes_len();
                let is_late = delivery.event.offset().is_some_and(|offset| offset <= start_max);
                delivery.event.except.is_empty() && !is_late
            }
            RoomItem::Presence(_) | RoomItem::Reset(_) => false,
        };
        self.items.push(item);
        if !uniform {
            self.uniform_from = self.items.len();
        }
    }

    /// Returns the bytes of all items from an index on, joined, where every member receives the same; `None` where members
    /// differ, by the items or because each has a cursor of its own.
    // Inlined, it is 16 instructions a delivery less (callgrind); by itself the compiler does not.
    #[inline]
    pub fn joint(&self, from: usize, format: usize, encoder: &dyn Encoder) -> Option<Bytes> {
        if from < self.uniform_from {
            return None;
        }
        if let Some(joint) = self
            .joints
            .borrow()
            .iter()
            .find(|joint| joint.from == from && joint.format == format)
        {
            return Some(joint.bytes.clone());
        }
        self.first_joint(from, format, encoder)
    }

    /// Joins the bytes for the first member of a format. Apart, so that it costs the other members nothing: not the question
    /// for a cursor either.
    #[inline(never)]
    fn first_joint(&self, from: usize, format: usize, encoder: &dyn Encoder) -> Option<Bytes> {
        if encoder.keeps_cursor() {
            return None;
        }
        let bytes = self.join(from, format, |event| encoder.event(event));
        self.joints.borrow_mut().push(SharedBytes {
            from,
            format,
            bytes: bytes.clone(),
        });
        Some(bytes)
    }

    fn join(&self, from: usize, format: usize, encode: impl Fn(&Event) -> Bytes) -> Bytes {
        let frames = self.items[from..].iter().filter_map(|item| match item {
            RoomItem::Event(delivery) => Some(delivery.frame(format, &encode)),
            RoomItem::Presence(_) | RoomItem::Reset(_) => None,
        });
        let frames: Vec<&Bytes> = frames.collect();
        if let [only] = frames[..] {
            return only.clone();
        }
        let mut joint = BytesMut::with_capacity(frames.iter().map(|frame| frame.len()).sum());
        for frame in frames {
            joint.extend_from_slice(frame);
        }
        joint.freeze()
    }

    /// Counts the members that received these items, for each event's span.
    pub fn handed_to(&self, from: impl Iterator<Item = usize>) {
        let mut begun = [0; Self::ITEMS_MAX];
        for index in from {
            begun[index] += 1;
        }
        let mut members = 0;
        for (item, begun) in self.items.iter().zip(begun) {
            members += begun;
            if let RoomItem::Event(delivery) = item {
                delivery.handed_to(members);
            }
        }
    }
}
