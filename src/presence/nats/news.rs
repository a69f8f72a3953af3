//! Encoding of a node's activity, for other nodes' watchers.

use super::wire::Said;
use crate::error::CloseReason;
use crate::identity::UserId;
use crate::presence::{Activity, Member};
use crate::proto::node_v1::presence_activity::Kind;
use crate::proto::node_v1::{PresenceActivities, PresenceActivity};
use crate::room::{Room, Tenant};

/// Writes activity.
pub(super) fn write(activities: &[Activity]) -> Said {
    Said::Activities(PresenceActivities {
        activities: activities.iter().map(write_one).collect(),
    })
}

/// Reads activity. Unreadable activity, perhaps of a newer release, is skipped.
pub(super) fn read(activities: &PresenceActivities) -> impl Iterator<Item = Activity> + '_ {
    activities.activities.iter().filter_map(read_one)
}

fn write_one(activity: &Activity) -> PresenceActivity {
    match activity {
        Activity::Joined(room, user) => in_room(Kind::Joined, room, Some(user)),
        Activity::Left(room, user) => in_room(Kind::Left, room, Some(user)),
        Activity::Occupied(room) => in_room(Kind::Occupied, room, None),
        Activity::Vacated(room) => in_room(Kind::Vacated, room, None),
        Activity::Opened(tenant, member, protocol) => PresenceActivity {
            protocol: protocol.clone().into_owned(),
            ..of_connection(Kind::Opened, tenant, member)
        },
        Activity::Closed(tenant, member, reason) => PresenceActivity {
            close_code: reason.code().into(),
            ..of_connection(Kind::Closed, tenant, member)
        },
    }
}

fn in_room(kind: Kind, room: &Room, user: Option<&UserId>) -> PresenceActivity {
    PresenceActivity {
        kind: kind.into(),
        tenant: room.tenant().to_owned(),
        room: room.name().to_owned(),
        user_id: user.map(|user| user.as_str().to_owned()).unwrap_or_default(),
        ..PresenceActivity::default()
    }
}

fn of_connection(kind: Kind, tenant: &Tenant, member: &Member) -> PresenceActivity {
    PresenceActivity {
        kind: kind.into(),
        tenant: tenant.as_str().to_owned(),
        user_id: member.user.as_str().to_owned(),
        connection_id: member.connection.to_string(),
        ..PresenceActivity::default()
    }
}

fn read_one(activity: &PresenceActivity) -> Option<Activity> {
    let tenant = Tenant::parse(&activity.tenant).ok()?;
    let room = || Room::parse(&tenant, &activity.room).ok();
    let user = || UserId::parse(&activity.user_id).ok();
    let member = || {
        let connection = activity.connection_id.parse().ok()?;
        let user = user()?;
        Some(Member { connection, user })
    };
    Some(match activity.kind() {
        Kind::Unspecified => return None,
        Kind::Joined => Activity::Joined(room()?, user()?),
        Kind::Left => Activity::Left(room()?, user()?),
        Kind::Occupied => Activity::Occupied(room()?),
        Kind::Vacated => Activity::Vacated(room()?),
        Kind::Opened => Activity::Opened(tenant.clone(), member()?, activity.protocol.clone().into()),
        Kind::Closed => {
            let code = |reason: &&CloseReason| u32::from(reason.code()) == activity.close_code;
            let reason = CloseReason::ALL.iter().find(code)?;
            Activity::Closed(tenant.clone(), member()?, *reason)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ConnectionId;

    #[test]
    fn what_is_written_is_read() {
        let (tenant, user) = (Tenant::default(), UserId::parse("ada").unwrap());
        let room = Room::parse(&tenant, "r").unwrap();
        let member = Member {
            connection: ConnectionId::random(),
            user: user.clone(),
        };
        let mut all = vec![
            Activity::Joined(room.clone(), user.clone()),
            Activity::Left(room.clone(), user),
            Activity::Occupied(room.clone()),
            Activity::Vacated(room),
            Activity::Opened(tenant.clone(), member.clone(), "roomcast.v1.json".into()),
        ];
        let closed = |reason| Activity::Closed(tenant.clone(), member.clone(), reason);
        all.extend(CloseReason::ALL.map(closed));
        let Said::Activities(written) = write(&all) else {
            panic!("that is what is written")
        };
        assert_eq!(read(&written).collect::<Vec<_>>(), all);
    }
}
