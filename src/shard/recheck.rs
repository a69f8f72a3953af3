//! The recheck of open sessions after a swap of the policy's rules: memberships that the new rules do not allow end.
//!
//! A pass looks at every session of the shard, a bounded number in a turn of its loop, so that deliveries go on meanwhile.
//! Whoever joins during a pass needs a permit of the rules in force: an older one is asked for again before it admits. So
//! when the pass has ended, no membership is left that only older rules allowed. What a backend granted stays.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::clients::{Clients, Key, MembershipRight, Ticket};
use super::members::notify_left;
use super::services::{Principal, Services};
use super::sessions::Sessions;
use crate::identity::Identity;
use crate::notice::Notice;
use crate::policy::{Action, Edition, Permit};
use crate::room::Room;
use crate::session::RoomChange;
use crate::session::link::Link;
use crate::units::millis;

/// The questions of one turn: at a few microseconds each the shard does nothing else for less than a millisecond.
const QUESTIONS_PER_TURN: usize = 64;

/// The slots looked at in one turn; most of them may be empty after a wave of clients.
const SLOTS_PER_TURN: usize = 4096;

/// The sessions an authorizer is asked about at once, by one shard: a pass over all must not use up the places of the
/// questions that clients wait for.
const ASKING_MAX: usize = 64;

/// The pause before an authorizer that gave no decision is asked again.
const UNDECIDED_PAUSE: Duration = Duration::from_secs(5);

/// The reason that clients are given.
const REASON: &str = "policy_changed";

/// The number of memberships that ended, answered when the last part of the pass is done and drops it.
#[derive(Debug)]
pub(super) struct PassReply {
    ended: Cell<u32>,
    reply: Option<oneshot::Sender<u32>>,
}

impl Drop for PassReply {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            // The asker may have gone.
            let _ = reply.send(self.ended.get());
        }
    }
}

/// The answers of a pass, and of those before that it took the place of.
#[derive(Debug, Default)]
pub(super) struct PassReplies(Vec<Rc<PassReply>>);

/// A look at every session.
#[derive(Debug)]
struct Pass {
    next: Key,
    end: Key,
    answers: Rc<PassReplies>,
}

/// The sessions that are still to be looked at.
#[derive(Debug, Default)]
pub(super) struct RecheckQueue {
    pass: Option<Pass>,
    /// Beside the pass: those that changed while they were looked at.
    again: Vec<(Ticket, Option<Rc<PassReplies>>)>,
    /// The sessions an authorizer is being asked about.
    asking: usize,
    /// The sessions it gave no decision about.
    undecided: Vec<Ticket>,
    /// The time at which it is asked about them again, in milliseconds of the shard's clock.
    retry_ms: u64,
}

impl RecheckQueue {
    /// Begins a pass over all slots up to `end`, answered with the number of memberships that end. One that is under way begins
    /// anew.
    pub fn begin(&mut self, end: Key, reply: oneshot::Sender<u32>) {
        let before = self.pass.take();
        let mut answers = before.map(|pass| pass.answers.0.clone()).unwrap_or_default();
        answers.push(Rc::new(PassReply {
            ended: Cell::new(0),
            reply: Some(reply),
        }));
        self.pass = Some(Pass {
            next: 0,
            end,
            answers: Rc::new(PassReplies(answers)),
        });
    }

    /// Reports whether a session can be checked now.
    pub fn has_work(&self) -> bool {
        (self.pass.is_some() || !self.again.is_empty()) && self.asking < ASKING_MAX
    }

    /// Has this session looked at once more.
    pub fn look_again(&mut self, ticket: Ticket) {
        self.again.push((ticket, None));
    }

    /// Has the sessions looked at again, once it is time, about which there was no decision: what older rules granted stays
    /// until then, as it does when a token cannot be checked.
    pub fn retry_undecided(&mut self, now_ms: u64) {
        if !self.undecided.is_empty() && now_ms >= self.retry_ms {
            let undecided = std::mem::take(&mut self.undecided);
            self.again.extend(undecided.into_iter().map(|ticket| (ticket, None)));
        }
    }

    fn postpone(&mut self, now_ms: u64, ticket: Ticket) {
        if self.undecided.is_empty() {
            self.retry_ms = now_ms.saturating_add(millis(UNDECIDED_PAUSE));
        }
        self.undecided.push(ticket);
    }

    /// The session in the next slot, if there is one in it, and who wants to know what becomes of it.
    fn next<L: Link>(&mut self, clients: &Clients<L>) -> Option<(Ticket, Option<Rc<PassReplies>>)> {
        if let Some(again) = self.again.pop() {
            return Some(again);
        }
        let pass = self.pass.as_mut()?;
        let (key, answers) = (pass.next, Rc::clone(&pass.answers));
        pass.next += 1;
        if pass.next >= pass.end {
            self.pass = None;
        }
        clients.ticket(key).map(|ticket| (ticket, Some(answers)))
    }
}

/// The verdict of the rules in force on a session's rooms.
#[derive(Debug, Default)]
pub(super) struct RecheckVerdict {
    /// With the permit, where the client may stay.
    pub joined: Vec<(Room, Option<Permit>)>,
    /// Rooms whose presence it sees and may not see any longer.
    pub hidden: Vec<Room>,
    /// There was no decision about some.
    pub undecided: bool,
}

impl<L: Link> Sessions<L> {
    /// Looks at some of the sessions that are to be looked at. To be called while [`Self::has_work`].
    pub fn recheck_some(&mut self) {
        let (mut questions, mut slots) = (0, 0);
        while questions < QUESTIONS_PER_TURN && slots < SLOTS_PER_TURN && self.recheck.has_work() {
            slots += 1;
            if let Some((ticket, answers)) = self.recheck.next(&self.clients) {
                questions += self.recheck_session(ticket, answers);
            }
        }
    }

    /// Looks at one session; answers how many questions that takes.
    fn recheck_session(&mut self, ticket: Ticket, answers: Option<Rc<PassReplies>>) -> usize {
        // One that is not open yet enters its rooms by permits of the rules in force.
        let is_there = self.clients.ticket(ticket.key) == Some(ticket);
        let Some(principal) = self.clients.principal(ticket.key).filter(|_| is_there) else {
            return 0;
        };
        let (clients, members) = (&self.clients, &self.members);
        // Those it is in by what rules allow, its own right or a template.
        let joined = members.rooms_of(clients, ticket.key, |membership| {
            membership.right != MembershipRight::Backend
        });
        let seen = members.rooms_of(clients, ticket.key, |membership| membership.presence.is_some());
        let questions = joined.len() + seen.len();
        if questions == 0 {
            return 0;
        }
        let services = self.services.clone();
        self.recheck.asking += 1;
        self.run(async move {
            let edition = services.policy.edition();
            let judged = judge(&services, &principal, (joined, seen), Undecided::GoesOn).await;
            move |sessions: &mut Self| {
                sessions.recheck.asking -= 1;
                sessions.rechecked(ticket, &principal.identity, edition, judged, answers);
            }
        });
        questions
    }

    fn rechecked(
        &mut self,
        ticket: Ticket,
        identity: &Arc<Identity>,
        edition: Edition,
        judged: RecheckVerdict,
        answers: Option<Rc<PassReplies>>,
    ) {
        if self.clients.alive(ticket).is_none() {
            return;
        }
        let key = ticket.key;
        let same = self
            .clients
            .identity(key)
            .is_some_and(|now| Arc::ptr_eq(&now, identity));
        if !same || edition != self.services.policy.edition() {
            return self.recheck.again.push((ticket, answers));
        }
        let notice = Notice::parse(REASON, "").unwrap_or_default();
        for (room, permit) in judged.joined {
            let right = self.members.right(&self.clients, key, &room);
            // A backend may have put the client into the room meanwhile.
            let Some(right) = right.filter(|right| *right != MembershipRight::Backend) else {
                continue;
            };
            match permit {
                Some(permit) if right == MembershipRight::Own => {
                    self.members.keep_until(key, &room, permit.terms().expires);
                }
                Some(_) => {}
                None => {
                    self.members.leave(&mut self.clients, key, &room);
                    notify_left(&mut self.clients, key, room, RoomChange::Revoked, &notice);
                    let counting = answers.iter().flat_map(|answers| &answers.0);
                    counting.for_each(|answer| answer.ended.set(answer.ended.get() + 1));
                }
            }
        }
        self.hide(key, judged.hidden);
        if judged.undecided {
            self.recheck.postpone(self.clients.now_ms(), ticket);
        }
    }

    /// Hides the presence of rooms from a session that may not see it any longer.
    pub(super) fn hide(&mut self, key: Key, rooms: Vec<Room>) {
        for room in rooms {
            let may_deliver = self.gate.may_deliver();
            self.members.hide_presence(&mut self.clients, may_deliver, key, &room);
        }
    }
}

/// The effect of a question about which an authorizer gave no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undecided {
    /// Nothing: one is as bad as all, and each takes its time.
    Ends,
    /// The other questions.
    GoesOn,
}

/// Asks about a session's rooms: those it is in, and those whose presence it sees.
pub(super) async fn judge(
    services: &Services,
    principal: &Principal,
    (joined, seen): (Vec<Room>, Vec<Room>),
    undecided: Undecided,
) -> RecheckVerdict {
    let mut judged = RecheckVerdict::default();
    let ask = |room: &Room, action| services.authorize(principal, room, action);
    for room in joined {
        match ask(&room, Action::Join).await {
            Ok(permit) => judged.joined.push((room, Some(permit))),
            Err(denied) if denied.undecided => judged.undecided = true,
            Err(_) => judged.joined.push((room, None)),
        }
        if judged.undecided && undecided == Undecided::Ends {
            return judged;
        }
    }
    for room in seen {
        match ask(&room, Action::Presence).await {
            Ok(_) => {}
            Err(denied) if denied.undecided => judged.undecided = true,
            Err(_) => judged.hidden.push(room),
        }
        if judged.undecided && undecided == Undecided::Ends {
            return judged;
        }
    }
    judged
}
