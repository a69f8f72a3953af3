//! Pages of a room's history, in both directions, never with a gap.
//!
//! With each page the bus reports whether everything after its beginning is kept, and whether a bound has cut it.

use std::sync::Arc;

use super::permit;
use crate::api::ApiServices;
use crate::api::convert::{self, Claim};
use crate::api::credentials::{Caller, Scope};
use crate::api::page::{self, Query};
use crate::api::status::Refusal;
use crate::bus::{HistoryPage, Page, ReadBounds};
use crate::event::Event;
use crate::policy::{Action, Permit};
use crate::position::{Offset, Position};
use crate::proto::v1;
use crate::rooms::Rooms;

/// The most events of one page: as many as a room keeps by default, so that one page is usually all.
const PAGE_MAX: usize = 300;

/// The most payload bytes of one page; `unread` reserves twice as much for a reply.
const PAGE_BYTES_MAX: usize = 1 << 20;

impl ApiServices {
    pub(super) async fn list_history(
        &self,
        caller: &Caller,
        request: v1::ListHistoryRequest,
    ) -> Result<v1::ListHistoryResponse, Refusal> {
        let permit = permit(caller, Scope::Read, &request.tenant, &request.room, Action::History)?;
        let newest_first = match v1::HistoryOrder::try_from(request.order) {
            Ok(v1::HistoryOrder::NewestFirst) => true,
            Ok(_) => false,
            Err(_) => return Err(Refusal::field("order", "is not an order")),
        };
        let query = query(&permit, newest_first, &request);
        let rooms = &self.context.rooms;
        let reader = Reader {
            rooms,
            permit: &permit,
            head: rooms.head(&permit).await?,
            bounds: ReadBounds {
                events_max: page::size(request.page_size, PAGE_MAX)?,
                bytes_max: PAGE_BYTES_MAX,
            },
        };
        let (after, before) = tokio::try_join!(
            reader.offset("after", request.after.as_ref()),
            reader.offset("before", request.before.as_ref()),
        )?;
        let cursor = query.cursor(&request.page_token, |bytes| reader.resume(bytes))?;
        let (events, next) = if newest_first {
            reader.newest_first(after, cursor.or(before)).await?
        } else {
            reader.oldest_first(cursor.or(after), before).await?
        };
        let next = next.map(|offset| query.token(&reader.cursor_bytes(offset)));
        Ok(v1::ListHistoryResponse {
            events: events.iter().map(|event| convert::event(event)).collect(),
            next_page_token: next.unwrap_or_default(),
            head: Some(convert::position(reader.head)),
        })
    }
}

fn query(permit: &Permit, newest_first: bool, request: &v1::ListHistoryRequest) -> Query {
    use prost::Message as _;
    let bound = |position: &Option<v1::Position>| position.as_ref().map(v1::Position::encode_to_vec);
    let (after, before) = (bound(&request.after), bound(&request.before));
    Query::of(&[
        b"history",
        permit.room().key(),
        &[u8::from(newest_first)],
        &[u8::from(after.is_some()), u8::from(before.is_some())],
        &after.unwrap_or_default(),
        &before.unwrap_or_default(),
    ])
}

/// Events in the requested order, and the cursor of the next page.
type Found = (Vec<Arc<Event>>, Option<Offset>);

struct Reader<'a> {
    rooms: &'a Rooms,
    permit: &'a Permit,
    head: Position,
    bounds: ReadBounds,
}

impl Reader<'_> {
    /// Returns everything after `after` and before `before`, from old to new.
    async fn oldest_first(&self, after: Option<Offset>, before: Option<Offset>) -> Result<Found, Refusal> {
        let HistoryPage { mut events, more, .. } = match after {
            Some(after) => self.after(after, self.bounds).await?,
            None => self.page(Page::After(Offset::ZERO), self.bounds).await?,
        };
        let read = events.len();
        events.retain(|event| before.is_none_or(|before| event.offset() < Some(before)));
        let goes_on = more && events.len() == read;
        let next = events.last().and_then(|event| event.offset()).filter(|_| goes_on);
        match (next, before) {
            (Some(next), Some(before)) => {
                // The remaining events may all be past the end; an empty page must not follow.
                let following = self.page(Page::After(next), self.bounds.with_events_max(1)).await?;
                let within = following
                    .events
                    .first()
                    .is_some_and(|event| event.offset() < Some(before));
                Ok((events, within.then_some(next)))
            }
            (next, _) => Ok((events, next)),
        }
    }

    /// Returns everything before `before` and after `after`, from new to old.
    async fn newest_first(&self, after: Option<Offset>, before: Option<Offset>) -> Result<Found, Refusal> {
        if let Some(after) = after {
            // Checked apart: the page itself cannot show whether its far end is complete.
            self.after(after, self.bounds.with_events_max(1)).await?;
        }
        let page = before.map_or(Page::Newest, Page::Before);
        let HistoryPage { mut events, more, .. } = self.page(page, self.bounds).await?;
        events.retain(|event| after.is_none_or(|after| event.offset() > Some(after)));
        // With more to follow, the first event's predecessor is kept.
        let first = events.first().and_then(|event| event.link).filter(|_| more);
        let next = first.filter(|link| after.is_none_or(|after| link.prev > after));
        events.reverse();
        Ok((events, next.map(|link| link.position.offset)))
    }

    /// Returns the events after an offset; refused when one of them is no longer kept.
    async fn after(&self, after: Offset, bounds: ReadBounds) -> Result<HistoryPage, Refusal> {
        let page = self.page(Page::After(after), bounds).await?;
        if page.complete {
            Ok(page)
        } else {
            Err(self.not_retained().await?)
        }
    }

    async fn page(&self, page: Page, bounds: ReadBounds) -> Result<HistoryPage, Refusal> {
        Ok(self.rooms.history(self.permit, page, bounds).await?)
    }

    async fn not_retained(&self) -> Result<Refusal, Refusal> {
        let oldest = self
            .page(Page::After(Offset::ZERO), self.bounds.with_events_max(1))
            .await?;
        Ok(Refusal::PositionNotRetained {
            room: self.permit.room().clone(),
            oldest: oldest
                .events
                .first()
                .and_then(|event| event.link)
                .map(|link| link.position),
            head: self.head,
        })
    }

    /// Returns the offset of a position in `field`, which must be of the room's epoch.
    async fn offset(&self, field: &str, position: Option<&v1::Position>) -> Result<Option<Offset>, Refusal> {
        let Some(position) = position else {
            return Ok(None);
        };
        let claim = Claim::parse(field, position)?;
        if claim.same_epoch(self.head) {
            Ok(Some(claim.offset))
        } else {
            Err(self.not_retained().await?)
        }
    }

    fn cursor_bytes(&self, offset: Offset) -> Vec<u8> {
        format!("{}{}", self.head.epoch, offset).into_bytes()
    }

    /// Reads [`Self::cursor_bytes`]. A token of another epoch is not one of this query.
    fn resume(&self, bytes: &[u8]) -> Option<Offset> {
        let text = std::str::from_utf8(bytes).ok()?;
        let offset = text.strip_prefix(&*self.head.epoch.to_string())?;
        offset.parse().ok().map(Offset)
    }
}
