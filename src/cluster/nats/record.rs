//! The control log's records on the wire.

use std::time::Duration;

use prost::Message as _;

use super::wire::{id_bytes, id_of};
use crate::cluster::ledger::{Holder, LeaseTaken, Record, Restoration, Succession, Withdrawal};
use crate::event::Timestamp;
use crate::identity::{TokenId, UserId};
use crate::notice::Notice;
use crate::policy::{Revocation, RevocationId, RevocationScope, RevocationSubject};
use crate::proto::node_v1 as wire;
use crate::proto::node_v1::control_record::Record as Kind;
use crate::proto::node_v1::revoke_record::{Scope, Subject};
use crate::room::{Room, RoomGlob, Tenant};
use crate::units::millis;

/// The length of a lease whose record does not say it: longer than any that is set up in earnest.
const LENGTH_UNSAID: Duration = Duration::from_secs(60);

pub(super) fn encode(record: &Record) -> Vec<u8> {
    let record = match record {
        Record::Withdraw(withdrawal) => Kind::Revoke(revoke(withdrawal)),
        Record::Restore(restoration) => Kind::Restore(wire::RestoreRecord {
            operation: id_bytes(restoration.operation),
            tenant: restoration.tenant.as_str().to_owned(),
            revocation_id: id_bytes(restoration.id.bits()),
            expires_ms: restoration.expires.0,
        }),
        Record::Lease(lease) => Kind::Lease(wire::LeaseRecord {
            node_id: lease.holder.id.to_string(),
            incarnation: lease.holder.incarnation,
            number: lease.number,
            released: lease.released,
            length_ms: millis(lease.holder.lease),
        }),
        Record::Succeed(succession) => Kind::Succession(wire::SuccessionRecord {
            incarnation: succession.node,
            until_ms: succession.until_ms,
            longest_ms: millis(succession.longest),
        }),
    };
    wire::ControlRecord { record: Some(record) }.encode_to_vec()
}

fn revoke(withdrawal: &Withdrawal) -> wire::RevokeRecord {
    let revocation = &withdrawal.revocation;
    wire::RevokeRecord {
        operation: id_bytes(withdrawal.operation),
        tenant: revocation.tenant.as_str().to_owned(),
        ttl_ms: millis(withdrawal.ttl),
        message: withdrawal.notice.message().to_owned(),
        revocation_id: id_bytes(withdrawal.id.bits()),
        created_ms: withdrawal.created.map_or(0, |created| created.0),
        issued_before_ms: revocation.issued_before.map(|before| before.0),
        reason: withdrawal.notice.reason().to_owned(),
        subject: Some(match &revocation.subject {
            RevocationSubject::User(user) => Subject::UserId(user.as_str().to_owned()),
            RevocationSubject::Connection(connection) => Subject::ConnectionId(connection.to_string()),
            RevocationSubject::Token(token) => Subject::TokenId(token.as_str().to_owned()),
        }),
        scope: Some(match &revocation.scope {
            RevocationScope::Room(room) => Scope::Room(room.name().to_owned()),
            RevocationScope::Pattern(glob) => Scope::RoomPattern(glob.as_str().to_owned()),
            RevocationScope::Everything => Scope::Everything(true),
        }),
    }
}

/// Reads a record; `None` when it is none that this release knows.
pub(super) fn decode(bytes: &[u8]) -> Option<Record> {
    Some(match wire::ControlRecord::decode(bytes).ok()?.record? {
        Kind::Revoke(record) => Record::Withdraw(withdrawal(record)?),
        Kind::Restore(record) => Record::Restore(Restoration {
            operation: id_of(&record.operation)?,
            tenant: Tenant::parse(&record.tenant).ok()?,
            id: RevocationId::from_bits(id_of(&record.revocation_id)?),
            expires: Timestamp(record.expires_ms),
        }),
        Kind::Lease(record) => Record::Lease(LeaseTaken {
            holder: Holder {
                incarnation: record.incarnation,
                id: record.node_id.into(),
                lease: length(record.length_ms),
            },
            number: record.number,
            released: record.released,
        }),
        Kind::Succession(record) => Record::Succeed(Succession {
            node: record.incarnation,
            until_ms: record.until_ms,
            longest: length(record.longest_ms),
        }),
    })
}

fn length(length_ms: u64) -> Duration {
    match length_ms {
        0 => LENGTH_UNSAID,
        length_ms => Duration::from_millis(length_ms),
    }
}

fn withdrawal(record: wire::RevokeRecord) -> Option<Withdrawal> {
    let tenant = Tenant::parse(&record.tenant).ok()?;
    let scope = match record.scope? {
        Scope::Room(name) => RevocationScope::Room(Room::parse(&tenant, &name).ok()?),
        Scope::RoomPattern(glob) => RevocationScope::Pattern(RoomGlob::parse(&glob).ok()?),
        Scope::Everything(true) => RevocationScope::Everything,
        Scope::Everything(false) => return None,
    };
    let subject = match record.subject? {
        Subject::UserId(user) => RevocationSubject::User(UserId::parse(&user).ok()?),
        Subject::ConnectionId(connection) => RevocationSubject::Connection(connection.parse().ok()?),
        Subject::TokenId(token) => RevocationSubject::Token(TokenId::parse(&token).ok()?),
    };
    Some(Withdrawal {
        operation: id_of(&record.operation)?,
        id: RevocationId::from_bits(id_of(&record.revocation_id)?),
        revocation: Revocation {
            tenant,
            subject,
            issued_before: record.issued_before_ms.map(Timestamp),
            scope,
        },
        created: (record.created_ms > 0).then_some(Timestamp(record.created_ms)),
        ttl: Duration::from_millis(record.ttl_ms),
        // Access is withdrawn, whatever is said about it.
        notice: Notice::parse(&record.reason, &record.message).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::ConnectionId;

    fn scopes() -> impl Strategy<Value = RevocationScope> {
        prop_oneof![
            "[a-z:é]{1,20}".prop_map(|name| RevocationScope::Room(Room::parse(&Tenant::default(), &name).unwrap())),
            "[a-z]{1,8}\\*".prop_map(|glob| RevocationScope::Pattern(RoomGlob::parse(&glob).unwrap())),
            Just(RevocationScope::Everything),
        ]
    }

    fn subjects() -> impl Strategy<Value = RevocationSubject> {
        prop_oneof![
            "[a-z]{1,20}".prop_map(|user| RevocationSubject::User(UserId::parse(&user).unwrap())),
            Just(RevocationSubject::Connection(ConnectionId::random())),
            ".{1,20}".prop_map(|token| RevocationSubject::Token(TokenId::parse(&token).unwrap())),
        ]
    }

    fn withdrawals() -> impl Strategy<Value = Record> {
        let times = (
            proptest::option::of(1..u64::MAX),
            proptest::option::of(any::<u64>()),
            any::<u32>(),
        );
        let fields = (
            any::<u128>(),
            any::<u128>(),
            subjects(),
            scopes(),
            times,
            "[a-z_]{0,9}",
            "[a-z é]{0,20}",
        );
        fields.prop_map(|(operation, id, subject, scope, times, reason, message)| {
            let (created, before, ttl_ms) = times;
            Record::Withdraw(Withdrawal {
                operation,
                id: RevocationId::from_bits(id),
                revocation: Revocation {
                    tenant: Tenant::default(),
                    subject,
                    issued_before: before.map(Timestamp),
                    scope,
                },
                created: created.map(Timestamp),
                ttl: Duration::from_millis(ttl_ms.into()),
                notice: Notice::parse(&reason, &message).unwrap(),
            })
        })
    }

    fn others() -> impl Strategy<Value = Record> {
        let fields = (any::<u128>(), any::<u128>(), any::<u64>());
        prop_oneof![
            fields.prop_map(|(operation, id, expires_ms)| {
                Record::Restore(Restoration {
                    operation,
                    tenant: Tenant::default(),
                    id: RevocationId::from_bits(id),
                    expires: Timestamp(expires_ms),
                })
            }),
            (any::<u64>(), any::<u64>(), 1..u64::from(u32::MAX)).prop_map(|(node, until_ms, longest_ms)| {
                let longest = Duration::from_millis(longest_ms);
                Record::Succeed(Succession {
                    node,
                    until_ms,
                    longest,
                })
            }),
        ]
    }

    fn leases() -> impl Strategy<Value = Record> {
        let fields = (
            any::<u64>(),
            "[a-z-]{1,20}",
            any::<u64>(),
            any::<bool>(),
            1..u64::from(u32::MAX),
        );
        fields.prop_map(|(incarnation, id, number, released, length_ms)| {
            Record::Lease(LeaseTaken {
                holder: Holder {
                    incarnation,
                    id: id.into(),
                    lease: Duration::from_millis(length_ms),
                },
                number,
                released,
            })
        })
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(record in prop_oneof![withdrawals(), leases(), others()]) {
            prop_assert_eq!(decode(&encode(&record)), Some(record));
        }

        #[test]
        fn whatever_comes_is_a_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_record_that_says_nothing_is_none() {
        assert_eq!(decode(b""), None);
        let empty = wire::ControlRecord {
            record: Some(Kind::Revoke(wire::RevokeRecord::default())),
        };
        assert_eq!(decode(&empty.encode_to_vec()), None);
    }
}
