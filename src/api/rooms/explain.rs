//! Explains the policy's decision and the rule behind it.

use std::sync::Arc;

use crate::api::credentials::{Caller, Scope};
use crate::api::status::{Invalid, Refusal};
use crate::api::{ApiServices, convert};
use crate::event::EventName;
use crate::hub::Audience;
use crate::identity::{ConnectionId, Expiry, Identity};
use crate::json::{Json, Members};
use crate::policy::{Action, Question};
use crate::proto::v1;
use crate::room::{Room, Tenant};

/// The largest claims, in bytes: those of the longest token.
const CLAIMS_BYTES_MAX: usize = 8 << 10;

/// Name of the decision when no rule matched.
const DEFAULT_RULE: &str = "default";

impl ApiServices {
    pub(super) async fn explain(
        &self,
        caller: &Caller,
        request: v1::ExplainRequest,
    ) -> Result<v1::ExplainResponse, Refusal> {
        caller.check_scope(Scope::Read)?;
        let tenant = convert::tenant(&request.tenant)?;
        caller.check(Scope::Read, tenant.as_str())?;
        let wanted = v1::Action::try_from(request.action).unwrap_or(v1::Action::Unspecified);
        let action = match wanted {
            v1::Action::Unspecified => return Err(Refusal::field("action", "is required")),
            v1::Action::Connect => None,
            v1::Action::Join => Some(Action::Join),
            v1::Action::Presence => Some(Action::Presence),
            v1::Action::History => Some(Action::History),
            v1::Action::Publish => Some(Action::Publish(
                EventName::parse(&request.event_name)
                    .map_err(|error| Refusal::invalid(Invalid::EventName, "event_name", error))?,
            )),
            v1::Action::Request => {
                Some(Action::Request(EventName::parse(&request.method).map_err(|error| {
                    Refusal::invalid(Invalid::EventName, "method", error)
                })?))
            }
        };
        let room = match &action {
            Some(Action::Request(_)) if request.room.is_empty() => Some(Room::nameless(&tenant)),
            Some(_) => Some(convert::room(&tenant, "room", &request.room)?),
            None => None,
        };
        let (identity, connection) = self.subject(&tenant, request.subject.as_ref()).await?;
        match (action, room) {
            (Some(action), Some(room)) => {
                let question = Question {
                    identity,
                    connection,
                    room,
                    action,
                };
                let explained = self.context.policy.explain(question).await;
                let considered = explained.considered.iter().map(|(rule, said)| v1::ConsideredRule {
                    rule: rule.as_ref().to_owned(),
                    message: said.as_ref().to_owned(),
                });
                Ok(v1::ExplainResponse {
                    considered: considered.collect(),
                    ..answer(explained.allowed, explained.rule.as_deref(), &explained.reason)
                })
            }
            _ => Ok(match self.context.policy.admit(&identity, connection).await {
                Ok(_) => answer(true, None, "may connect"),
                Err(denied) => answer(false, denied.rule.as_deref(), &denied.reason),
            }),
        }
    }

    async fn subject(
        &self,
        tenant: &Tenant,
        subject: Option<&v1::explain_request::Subject>,
    ) -> Result<(Arc<Identity>, ConnectionId), Refusal> {
        use v1::explain_request::Subject;
        match subject {
            Some(Subject::ClaimsJson(text)) => {
                Ok((Arc::new(with_claims(tenant.clone(), text)?), ConnectionId::random()))
            }
            Some(Subject::ConnectionId(id)) => {
                let connection = convert::connection("connection_id", id)?;
                let audience = Audience::Connection(tenant.clone(), connection);
                let found = self.context.cluster.find(&audience).await?;
                Ok((found.ok_or(Refusal::ConnectionNotFound)?.identity, connection))
            }
            None => Err(Refusal::field("subject", "claims or a connection are required")),
        }
    }
}

/// Builds the identity of a token with these claims; the user is its subject (RFC 7519 section 4.1.2).
fn with_claims(tenant: Tenant, text: &str) -> Result<Identity, Refusal> {
    let wrong = |why: String| Refusal::field("claims_json", why);
    if text.len() > CLAIMS_BYTES_MAX {
        return Err(wrong(format!("is longer than {CLAIMS_BYTES_MAX} bytes")));
    }
    let claims = Json::parse(text.to_owned()).map_err(|error| wrong(error.to_string()))?;
    let members = Members::parse(text).map_err(|_| wrong("is not an object".to_owned()))?;
    let user = members
        .get("sub")
        .and_then(|user| serde_json::from_str::<String>(user).ok());
    let user = user.ok_or_else(|| wrong("has no text `sub`".to_owned()))?;
    Ok(Identity {
        tenant,
        user: convert::user("claims_json.sub", &user)?,
        claims: claims.into(),
        expiry: Expiry(u64::MAX),
    })
}

fn answer(allowed: bool, rule: Option<&str>, message: &str) -> v1::ExplainResponse {
    let decision = if allowed {
        v1::Decision::Allow
    } else {
        v1::Decision::Deny
    };
    v1::ExplainResponse {
        decision: decision.into(),
        rule: rule.unwrap_or(DEFAULT_RULE).to_owned(),
        message: message.to_owned(),
        considered: Vec::new(),
    }
}
