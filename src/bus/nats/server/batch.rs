//! Reads in batches (NATS ADR-31), which the client library lacks. A lagging replica may respond.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::header::{NATS_SEQUENCE, NATS_SUBJECT};
use async_nats::{Message, StatusCode, Subscriber};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::time::timeout;

use super::{Server, Stored, UNANSWERED};
use crate::bus::nats::wire;
use crate::event::Event;
use crate::nats::request::RequestFailed;
use crate::room::Room;

/// The most subjects of one request for heads (`nats-server`: 1,024).
pub(in crate::bus::nats) const HEADS_MAX: usize = 1024;

/// Headers of the end of a batch (NATS ADR-31).
const NUM_PENDING: &str = "Nats-Num-Pending";
const UP_TO_SEQUENCE: &str = "Nats-UpTo-Sequence";

/// The end of a read that is kept when there is more than `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus::nats) enum Keep {
    /// The oldest; the read stops there.
    Oldest { max: usize },
    /// The newest; the read goes to the end.
    Newest { max: usize },
}

/// A room's stored events.
#[derive(Debug, Default)]
pub(in crate::bus::nats) struct Events {
    /// With their sequences, oldest first.
    pub events: Vec<(u64, Event)>,
    /// The newest sequence that was read, foreign messages included.
    pub reached: u64,
    /// The oldest were left out.
    pub cut: bool,
    /// The newest may have been left out.
    pub full: bool,
}

/// The heads of several subjects.
#[derive(Debug, Default)]
pub(in crate::bus::nats) struct Heads {
    pub messages: Vec<Stored>,
    /// The stream's newest sequence as the responder knew it.
    pub up_to: Option<u64>,
}

impl Server {
    /// Reads a room's stored events from `from` on, oldest first, without foreign messages. The stream may remove
    /// events during the read.
    pub(in crate::bus::nats) async fn events(
        &self,
        partition: u16,
        room: &Room,
        from: u64,
        keep: Keep,
    ) -> Result<Events, RequestFailed> {
        let _turn = self.turn().await?;
        let subjects = self.nats.subjects();
        let stream = subjects.stream_of_partition(partition);
        let subject = subjects.history(partition, room);
        let (Keep::Oldest { max } | Keep::Newest { max }) = keep;
        let mut read = Events {
            reached: from.saturating_sub(1),
            ..Events::default()
        };
        let mut events = VecDeque::new();
        loop {
            let request = json!({"seq": read.reached + 1, "next_by_subj": subject, "batch": max.max(1)});
            let answer = self.direct(&stream, &request).await?;
            let Some(last) = answer.messages.last() else { break };
            read.reached = last.seq;
            events.extend(answer.messages.into_iter().filter_map(|stored| {
                let event = wire::event(room, stored.payload, stored.time)?;
                Some((stored.seq, event))
            }));
            let excess = events.len().saturating_sub(max);
            match keep {
                Keep::Oldest { .. } => read.full = events.len() >= max && answer.pending > 0,
                Keep::Newest { .. } => {
                    read.cut |= excess > 0;
                    events.drain(..excess);
                }
            }
            if answer.pending == 0 || read.full {
                break;
            }
        }
        read.events = events.into();
        Ok(read)
    }

    /// Returns the newest messages of up to [`HEADS_MAX`] subjects, of those that have one at `from` or later.
    pub(in crate::bus::nats) async fn heads(
        &self,
        stream: &str,
        subjects: &[String],
        from: u64,
    ) -> Result<Heads, RequestFailed> {
        let _turn = self.turn().await?;
        let request = json!({"multi_last": subjects, "seq": from, "batch": HEADS_MAX});
        let answer = self.direct(stream, &request).await?;
        Ok(Heads {
            messages: answer.messages,
            up_to: answer.up_to,
        })
    }

    /// Returns the oldest messages at or after a sequence on the subjects of a pattern, at most so many and about so many
    /// bytes, and how many follow them.
    pub(in crate::bus::nats) async fn page(
        &self,
        stream: &str,
        pattern: &str,
        from: u64,
        (messages_max, bytes_max): (usize, usize),
    ) -> Result<(Vec<Stored>, u64), RequestFailed> {
        let _turn = self.turn().await?;
        let request = json!({"seq": from, "next_by_subj": pattern, "batch": messages_max, "max_bytes": bytes_max});
        let answer = self.direct(stream, &request).await?;
        Ok((answer.messages, answer.pending))
    }

    /// Returns the newest messages of up to [`HEADS_MAX`] subjects at or before a sequence.
    pub(in crate::bus::nats) async fn heads_up_to(
        &self,
        stream: &str,
        subjects: &[String],
        through: u64,
    ) -> Result<Vec<Stored>, RequestFailed> {
        let _turn = self.turn().await?;
        let request = json!({"multi_last": subjects, "up_to_seq": through, "batch": HEADS_MAX});
        Ok(self.direct(stream, &request).await?.messages)
    }

    /// Sends one request and collects its responses.
    async fn direct(&self, stream: &str, request: &serde_json::Value) -> Result<Answer, RequestFailed> {
        let client = self.nats.control().client();
        let inbox = client.new_inbox();
        let mut answers = client
            .subscribe(inbox.clone())
            .await
            .map_err(RequestFailed::unavailable)?;
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let sent = client
            .publish_with_reply(subject, inbox, request.to_string().into())
            .await;
        sent.map_err(RequestFailed::unavailable)?;
        let mut answer = Answer::default();
        loop {
            let message = next(&mut answers, self.patience()).await?;
            match message.status {
                None => answer
                    .messages
                    .push(read(message).ok_or_else(|| RequestFailed::unavailable("a message cannot be read"))?),
                Some(StatusCode::NOT_FOUND) => return Ok(answer),
                Some(status) if status.as_u16() == 204 => {
                    let number = |name| message.headers.as_ref().and_then(|headers| wire::number(headers, name));
                    answer.pending = number(NUM_PENDING).unwrap_or(0);
                    answer.up_to = number(UP_TO_SEQUENCE);
                    return Ok(answer);
                }
                Some(StatusCode::NO_RESPONDERS) => {
                    return Err(RequestFailed::unavailable("no server holds the stream"));
                }
                Some(status) => {
                    let said = message.description.unwrap_or_default();
                    tracing::warn!(%status, said, "nats refused read");
                    return Err(RequestFailed::unavailable("the read was refused"));
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Answer {
    messages: Vec<Stored>,
    pending: u64,
    up_to: Option<u64>,
}

async fn next(answers: &mut Subscriber, patience: Duration) -> Result<Message, RequestFailed> {
    match timeout(patience, answers.next()).await {
        Ok(Some(message)) => Ok(message),
        Ok(None) | Err(_) => Err(RequestFailed::unavailable(UNANSWERED)),
    }
}

fn read(message: Message) -> Option<Stored> {
    let headers = message.headers?;
    Some(Stored {
        subject: headers.get(NATS_SUBJECT)?.as_str().to_owned(),
        seq: wire::number(&headers, NATS_SEQUENCE)?,
        time: wire::time(&headers)?,
        payload: message.payload,
    })
}
