//! Permissions of a development gateway: almost everything is allowed, with one refusal of each kind to try.

use crate::config::Config;
use crate::policy::{ActionName, RuleConfig};

const EVERYTHING: [ActionName; 5] = [
    ActionName::Join,
    ActionName::Publish,
    ActionName::Presence,
    ActionName::History,
    ActionName::Request,
];

/// Opens the rooms, adds the home rooms of user and tenant to every connection, and configures their names for backends.
pub(super) fn open(config: &mut Config) {
    config.policy.rules = vec![
        rule("own-room", "user:{id}", "room.id == user.id"),
        rule(
            "private-rooms",
            "private:{name_of_room*}",
            "has(claims.role) && claims.role == 'admin'",
        ),
        rule(
            "any-room",
            "{whole*}",
            "!room.name.startsWith('user:') && !room.name.startsWith('private:')",
        ),
        RuleConfig {
            room: None,
            allow: vec![ActionName::Request],
            when: None,
            ..rule("requests-without-a-room", "", "")
        },
    ];
    config.policy.auto_join = vec!["user:{sub}".to_owned(), "tenant:{tenant_id}".to_owned()];
    config.grpc.user_room = Some("user:{user}".to_owned());
    config.grpc.tenant_room = Some("tenant:{tenant}".to_owned());
}

fn rule(name: &str, room: &str, when: &str) -> RuleConfig {
    RuleConfig {
        name: name.to_owned(),
        room: Some(room.to_owned()),
        allow: EVERYTHING.to_vec(),
        events: Vec::new(),
        methods: Vec::new(),
        when: Some(when.to_owned()),
        authorizer: false,
        validate: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::RulePolicy;

    #[test]
    fn the_development_rules_compile() {
        let mut config = Config::default();
        open(&mut config);
        RulePolicy::new(&config.policy).unwrap();
        config.gateway(true).unwrap();
    }
}
