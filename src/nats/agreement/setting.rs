//! One setting shared by the nodes of a cluster.

use std::time::Duration;

use crate::nats::streams::size;
use crate::proto::node_v1 as wire;
use crate::units::millis;

/// The rule for differences of a setting between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// No difference: events would be lost silently. A node with another value is refused. The text says how the value
    /// is changed.
    Equal(&'static str),
    /// The largest value is in force while nodes differ, so that no node promises more than the streams keep. It is
    /// lowered once every living node says less.
    Largest,
    /// Each node uses its own value, which is safe. A difference is reported.
    Own,
}

/// The value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Count(u64),
    /// A number of bytes.
    Bytes(u64),
    /// A time.
    Time(Duration),
    /// A text that can only be equal or different.
    Text(String),
}

/// One setting shared by the nodes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key in the configuration.
    pub key: &'static str,
    /// The value on this node.
    pub value: Value,
    /// The rule for differences.
    pub rule: Rule,
}

impl Setting {
    /// Creates a setting with its rule.
    #[must_use]
    pub const fn new(key: &'static str, value: Value, rule: Rule) -> Self {
        Self { key, value, rule }
    }

    /// Returns the value as a number; 0 for a text.
    #[must_use]
    pub fn amount(&self) -> u64 {
        match &self.value {
            Value::Count(amount) | Value::Bytes(amount) => *amount,
            Value::Time(time) => millis(*time),
            Value::Text(_) => 0,
        }
    }

    fn text(&self) -> String {
        match &self.value {
            Value::Count(count) => count.to_string(),
            Value::Bytes(bytes) => size(*bytes),
            Value::Time(time) => humantime::format_duration(*time).to_string(),
            Value::Text(text) => text.clone(),
        }
    }

    /// Returns the entry of the record for this setting.
    pub(super) fn written(&self) -> wire::ClusterSetting {
        let rule = match self.rule {
            Rule::Equal(_) => wire::SettingRule::Equal,
            Rule::Largest => wire::SettingRule::Largest,
            Rule::Own => wire::SettingRule::Own,
        };
        wire::ClusterSetting {
            key: self.key.to_owned(),
            text: self.text(),
            amount: self.amount(),
            rule: rule.into(),
        }
    }
}
