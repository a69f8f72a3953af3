//! A presence that says what the test told it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::sync::broadcast;

use crate::event::Except;
use crate::identity::UserId;
use crate::json::Json;
use crate::presence::{
    Activity, Counts, Departure, Member, Observer, Presence, Present, Roster, RosterPage, StateTooLarge,
};
use crate::room::{Room, Tenant};

pub(in crate::api::tests) struct FakePresence {
    pub(in crate::api::tests) members: Mutex<HashMap<Room, Vec<Member>>>,
    activity: broadcast::Sender<Activity>,
}

impl Default for FakePresence {
    fn default() -> Self {
        Self {
            members: Mutex::default(),
            activity: broadcast::channel(16).0,
        }
    }
}

impl Presence for FakePresence {
    fn enter(&self, room: &Room, member: &Member, _: Option<Json>) -> Result<(), StateTooLarge> {
        let mut members = self.members.lock().unwrap();
        members.entry(room.clone()).or_default().push(member.clone());
        Ok(())
    }

    fn leave(&self, _: &Room, _: &Member, _: Departure) {}

    fn observe(&self, _: &Room, _: Arc<dyn Observer>) -> Roster {
        unreachable!("the API observes no room")
    }

    fn unobserve(&self, _: &Room, _: u16) {}

    fn page<'a>(&'a self, _: &'a Room, _: Option<&'a UserId>, _: usize) -> BoxFuture<'a, RosterPage> {
        unreachable!("not needed here")
    }

    fn rooms_of<'a>(&'a self, _: &'a Tenant, _: &'a UserId) -> BoxFuture<'a, Vec<(Room, Present)>> {
        unreachable!("not needed here")
    }

    fn counts(&self, _: &Room) -> Counts {
        Counts::default()
    }

    fn reached(&self, room: &Room, except: &Except) -> u32 {
        let members = self.members.lock().unwrap();
        let members = members.get(room).into_iter().flatten();
        let reached = members.filter(|member| !except.covers(member.connection, &member.user));
        u32::try_from(reached.count()).unwrap()
    }

    fn announce(&self, activity: Activity) {
        let _ = self.activity.send(activity);
    }

    fn activity(&self) -> broadcast::Receiver<Activity> {
        self.activity.subscribe()
    }
}
