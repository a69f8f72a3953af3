//! `explain`: evaluates the policy of a configuration file, without a gateway.

use std::fmt::Write as _;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::print;
use super::settings::Settings;
use crate::event::EventName;
use crate::identity::{ConnectionId, Expiry, Identity, UserId};
use crate::json::{Json, Members};
use crate::policy::{Action, Explanation, Policy, Question, RulePolicy};
use crate::room::{Room, Tenant};

/// Evaluate the rules of a configuration and name the deciding rule: exit code 0 allowed, 1 denied
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  roomcast explain --config roomcast.toml --claims '{\"sub\":\"ada\",\"projects\":[\"7\"]}' join project:7"
)]
pub(super) struct Explain {
    #[command(flatten)]
    settings: Settings,
    /// The claims, as JSON, as if a token with them had been verified
    #[arg(long, value_name = "JSON")]
    claims: String,
    /// The tenant; otherwise that of the claims of the first issuer
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// The action
    #[arg(value_enum)]
    action: ActionArgument,
    /// The room; a request may go without one
    #[arg(required_if_eq_any([("action", "join"), ("action", "publish"), ("action", "presence"), ("action", "history")]))]
    room: Option<String>,
    /// The event's name, for publish
    #[arg(long, value_name = "NAME", required_if_eq("action", "publish"))]
    event: Option<String>,
    /// The method, for request
    #[arg(long, value_name = "NAME", required_if_eq("action", "request"))]
    method: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ActionArgument {
    Join,
    Publish,
    Presence,
    History,
    Request,
}

impl Explain {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let config = self.settings.load()?;
        let policy = RulePolicy::new(&config.policy).map_err(|error| Failure::No(format!("policy: {error}")))?;
        let names = config
            .auth
            .issuers
            .first()
            .map(|issuer| issuer.claims.clone())
            .unwrap_or_default();
        let question = self.question(&names)?;
        let explanation = policy.explain(question).await;
        if self.json {
            print(as_json(&explanation))?;
        } else {
            print(as_text(&explanation))?;
        }
        if explanation.allowed {
            Ok(())
        } else {
            Err(Failure::No(String::new()))
        }
    }

    fn question(&self, names: &crate::auth::ClaimsConfig) -> Result<Question, Failure> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| Failure::Usage(format!("{what}: {error}"));
        let claims = Json::parse(self.claims.clone()).map_err(|error| wrong("--claims", &error))?;
        let members = Members::parse(claims.as_str()).map_err(|error| wrong("--claims", &error))?;
        let user = members
            .text(&names.user)
            .ok_or_else(|| wrong("--claims", &format!("`{}` names no user", names.user)))?;
        let claimed = names.tenant.as_deref().and_then(|claim| members.text(claim));
        let tenant = self
            .tenant
            .clone()
            .or(claimed)
            .unwrap_or_else(|| names.tenant_default.clone());
        let tenant = Tenant::parse(&tenant).map_err(|error| wrong("the tenant", &error))?;
        let room = match &self.room {
            Some(room) => Room::parse(&tenant, room).map_err(|error| wrong("the room", &error))?,
            None => Room::nameless(&tenant),
        };
        let identity = Identity {
            tenant,
            user: UserId::parse(&user).map_err(|error| wrong("the user", &error))?,
            claims: claims.into(),
            expiry: Expiry(u64::MAX),
        };
        Ok(Question {
            identity: Arc::new(identity),
            connection: ConnectionId::random(),
            room,
            action: self.action()?,
        })
    }

    fn action(&self) -> Result<Action, Failure> {
        Ok(match self.action {
            ActionArgument::Join => Action::Join,
            ActionArgument::Presence => Action::Presence,
            ActionArgument::History => Action::History,
            ActionArgument::Publish => {
                let name = EventName::parse(self.event.as_deref().unwrap_or_default());
                Action::Publish(name.map_err(|error| Failure::Usage(format!("--event {error}")))?)
            }
            ActionArgument::Request => {
                let method = EventName::parse(self.method.as_deref().unwrap_or_default());
                Action::Request(method.map_err(|error| Failure::Usage(format!("--method {error}")))?)
            }
        })
    }
}

fn verdict(explanation: &Explanation) -> &'static str {
    if explanation.allowed { "allowed" } else { "denied" }
}

fn as_text(explanation: &Explanation) -> String {
    let rule = explanation.rule.as_deref().unwrap_or("default");
    let mut text = format!("{} by {rule}: {}", verdict(explanation), explanation.reason);
    for (rule, said) in &explanation.considered {
        let _ = write!(text, "\n  {rule}: {said}");
    }
    text
}

fn as_json(explanation: &Explanation) -> Value {
    let considered = explanation
        .considered
        .iter()
        .map(|(rule, said)| json!({"rule": &**rule, "said": &**said}));
    json!({
        "decision": verdict(explanation),
        "rule": explanation.rule.as_deref().unwrap_or("default"),
        "reason": &*explanation.reason,
        "considered": considered.collect::<Vec<_>>(),
    })
}
