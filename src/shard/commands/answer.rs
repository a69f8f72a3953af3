//! A client's answers to asks of backends.

use super::CommandContext;
use crate::error::ErrorCode;
use crate::hub::AskEnd;
use crate::session::link::Link;
use crate::session::{Answer, Message, Refusal};

impl<L: Link> CommandContext<'_, L> {
    /// Ends an ask that waits. It costs nothing of the client's rate: a backend has asked for it.
    pub(super) fn take_answer(&mut self, ask: u32, answer: Answer) {
        let (end, reply) = match answer {
            Answer::Payload(payload) => match self.check_payload(&payload) {
                Ok(()) => (AskEnd::Answered(payload), Message::Answered { accepted: true }),
                // The backend learns at once that nothing better comes.
                Err(refusal) => (AskEnd::Unreadable, Message::Error(refusal)),
            },
            Answer::Error(error) => (AskEnd::Error(error), Message::Answered { accepted: true }),
            Answer::Unreadable => (AskEnd::Unreadable, Message::Error(unreadable())),
        };
        let key = self.key();
        self.sessions.asked.answer(key, ask, end);
        self.answer(&reply);
    }

    /// Answers a client whose answer nobody waits for: it is late, a second one, or made up.
    pub(super) fn ignore_answer(&mut self) {
        self.sessions.counters().answers_ignored.add();
        self.answer(&Message::Answered { accepted: false });
    }
}

fn unreadable() -> Refusal {
    Refusal::new(
        ErrorCode::InvalidArgument,
        "an answer is JSON, or one attachment as its only argument",
    )
}
