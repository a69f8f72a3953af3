//! The identities of the members.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::super::wire::Wire;
use super::ledger::Group;
use roomcast::auth::IssuerConfig;
use roomcast::cli::failure::Failure;
use roomcast::cli::token::{mint, subject};
use roomcast::proto::client_v1::Position;

/// The lifetime of the members' tokens: longer than any run.
const TOKEN_TTL: Duration = Duration::from_secs(3 * 3600);

/// The rooms of a member, by their numbers; the first is the one whose events it counts.
pub(crate) type RoomsOf = Box<dyn Fn(u32) -> Vec<u32> + Send>;

/// The address, identities and rooms of the members.
pub(crate) struct Plan {
    pub(crate) wire: Wire,
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    pub(crate) path: String,
    /// In whose name tokens are signed; none where the server asks for none.
    pub(crate) issuer: Option<IssuerConfig>,
    pub(crate) tenant: String,
    /// Tells the rooms of this run from those of any other.
    pub(crate) run: String,
    pub(crate) rooms_of: RoomsOf,
    /// Rooms from this number on are the second group.
    pub(crate) second_group: u32,
    /// The positions at which returning members left their rooms.
    pub(crate) since: HashMap<u32, Position>,
    /// The first event that a member who enters now is to get.
    pub(crate) first_event: u64,
}

impl Plan {
    pub(crate) fn room(&self, room: u32) -> String {
        room_name(&self.run, room)
    }

    pub(super) fn group(&self, room: u32) -> Group {
        usize::from(room >= self.second_group)
    }

    pub(super) fn rooms(&self, number: u32) -> Vec<String> {
        (self.rooms_of)(number)
            .into_iter()
            .map(|room| self.room(room))
            .collect()
    }

    /// With as much in it as a token of an application has.
    pub(super) fn token(&self, number: u32) -> Result<String, Failure> {
        let Some(issuer) = &self.issuer else {
            return Ok(String::new());
        };
        let user = format!("bench-{number}");
        let mut claims = subject(&issuer.claims, &user, &self.tenant);
        claims.insert("name".to_owned(), json!(format!("Member {number} of the bench")));
        claims.insert("role".to_owned(), json!("member"));
        mint(issuer, &user, TOKEN_TTL, claims)
    }
}

/// Nothing in it needs escaping, wherever it goes.
pub(crate) fn room_name(run: &str, room: u32) -> String {
    format!("bench:{run}:{room}")
}
