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

use super::entry::{Cause, Entering};
use super::join::permit_entry;
use super::link::Link;
use super::sessions::{Services, Sessions, Ticket};
use super::start::unavailable;
use super::state::Right;
use super::{Message, RoomChange};
use crate::hub::local::Key;
use crate::identity::{ConnectionId, Identity};
use crate::notice::Notice;
use crate::policy::{Action, Edition, Permit, Question};
use crate::room::Room;

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
struct Answer {
    ended: Cell<u32>,
    reply: Option<oneshot::Sender<u32>>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            // The asker may have gone.
            let _ = reply.send(self.ended.get());
        }
    }
}

/// The answers of a pass, and of those before that it took the place of.
#[derive(Debug, Default)]
struct Answers(Vec<Rc<Answer>>);

/// A look at every session.
#[derive(Debug)]
struct Pass {
    next: Key,
    end: Key,
    answers: Rc<Answers>,
}

/// The sessions that are still to be looked at.
#[derive(Debug, Default)]
pub(super) struct Rechecking {
    pass: Option<Pass>,
    /// Beside the pass: those that changed while they were looked at.
    again: Vec<(Ticket, Option<Rc<Answers>>)>,
    /// The sessions an authorizer is being asked about.
    asking: usize,
    /// The sessions it gave no decision about.
    undecided: Vec<Ticket>,
    /// The time at which it is asked about them again, in milliseconds of the shard's clock.
    retry_ms: u64,
}

impl Rechecking {
    pub(super) fn has_work(&self) -> bool {
        (self.pass.is_some() || !self.again.is_empty()) && self.asking < ASKING_MAX
    }

    /// Has this session looked at once more.
    pub(super) fn look_again(&mut self, ticket: Ticket) {
        self.again.push((ticket, None));
    }
}

/// The verdict of the rules in force on a session's rooms.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// With the permit, where the client may stay.
    pub joined: Vec<(Room, Option<Permit>)>,
    /// Rooms whose presence it sees and may not see any longer.
    pub hidden: Vec<Room>,
    /// There was no decision about some.
    pub undecided: bool,
}

impl<L: Link> Sessions<L> {
    /// Begins a pass over all sessions, answered with the number of memberships that end. One that is under way begins anew.
    pub(super) fn recheck(&mut self, reply: oneshot::Sender<u32>) {
        let before = self.rechecking.pass.take();
        let mut answers = before.map(|pass| pass.answers.0.clone()).unwrap_or_default();
        answers.push(Rc::new(Answer {
            ended: Cell::new(0),
            reply: Some(reply),
        }));
        self.rechecking.pass = Some(Pass {
            next: 0,
            end: Key::try_from(self.conns.capacity()).unwrap_or(Key::MAX),
            answers: Rc::new(Answers(answers)),
        });
    }

    /// Looks at some of the sessions that are to be looked at. To be called while [`Self::has_work`].
    pub fn recheck_some(&mut self) {
        let (mut questions, mut slots) = (0, 0);
        while questions < QUESTIONS_PER_TURN && slots < SLOTS_PER_TURN && self.rechecking.has_work() {
            slots += 1;
            if let Some((ticket, answers)) = self.rechecking.again.pop() {
                questions += self.recheck_session(ticket, answers);
            } else if let Some(pass) = &mut self.rechecking.pass {
                let (key, answers) = (pass.next, Rc::clone(&pass.answers));
                pass.next += 1;
                if pass.next >= pass.end {
                    self.rechecking.pass = None;
                }
                if let Some(ticket) = self.ticket(key) {
                    questions += self.recheck_session(ticket, Some(answers));
                }
            }
        }
    }

    /// Looks at one session; answers how many questions that takes.
    fn recheck_session(&mut self, ticket: Ticket, answers: Option<Rc<Answers>>) -> usize {
        // One that is not open yet enters its rooms by permits of the rules in force.
        let identity = self
            .identity(ticket.key)
            .filter(|_| self.ticket(ticket.key) == Some(ticket));
        let Some(identity) = identity else { return 0 };
        let (joined, seen) = (self.rooms_by_rules(ticket.key), self.rooms_seen(ticket.key));
        let questions = joined.len() + seen.len();
        if questions == 0 {
            return 0;
        }
        let (services, connection) = (
            self.services.clone(),
            self.conns[ticket.key as usize].session.connection,
        );
        self.rechecking.asking += 1;
        self.run(async move {
            let edition = services.policy.edition();
            let judged = judge(&services, &identity, connection, (joined, seen), Undecided::GoesOn).await;
            move |sessions: &mut Self| {
                sessions.rechecking.asking -= 1;
                sessions.rechecked(ticket, &identity, edition, judged, answers);
            }
        });
        questions
    }

    fn rechecked(
        &mut self,
        ticket: Ticket,
        identity: &Arc<Identity>,
        edition: Edition,
        judged: Judged,
        answers: Option<Rc<Answers>>,
    ) {
        if self.alive(ticket).is_none() {
            return;
        }
        let same = self.identity(ticket.key).is_some_and(|now| Arc::ptr_eq(&now, identity));
        if !same || edition != self.services.policy.edition() {
            return self.rechecking.again.push((ticket, answers));
        }
        let notice = Notice::parse(REASON, "").unwrap_or_default();
        for (room, permit) in judged.joined {
            // A backend may have put the client into the room meanwhile.
            let Some(right) = self.right(ticket.key, &room).filter(|right| *right != Right::Backend) else {
                continue;
            };
            match permit {
                Some(permit) if right == Right::Own => self.keep_until(ticket.key, &room, permit.terms().expires),
                Some(_) => {}
                None => {
                    self.leave_room(ticket.key, &room);
                    let told = Message::RoomLeft {
                        room,
                        change: RoomChange::Revoked,
                        notice: notice.clone(),
                    };
                    self.push(ticket.key, &told);
                    let counting = answers.iter().flat_map(|answers| &answers.0);
                    counting.for_each(|answer| answer.ended.set(answer.ended.get() + 1));
                }
            }
        }
        for room in judged.hidden {
            if self.right(ticket.key, &room).is_some() {
                self.hide_presence(ticket.key, &room);
            }
        }
        if judged.undecided {
            if self.rechecking.undecided.is_empty() {
                let pause_ms = u64::try_from(UNDECIDED_PAUSE.as_millis()).unwrap_or(u64::MAX);
                self.rechecking.retry_ms = self.now_ms().saturating_add(pause_ms);
            }
            self.rechecking.undecided.push(ticket);
        }
    }

    /// Has the sessions looked at again, once it is time, about which there was no decision: what older rules granted stays
    /// until then, as it does when a token cannot be checked.
    pub(super) fn recheck_undecided(&mut self) {
        if !self.rechecking.undecided.is_empty() && self.now_ms() >= self.rechecking.retry_ms {
            let undecided = std::mem::take(&mut self.rechecking.undecided);
            self.rechecking
                .again
                .extend(undecided.into_iter().map(|ticket| (ticket, None)));
        }
    }

    /// Asks once more for what rules permitted that are in force no longer; the start of the room stays held.
    pub(super) fn permit_again(&mut self, ticket: Ticket, mut entering: Entering, cause: Cause) {
        let Some(session) = self.alive(ticket) else { return };
        let (connection, identity) = (session.connection, session.identity().cloned());
        let services = self.services.clone();
        self.run(async move {
            for (entry, found) in &mut entering {
                let Some(identity) = identity.as_ref().filter(|_| services.policy.is_outdated(&entry.permit)) else {
                    continue;
                };
                let room = entry.permit.room().clone();
                let ask = |action| Question {
                    identity: Arc::clone(identity),
                    connection,
                    room: room.clone(),
                    action,
                };
                match permit_entry(&services, ask, entry.options.clone()).await {
                    // What was read of the past may be read no longer, or now could be: the client asks again.
                    Ok(anew) if anew.may_read_history != entry.may_read_history => found.start = Err(unavailable()),
                    Ok(anew) => entry.permit = anew.permit,
                    Err(refusal) => found.start = Err(refusal),
                }
            }
            move |sessions: &mut Self| sessions.entered(ticket, entering, cause)
        });
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
    identity: &Arc<Identity>,
    connection: ConnectionId,
    (joined, seen): (Vec<Room>, Vec<Room>),
    undecided: Undecided,
) -> Judged {
    let mut judged = Judged::default();
    let ask = |room: &Room, action| {
        services.policy.authorize(Question {
            identity: Arc::clone(identity),
            connection,
            room: room.clone(),
            action,
        })
    };
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
