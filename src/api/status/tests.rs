//! The table as a snapshot: whoever changes it sees what callers will see.

use std::fmt::Write as _;

use prost_types::Any;
use tonic::Status;
use tonic_types::{StatusExt as _, pb};

use super::*;
use crate::position::{Epoch, Offset};
use crate::room::Tenant;

/// One of each refusal.
fn every_refusal() -> Vec<Refusal> {
    let room = Room::parse(&Tenant::parse("a").unwrap(), "r").unwrap();
    let head = Position {
        epoch: Epoch::from_bits(1),
        offset: Offset(7),
    };
    let mut all: Vec<_> = Invalid::ALL
        .map(|kind| Refusal::invalid(kind, "field", "is wrong"))
        .into();
    all.extend([
        Refusal::DeadlineRequired,
        Refusal::Unauthenticated("the call carries no credential"),
        Refusal::TokenInvalid("its signature is wrong"),
        Refusal::ScopeMissing(Scope::Publish),
        Refusal::TenantForbidden,
        Refusal::ConnectionNotFound,
        Refusal::CannotAnswer,
        Refusal::AskLimit,
        Refusal::AnswerInvalid,
        Refusal::ConnectionLost,
        Refusal::NoAnswer {
            delivered: Delivered::Yes,
        },
        Refusal::NoAnswer {
            delivered: Delivered::No,
        },
        Refusal::ServiceNotFound,
        Refusal::KeyReused {
            room: room.clone(),
            stored: 2,
        },
        Refusal::VersionConflict {
            room: room.clone(),
            head,
        },
        Refusal::PositionNotRetained {
            room,
            oldest: None,
            head,
        },
        Refusal::NoHomeRoom("user"),
        Refusal::RoomLimit,
        Refusal::AccessRevoked,
        Refusal::RateLimited {
            service: "billing".into(),
            retry_after: Duration::from_millis(1500),
        },
        Refusal::MessageTooLarge,
        Refusal::SlowConsumer,
        Refusal::SlowSubscriber { cursor: "c".to_owned() },
        Refusal::SubscriptionLimit("the node"),
        Refusal::NotStored("the bus is full"),
        Refusal::UnknownOutcome {
            why: "no acknowledgement",
            stored: 1,
        },
        Refusal::Draining,
        Refusal::DeadlineExceeded,
        Refusal::Cancelled,
        Refusal::Unimplemented("watch.cursor"),
        Refusal::UnsupportedFeature("targets.except_rooms".to_owned()),
        Refusal::Internal,
    ]);
    all
}

#[test]
fn every_refusal_has_its_row() {
    let mut table = String::new();
    for refusal in every_refusal() {
        let item = refusal.item();
        let status = Status::from(refusal);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.domain, DOMAIN);
        let complete = <pb::Status as prost::Message>::decode(status.details()).unwrap();
        assert_eq!(complete.code, item.code);
        // The metadata of the first is a map, whose order on the wire is any.
        assert_eq!(
            complete.details[1..],
            item.details[1..],
            "an item is refused as the call would be"
        );
        let short = |any: &Any| any.type_url.rsplit('/').next().unwrap_or_default().to_owned();
        let further: Vec<_> = complete.details.iter().skip(1).map(short).collect();
        let mut metadata: Vec<_> = info
            .metadata
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        metadata.sort();
        writeln!(
            table,
            "{:?} {} [{}] [{}] {}",
            status.code(),
            info.reason,
            metadata.join(" "),
            further.join(" "),
            status.message(),
        )
        .unwrap();
    }
    insta::assert_snapshot!(table);
}

#[test]
fn the_documentation_lists_every_reason() {
    let documentation = include_str!("../../../docs/grpc.md");
    for refusal in every_refusal() {
        let reason = format!("`{}`", refusal.reason());
        assert!(documentation.contains(&reason), "{reason} is not documented");
    }
}
