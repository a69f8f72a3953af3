//! One setting that the nodes of a cluster share.

use std::time::Duration;

use crate::nats::streams::size;
use crate::proto::node_v1 as wire;

/// How a setting may differ between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Not at all: events would be lost in silence. A node with another value is refused; how the value can be changed.
    Equal(&'static str),
    /// The largest value is in force while nodes differ, so that no node promises what the streams do not keep. It goes down
    /// once every living node says less.
    Largest,
    /// Each node goes by its own value, which is safe. A difference is reported.
    Own,
}

/// What a setting is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Count(u64),
    /// A number of bytes.
    Bytes(u64),
    /// A time.
    Time(Duration),
    /// Something that can only be equal or different.
    Text(String),
}

/// One setting that the nodes of a cluster share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key in the configuration.
    pub key: &'static str,
    /// What it is set to here.
    pub value: Value,
    /// How it may differ.
    pub rule: Rule,
}

impl Setting {
    /// A setting with its rule.
    #[must_use]
    pub const fn new(key: &'static str, value: Value, rule: Rule) -> Self {
        Self { key, value, rule }
    }

    /// The value as a number, where it is one.
    #[must_use]
    pub fn amount(&self) -> u64 {
        match &self.value {
            Value::Count(amount) | Value::Bytes(amount) => *amount,
            Value::Time(time) => u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
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

    /// The entry of the record that says this.
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
