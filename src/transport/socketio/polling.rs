//! The carrier of a client that polls: frames that wait, and the poll that waits for them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::connection::{Reply, ReplyTo};
use super::payload::Answer;
use crate::session::Frame;
use crate::session::link::{FrameKind, SendError};
use crate::transport::outbox;
use crate::transport::websocket::frame::text_frame;

/// The state of a client that polls after its poll was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Polled {
    /// What there is to tell was told, or waits for a poll.
    Done,
    /// Something waits for the lease.
    Withheld,
    /// The client has gone, and packets with it.
    Gone,
}

/// The frames for which a queue that is empty keeps memory.
const QUEUE_USUAL: usize = 16;

/// The packet of a ping.
pub(super) const PING: &str = "2";

/// Frames that wait for the next poll, the oldest first, each with the time since when.
#[derive(Debug, Default)]
pub(in crate::transport) struct Polling {
    pub(super) queue: VecDeque<(Frame, u64)>,
    pub(super) bytes: usize,
    /// The poll that waits for a frame.
    pending: Option<ReplyTo>,
    /// The last poll had gone when it was answered, and the packets with it.
    pub is_aborted: bool,
    /// A WebSocket has been probed: every poll is answered at once, with nothing, until the upgrade.
    pub probed: bool,
    /// The time since which there is a WebSocket to be probed.
    pub probing_since_ms: Option<u64>,
    /// A ping goes with the next answer. It is no frame of the queue, which waits for the lease.
    pub owes_ping: bool,
}

impl Polling {
    pub(super) fn push(
        &mut self,
        frame: Frame,
        kind: FrameKind,
        now_ms: u64,
        bounds: &outbox::Config,
    ) -> Result<(), SendError> {
        let is_full = !self.queue.is_empty() && self.bytes + frame.len() > bounds.outbox_bytes_max;
        // Replies are bounded: commands pause while much is queued.
        if is_full && kind == FrameKind::Push {
            return Err(SendError::Overflow);
        }
        self.bytes += frame.len();
        self.queue.push_back((frame, now_ms));
        Ok(())
    }

    /// Lets the time of what is queued start anew: it was withheld from its client, who may have polled all the while.
    pub(in crate::transport) fn restart_clock(&mut self, now_ms: u64) {
        for (_, since_ms) in &mut self.queue {
            *since_ms = now_ms;
        }
    }

    /// Lets a poll wait for packets; returns the poll that waited already.
    pub(in crate::transport) fn wait(&mut self, reply: ReplyTo) -> Option<ReplyTo> {
        self.pending.replace(reply)
    }

    /// Answers the waiting poll with what is queued, or, once a WebSocket was probed, with nothing.
    pub(super) fn answer(&mut self, may_deliver: bool) {
        if self.probed {
            return self.release();
        }
        if self.pending.is_none() {
            return;
        }
        let mut answer = Answer::default();
        if std::mem::take(&mut self.owes_ping) {
            answer.take_from(&mut text_frame(PING));
        }
        while may_deliver && let Some((frame, since_ms)) = self.queue.pop_front() {
            let (before, mut rest) = (frame.len(), frame);
            answer.take_from(&mut rest);
            self.bytes -= before - rest.len();
            if !rest.is_empty() {
                self.queue.push_front((rest, since_ms));
                break;
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > QUEUE_USUAL {
            // Memory goes back after a burst.
            self.queue = VecDeque::new();
        }
        if let Some(body) = answer.into_body() {
            self.reply(Reply::Body(body));
        }
    }

    /// Answers the waiting poll with nothing, so that another one may follow or none.
    pub(in crate::transport) fn release(&mut self) {
        self.reply(Reply::Body(Bytes::from_static(b"6")));
    }

    /// Answers the waiting poll.
    pub(in crate::transport) fn reply(&mut self, reply: Reply) {
        if let Some(pending) = self.pending.take() {
            self.is_aborted |= pending.send(reply).is_err();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn what_was_withheld_is_told_in_order_and_is_as_new_until_then() {
        let (mut polling, bounds) = (Polling::default(), outbox::Config::default());
        for text in ["42[\"a\"]", "42[\"b\"]"] {
            polling.push(text_frame(text), FrameKind::Push, 0, &bounds).unwrap();
        }
        let (poll, mut answered) = oneshot::channel();
        assert!(polling.wait(poll).is_none());
        polling.owes_ping = true;
        polling.answer(false);
        assert_eq!(answered.try_recv(), Ok(Reply::Body(PING.into())));
        let (poll, mut answered) = oneshot::channel();
        assert!(polling.wait(poll).is_none());
        polling.answer(false);
        assert!(answered.try_recv().is_err());
        polling.restart_clock(60_000);
        assert!(polling.queue.iter().all(|(_, since_ms)| *since_ms == 60_000));
        polling.answer(true);
        let body = "42[\"a\"]\u{1e}42[\"b\"]";
        assert_eq!(answered.try_recv(), Ok(Reply::Body(body.into())));
        assert_eq!((polling.queue.len(), polling.bytes), (0, 0));
    }
}
