//! The control log's records on the wire.

use std::time::Duration;

use prost::Message as _;

use crate::cluster::ledger::{Holder, LeaseTaken, Record, Withdrawal};
use crate::identity::UserId;
use crate::notice::Notice;
use crate::policy::{Revocation, RevocationScope};
use crate::proto::node_v1 as wire;
use crate::proto::node_v1::control_record::Record as Kind;
use crate::proto::node_v1::revoke_record::Scope;
use crate::room::{Room, RoomGlob, Tenant};

/// The length of a lease whose record does not say it: longer than any that is set up in earnest.
const LENGTH_UNSAID: Duration = Duration::from_secs(60);

pub(super) fn encode(record: &Record) -> Vec<u8> {
    let record = match record {
        Record::Withdraw(withdrawal) => Kind::Revoke(revoke(withdrawal)),
        Record::Lease(lease) => Kind::Lease(wire::LeaseRecord {
            node_id: lease.holder.id.to_string(),
            incarnation: lease.holder.incarnation,
            number: lease.number,
            released: lease.released,
            length_ms: u64::try_from(lease.holder.lease.as_millis()).unwrap_or(u64::MAX),
        }),
    };
    wire::ControlRecord { record: Some(record) }.encode_to_vec()
}

fn revoke(withdrawal: &Withdrawal) -> wire::RevokeRecord {
    let revocation = &withdrawal.revocation;
    wire::RevokeRecord {
        id: super::wire::id_bytes(withdrawal.id),
        tenant: revocation.tenant.as_str().to_owned(),
        user_id: revocation.user.as_str().to_owned(),
        scope: Some(match &revocation.scope {
            RevocationScope::Room(room) => Scope::Room(room.name().to_owned()),
            RevocationScope::Pattern(glob) => Scope::RoomPattern(glob.as_str().to_owned()),
            RevocationScope::Everything => Scope::Everything(true),
        }),
        ttl_ms: u64::try_from(withdrawal.ttl.as_millis()).unwrap_or(u64::MAX),
        message: withdrawal.notice.message().to_owned(),
        reason: withdrawal.notice.reason().to_owned(),
    }
}

/// Reads a record; `None` when it is none that this release knows.
pub(super) fn decode(bytes: &[u8]) -> Option<Record> {
    match wire::ControlRecord::decode(bytes).ok()?.record? {
        Kind::Revoke(record) => withdrawal(record).map(Record::Withdraw),
        Kind::Lease(record) => Some(Record::Lease(LeaseTaken {
            holder: Holder {
                incarnation: record.incarnation,
                id: record.node_id.into(),
                lease: match record.length_ms {
                    0 => LENGTH_UNSAID,
                    length_ms => Duration::from_millis(length_ms),
                },
            },
            number: record.number,
            released: record.released,
        })),
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
    Some(Withdrawal {
        id: super::wire::id_of(&record.id)?,
        revocation: Revocation {
            user: UserId::parse(&record.user_id).ok()?,
            tenant,
            scope,
        },
        ttl: Duration::from_millis(record.ttl_ms),
        // What cannot be told must not keep a revocation from being obeyed.
        notice: Notice::parse(&record.reason, &record.message).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scopes() -> impl Strategy<Value = RevocationScope> {
        prop_oneof![
            "[a-z:é]{1,20}".prop_map(|name| RevocationScope::Room(Room::parse(&Tenant::default(), &name).unwrap())),
            "[a-z]{1,8}\\*".prop_map(|glob| RevocationScope::Pattern(RoomGlob::parse(&glob).unwrap())),
            Just(RevocationScope::Everything),
        ]
    }

    fn notices() -> impl Strategy<Value = Notice> {
        ("[a-z_]{0,8}", "[a-zé ]{0,20}").prop_map(|(reason, message)| Notice::parse(&reason, &message).unwrap())
    }

    fn withdrawals() -> impl Strategy<Value = Record> {
        let fields = (any::<u128>(), scopes(), "[a-z]{1,20}", any::<u32>(), notices());
        fields.prop_map(|(id, scope, user, ttl_ms, notice)| {
            let revocation = Revocation {
                tenant: Tenant::default(),
                user: UserId::parse(&user).unwrap(),
                scope,
            };
            Record::Withdraw(Withdrawal {
                id,
                revocation,
                ttl: Duration::from_millis(ttl_ms.into()),
                notice,
            })
        })
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
        fn a_record_is_read_as_it_was_written(record in prop_oneof![withdrawals(), leases()]) {
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
