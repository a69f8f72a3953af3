//! Items of one room that are handed out together, with the bytes that all members share.

use std::cell::OnceCell;
use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::local::Item;
use crate::bus::Delivery;
use crate::event::Event;
use crate::position::Offset;

/// Up to [`Batch::ITEMS_MAX`] items.
#[derive(Debug)]
pub struct Batch {
    items: Vec<Item>,
    /// Whether every member gets the same bytes: only events, and nobody left out of one.
    uniform: bool,
    joint: [OnceCell<Bytes>; Delivery::FORMATS],
}

impl Batch {
    /// The most items of one batch.
    pub const ITEMS_MAX: usize = 64;

    /// The payload bytes after which a batch takes no further item.
    const BYTES_FULL: usize = 32 * 1024;

    /// Takes as many items as fit; `None` when there are none. Events up to `start_max` are not for every member.
    pub fn take_from(queue: &mut VecDeque<Item>, start_max: Offset) -> Option<Self> {
        let (mut items, mut bytes, mut uniform) = (Vec::new(), 0, true);
        while items.len() < Self::ITEMS_MAX && bytes < Self::BYTES_FULL {
            let Some(item) = queue.pop_front() else { break };
            match &item {
                Item::Event(delivery) => {
                    bytes += delivery.event.payload.bytes_len();
                    let is_late = delivery.event.offset().is_some_and(|offset| offset <= start_max);
                    uniform &= delivery.event.except.is_empty() && !is_late;
                }
                Item::Presence(_) | Item::Reset(_) => uniform = false,
            }
            items.push(item);
        }
        (!items.is_empty()).then(|| Self {
            items,
            uniform,
            joint: Default::default(),
        })
    }

    /// The items, in order.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The bytes of all items in one, where every member gets the same; `None` where members differ.
    pub fn joint(&self, format: usize, encode: impl Fn(&Event) -> Bytes) -> Option<&Bytes> {
        if !self.uniform {
            return None;
        }
        Some(self.joint[format].get_or_init(|| self.join(format, encode)))
    }

    fn join(&self, format: usize, encode: impl Fn(&Event) -> Bytes) -> Bytes {
        let frames = self.items.iter().filter_map(|item| match item {
            Item::Event(delivery) => Some(delivery.frame(format, &encode)),
            Item::Presence(_) | Item::Reset(_) => None,
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
}
