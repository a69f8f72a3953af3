//! The authorizer: a service of the application that decides where rules do not suffice.
//!
//! Fails closed: no answer in time, an error or junk is a denial that is marked undecided and kept nowhere. Equal
//! questions at the same time are one call; answers are kept for as long as they allow, within a bound.

mod answers;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use self::answers::{Answers, Key};
use super::config::{AuthorizerConfig, PolicyError};
use super::{Action, Question, Revocation, Terms};
use crate::identity::{ConnectionId, Expiry, Identity};
use crate::json::Json;
use crate::proto::backend::v1 as wire;
use crate::proto::backend::v1::authorizer_service_client::AuthorizerServiceClient;
use crate::proto::call::{self, Failure, Target};
use crate::proto::v1;
use crate::sync::lock;

/// The most rooms an answer to connect may name: a quarter of what a client may join by default.
const JOIN_ROOMS_MAX: usize = 32;

/// The largest presence state an answer may bring, in bytes: that of a client by default.
const STATE_BYTES_MAX: usize = 1024;

/// The longest reason that is kept of a denial, in characters; a longer one is cut.
const REASON_CHARS_MAX: usize = 64;

/// The same for its message.
const MESSAGE_CHARS_MAX: usize = 256;

/// An answer of the authorizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Allowed, under these terms; for connect, with the rooms to join.
    Allow(Arc<[String]>, Terms),
    /// Denied, with its reason.
    Deny(Arc<str>),
    /// There is no answer, and this is why. Counts as denied.
    Undecided(Arc<str>),
}

type Pending = BoxFuture<'static, Answer>;

/// Asks the authorizer service.
#[derive(Debug)]
pub(super) struct Authorizer {
    target: Target,
    config: AuthorizerConfig,
    answers: Arc<Answers>,
    pending: Mutex<Vec<(Key, WeakShared<Pending>)>>,
    in_flight: Arc<Semaphore>,
    hasher: RandomState,
}

impl Authorizer {
    pub(super) fn new(config: &AuthorizerConfig) -> Result<Self, PolicyError> {
        let target = Target::new(&config.url, config.ca_file.as_deref(), config.timeout);
        Ok(Self {
            target: target.map_err(|error| PolicyError::Contradiction {
                place: "authorizer".to_owned(),
                detail: error.to_string(),
            })?,
            answers: Arc::new(Answers::new(config.cache_entries_max)),
            pending: Mutex::default(),
            in_flight: Arc::new(Semaphore::new(config.in_flight_max)),
            hasher: RandomState::new(),
            config: config.clone(),
        })
    }

    /// Returns whether it was made of these settings.
    pub(super) fn is_configured_as(&self, settings: &AuthorizerConfig) -> bool {
        self.config == *settings
    }

    /// Asks about a question.
    pub(super) async fn decide(&self, question: &Question) -> Answer {
        let (action, event) = match &question.action {
            Action::Join => (v1::Action::Join, ""),
            Action::Publish(name) => (v1::Action::Publish, name.as_str()),
            Action::Presence => (v1::Action::Presence, ""),
            Action::History => (v1::Action::History, ""),
            Action::Request(method) => (v1::Action::Request, method.as_str()),
        };
        let key = self.key(&question.identity, action, Some(question.room.clone()), event);
        self.answer(key, &question.identity, question.connection).await
    }

    /// Asks whether somebody may connect.
    pub(super) async fn admit(&self, identity: &Identity, connection: ConnectionId) -> Answer {
        let key = self.key(identity, v1::Action::Connect, None, "");
        self.answer(key, identity, connection).await
    }

    /// Forgets what was said about whoever a revocation hits.
    pub(super) fn forget(&self, revocation: &Revocation) {
        self.answers.forget(revocation);
    }

    fn key(&self, identity: &Identity, action: v1::Action, room: Option<crate::room::Room>, event: &str) -> Key {
        Key {
            tenant: identity.tenant.clone(),
            user: identity.user.clone(),
            claims: self.hasher.hash_one(identity.claims.as_str()),
            action,
            room,
            event: event.into(),
        }
    }

    async fn answer(&self, key: Key, identity: &Identity, connection: ConnectionId) -> Answer {
        if let Some(answer) = self.answers.look(&key) {
            return answer;
        }
        self.join_or_ask(key, identity, connection).await
    }

    /// The call in flight for an equal question, or a new one.
    fn join_or_ask(&self, key: Key, identity: &Identity, connection: ConnectionId) -> Shared<Pending> {
        let mut pending = lock(&self.pending);
        // Calls that ended, or that nobody waits for any more.
        pending.retain(|(_, call)| call.upgrade().is_some_and(|call| call.peek().is_none()));
        let equal = pending.iter().find(|(own, _)| *own == key);
        if let Some(call) = equal.and_then(|(_, call)| call.upgrade()) {
            return call;
        }
        let call = self.ask(key.clone(), identity, connection).shared();
        if let Some(weak) = call.downgrade() {
            pending.push((key, weak));
        }
        call
    }

    fn ask(&self, key: Key, identity: &Identity, connection: ConnectionId) -> Pending {
        let Ok(turn) = self.in_flight.clone().try_acquire_owned() else {
            return std::future::ready(undecided("too many questions are waiting for the authorizer")).boxed();
        };
        let (event_name, method) = match key.action {
            v1::Action::Request => ("", &*key.event),
            _ => (&*key.event, ""),
        };
        let request = wire::AuthorizeRequest {
            subject: Some(v1::Subject {
                tenant: identity.tenant.as_str().to_owned(),
                user_id: identity.user.as_str().to_owned(),
                connection_id: connection.to_string(),
                claims_json: identity.claims.as_str().to_owned(),
            }),
            action: key.action.into(),
            room: key
                .room
                .as_ref()
                .map_or_else(String::new, |room| room.name().to_owned()),
            event_name: event_name.to_string(),
            method: method.to_string(),
        };
        let mut client = AuthorizerServiceClient::new(self.target.channel())
            .max_decoding_message_size(AuthorizerConfig::ANSWER_BYTES_MAX);
        let (timeout, ttl_max) = (self.config.timeout, self.config.cache_ttl_max);
        let answers = self.answers.clone();
        let asking = async move {
            let forgotten = answers.forgotten();
            let answered = call::within(timeout, request, |request| client.authorize(request)).await;
            drop(turn);
            let (answer, ttl) = read(answered);
            answers.keep(key, &answer, ttl.min(ttl_max), forgotten);
            answer
        };
        asking.instrument(tracing::debug_span!("policy.authorize")).boxed()
    }
}

/// Takes an answer apart; what is not clearly one is none.
fn read(answered: Result<wire::AuthorizeResponse, Failure>) -> (Answer, Duration) {
    let response = match answered {
        Ok(response) => response,
        Err(Failure::Timeout) => return (undecided("the authorizer did not answer in time"), Duration::ZERO),
        Err(Failure::Status(status)) => {
            tracing::warn!(code = ?status.code(), "authorizer failed");
            return (undecided("the authorizer failed"), Duration::ZERO);
        }
    };
    let mut ttl = response.cache_ttl.and_then(crate::proto::time::duration);
    let answer = match v1::Decision::try_from(response.decision) {
        Ok(v1::Decision::Allow) if response.join_rooms.len() <= JOIN_ROOMS_MAX => {
            let Some(terms) = terms(response.expire_time, response.presence_state_json) else {
                return (
                    undecided("the terms of the authorizer's answer are none"),
                    Duration::ZERO,
                );
            };
            let left = terms.expires.map(Expiry::left);
            if left.is_some_and(|left| left.is_zero()) {
                return (Answer::Deny("the permission has ended".into()), Duration::ZERO);
            }
            // An answer must not outlive what it allows.
            ttl = ttl.map(|ttl| left.map_or(ttl, |left| left.min(ttl)));
            Answer::Allow(response.join_rooms.into(), terms)
        }
        Ok(v1::Decision::Deny) => Answer::Deny(denial(&response.reason, &response.message).into()),
        _ => return (undecided("the authorizer's answer is not one"), Duration::ZERO),
    };
    (answer, ttl.unwrap_or_default())
}

/// Reads the terms; `None` when they cannot be kept, for then nothing may be allowed under them.
fn terms(expires: Option<prost_types::Timestamp>, state: String) -> Option<Terms> {
    let expires = expires
        .map(|at| u64::try_from(at.seconds).map(Expiry))
        .transpose()
        .ok()?;
    let state = match state.as_str() {
        "" => None,
        text if text.len() > STATE_BYTES_MAX => return None,
        _ => Some(Json::parse(state).ok()?),
    };
    Some(Terms { expires, state })
}

/// Puts a denial's word and text together, for the log and for who asks why.
fn denial(reason: &str, message: &str) -> String {
    let separator = if reason.is_empty() || message.is_empty() {
        ""
    } else {
        ": "
    };
    let (reason, message) = (
        reason.chars().take(REASON_CHARS_MAX),
        message.chars().take(MESSAGE_CHARS_MAX),
    );
    reason.chain(separator.chars()).chain(message).collect()
}

fn undecided(reason: &str) -> Answer {
    Answer::Undecided(reason.into())
}

#[cfg(test)]
mod tests;
