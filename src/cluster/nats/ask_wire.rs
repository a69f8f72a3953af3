//! Asks on the wire.

use super::wire;
use crate::cluster::Asked;
use crate::event::{EventName, Payload};
use crate::hub::{Ask, AskEnd, AskRefusal, Audience};
use crate::json::Json;
use crate::notice::Notice;
use crate::proto::node_v1::node_answer::Answer as WireAnswer;
use crate::proto::node_v1::node_order::Order as WireOrder;
use crate::proto::node_v1::{AskAnswer, AskOrder, AskState, ask_answer, ask_order};

/// An answer to an ask or a follow-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AskProgress {
    /// The client is asked.
    Delivered,
    /// The ask has ended.
    Ended(Asked),
    /// The node does not know the ask, or not any more.
    Forgotten,
}

pub(super) fn order(ask: &Ask, timeout_ms: u64) -> WireOrder {
    use ask_order::Payload as Content;
    let audience = Audience::Connection(ask.tenant.clone(), ask.connection);
    WireOrder::Ask(AskOrder {
        whom: Some(wire::whom(&audience)),
        method: ask.method.as_str().to_owned(),
        payload: Some(match &ask.payload {
            Payload::Json(json) => Content::Json(json.bytes().clone()),
            Payload::Binary(bytes) => Content::Binary(bytes.clone()),
        }),
        timeout_ms,
    })
}

/// Reads an ask; `None` when it cannot be read.
pub(super) fn read_order(order: AskOrder) -> Option<Ask> {
    use ask_order::Payload as Content;
    let Audience::Connection(tenant, connection) = wire::audience(order.whom.as_ref()?)? else {
        return None;
    };
    Some(Ask {
        tenant,
        connection,
        method: EventName::parse(&order.method).ok()?,
        payload: match order.payload? {
            Content::Json(json) => Payload::Json(Json::parse(json).ok()?),
            Content::Binary(bytes) => Payload::Binary(bytes),
        },
    })
}

pub(super) const fn refused(refusal: AskRefusal) -> AskState {
    match refusal {
        AskRefusal::CannotAnswer => AskState::CannotAnswer,
        AskRefusal::TooMany => AskState::TooMany,
        AskRefusal::Unavailable => AskState::Unavailable,
    }
}

pub(super) fn ended(end: AskEnd) -> AskAnswer {
    use ask_answer::Payload as Content;
    let of = |state: AskState| AskAnswer {
        state: state.into(),
        ..AskAnswer::default()
    };
    match end {
        AskEnd::Answered(payload) => AskAnswer {
            payload: Some(match payload {
                Payload::Json(json) => Content::Json(json.bytes().clone()),
                Payload::Binary(bytes) => Content::Binary(bytes),
            }),
            ..of(AskState::Answered)
        },
        AskEnd::Error(error) => AskAnswer {
            reason: error.reason().to_owned(),
            message: error.message().to_owned(),
            ..of(AskState::Error)
        },
        AskEnd::Unreadable => of(AskState::Unreadable),
        AskEnd::Lost => of(AskState::Lost),
    }
}

/// Reads an answer; `None` when it is another one, or cannot be read.
pub(super) fn progress(answer: WireAnswer) -> Option<AskProgress> {
    use ask_answer::Payload as Content;
    let WireAnswer::Asked(answer) = answer else {
        return None;
    };
    let refused = |refusal| Some(AskProgress::Ended(Asked::Refused(refusal)));
    let end = match AskState::try_from(answer.state).ok()? {
        AskState::Unspecified => return Some(AskProgress::Forgotten),
        AskState::NotFound => return Some(AskProgress::Ended(Asked::NotFound)),
        AskState::CannotAnswer => return refused(AskRefusal::CannotAnswer),
        AskState::TooMany => return refused(AskRefusal::TooMany),
        AskState::Unavailable => return refused(AskRefusal::Unavailable),
        AskState::Delivered => return Some(AskProgress::Delivered),
        AskState::Answered => AskEnd::Answered(match answer.payload? {
            Content::Json(json) => Payload::Json(Json::parse(json).ok()?),
            Content::Binary(bytes) => Payload::Binary(bytes),
        }),
        AskState::Error => AskEnd::Error(Notice::parse(&answer.reason, &answer.message).ok()?),
        AskState::Unreadable => AskEnd::Unreadable,
        AskState::Lost => AskEnd::Lost,
    };
    Some(AskProgress::Ended(Asked::Ended(end)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::identity::ConnectionId;
    use crate::room::Tenant;

    fn payloads() -> [Payload; 2] {
        [
            Payload::Json(Json::parse("{\"n\":1.0}").unwrap()),
            Payload::Binary(Bytes::from_static(b"\x00\xff")),
        ]
    }

    #[test]
    fn asks_are_read_as_they_were_written() {
        for payload in payloads() {
            let ask = Ask {
                tenant: Tenant::parse("t").unwrap(),
                connection: ConnectionId::random(),
                method: EventName::parse("confirm").unwrap(),
                payload,
            };
            let WireOrder::Ask(written) = order(&ask, 7) else {
                panic!("no ask");
            };
            assert_eq!(written.timeout_ms, 7);
            assert_eq!(read_order(written.clone()), Some(ask));
            for broken in [
                AskOrder {
                    whom: None,
                    ..written.clone()
                },
                AskOrder {
                    method: String::new(),
                    ..written.clone()
                },
                AskOrder {
                    payload: None,
                    ..written.clone()
                },
            ] {
                assert_eq!(read_order(broken), None);
            }
        }
    }

    #[test]
    fn ends_are_read_as_they_were_written() {
        let answers = payloads().map(AskEnd::Answered);
        let others = [
            AskEnd::Error(Notice::parse("busy", "Not now.").unwrap()),
            AskEnd::Unreadable,
            AskEnd::Lost,
        ];
        for end in answers.into_iter().chain(others) {
            let read = progress(WireAnswer::Asked(ended(end.clone())));
            assert_eq!(read, Some(AskProgress::Ended(Asked::Ended(end))));
        }
        for refusal in [AskRefusal::CannotAnswer, AskRefusal::TooMany, AskRefusal::Unavailable] {
            let written = AskAnswer {
                state: refused(refusal).into(),
                ..AskAnswer::default()
            };
            let expected = AskProgress::Ended(Asked::Refused(refusal));
            assert_eq!(progress(WireAnswer::Asked(written)), Some(expected));
        }
        let later = AskAnswer {
            state: 99,
            ..AskAnswer::default()
        };
        assert_eq!(progress(WireAnswer::Asked(later)), None);
    }
}
