//! Several events at once. Those for one room each are passed to the bus together.
//!
//! An event is parsed on arrival, and its reply is built when it is sent. In between only the necessary parts are kept,
//! so that memory is reused at once.

use futures_util::future::join_all;
use tracing::{Instrument as _, Span};

use super::draft::{Draft, ParseCache};
use super::turns::Turns;
use crate::api::credentials::Caller;
use crate::api::status::Refusal;
use crate::api::{ApiServices, span};
use crate::event::{EventId, Publish};
use crate::policy::{Action, Permit};
use crate::proto::v1;
use crate::room::Room;
use crate::rooms::{Outcome, Permitted};

type Answer = Result<v1::PublishResponse, Refusal>;

/// One of several events, checked as far as no other component is needed.
pub(super) enum Parsed {
    /// Needs only the bus.
    Ready(Permitted),
    /// Needs more: a connection, several rooms, or the comparison of an epoch.
    Special(Span, Draft),
    /// The event is refused.
    Refused(Refusal),
}

/// Outcome of one of several events.
pub(super) enum Done {
    /// The bus accepted it.
    Published(Room, Outcome, Span),
    /// Anything else.
    Answered(Answer),
}

impl ApiServices {
    /// Parses one of several events; `span` is its own.
    pub(super) fn parse(
        &self,
        caller: &Caller,
        span: Span,
        request: v1::PublishRequest,
        recent: &mut ParseCache,
    ) -> Parsed {
        let draft = match self.draft(caller, request, recent) {
            Ok(draft) if draft.needs_only_the_bus() => draft,
            Ok(draft) => return Parsed::Special(span, draft),
            Err(refusal) => return Parsed::Refused(refusal),
        };
        match permitted(caller, draft) {
            Ok((permit, publish)) => Parsed::Ready(Permitted { permit, publish, span }),
            Err(refusal) => Parsed::Refused(refusal),
        }
    }

    /// Publishes events in order. A failed event does not stop the next. Returns the outcomes in the same order.
    pub(super) async fn publish_many(
        &self,
        caller: &Caller,
        events: impl ExactSizeIterator<Item = Parsed>,
    ) -> Vec<Done> {
        let mut done = Vec::with_capacity(events.len());
        let mut run = Vec::with_capacity(events.len());
        let mut specials = Vec::new();
        for event in events {
            // Each kind waits for the kinds before it, so that outcomes are in order, too.
            if !matches!(event, Parsed::Ready(_)) {
                self.publish_run(&mut run, &mut done).await;
            }
            if !matches!(event, Parsed::Special(..)) {
                self.publish_specials(caller, &mut specials, &mut done).await;
            }
            match event {
                Parsed::Ready(event) => run.push(event),
                Parsed::Special(span, draft) => specials.push((span, draft)),
                Parsed::Refused(refusal) => done.push(Done::Answered(Err(refusal))),
            }
        }
        self.publish_run(&mut run, &mut done).await;
        self.publish_specials(caller, &mut specials, &mut done).await;
        done
    }

    async fn publish_run(&self, run: &mut Vec<Permitted>, done: &mut Vec<Done>) {
        if run.is_empty() {
            return;
        }
        let sent = run.iter().map(|event| (event.publish.room.clone(), event.span.clone()));
        let sent: Vec<_> = sent.collect();
        let outcomes = self.context.rooms.publish_all(std::mem::take(run)).await;
        let each = sent.into_iter().zip(outcomes);
        done.extend(each.map(|((room, span), outcome)| match outcome {
            Ok(outcome) => Done::Published(room, outcome, span),
            Err(error) => Done::Answered(Err(Refusal::publish(&error, room))),
        }));
    }

    /// Publishes special events concurrently, because they may wait. Those of the same room take turns.
    async fn publish_specials(&self, caller: &Caller, specials: &mut Vec<(Span, Draft)>, done: &mut Vec<Done>) {
        if specials.is_empty() {
            return;
        }
        let turns = &Turns::default();
        let publishing = specials.drain(..).map(|(span, draft)| {
            let publishing = async move {
                let _turns = turns.take(&draft.rooms).await;
                self.publish_draft(caller, draft).await
            };
            publishing.instrument(span)
        });
        done.extend(join_all(publishing).await.into_iter().map(Done::Answered));
    }
}

impl Done {
    /// Builds the reply.
    pub(super) fn answer(self) -> Answer {
        match self {
            Self::Published(room, outcome, span) => {
                let results = vec![super::result(&room, outcome)];
                span.in_scope(|| span::record_publish(&results));
                Ok(v1::PublishResponse { results })
            }
            Self::Answered(answer) => answer,
        }
    }
}

/// Returns the permit of an event that needs only the bus, and its publish.
pub(super) fn permitted(caller: &Caller, draft: Draft) -> Result<(Permit, Publish), Refusal> {
    let publish = draft.into_publish(EventId::random());
    let action = Action::Publish(publish.name.clone());
    let permit = caller.service.permit(publish.room.clone(), action)?;
    Ok((permit, publish))
}
