//! The record of a cluster's settings, and its comparison with a node's own. Pure: it knows no NATS.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message as _;

use super::setting::{Rule, Setting};
use crate::proto::node_v1::{ClusterSetting, ClusterSettings};

/// The settings of a cluster by their keys. Entries with keys unknown to this release are kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Record(BTreeMap<String, ClusterSetting>);

/// A setting whose value differs between this node and the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub key: &'static str,
    pub here: String,
    pub cluster: String,
    pub rule: Rule,
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Comparison {
    /// The new content of the record; unchanged when there is nothing to write.
    pub next: Record,
    /// The permitted differences, before the record is written.
    pub differs: Vec<Difference>,
    /// The differences that are refused.
    pub refused: Vec<Difference>,
}

impl Record {
    /// Decodes a record. An undecodable one counts as none: the settings of the nodes replace it.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let settings = ClusterSettings::decode(bytes).ok()?.settings;
        let entries = settings.into_iter().map(|setting| (setting.key.clone(), setting));
        Some(Self(entries.collect()))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let settings = self.0.values().cloned().collect();
        ClusterSettings { settings }.encode_to_vec()
    }

    /// Returns the number of a key.
    pub(super) fn amount(&self, key: &str) -> Option<u64> {
        self.0.get(key).map(|setting| setting.amount)
    }

    /// Compares with a node's own settings. The node's larger or missing values are taken into the record.
    pub(super) fn compare(&self, own: &[Setting]) -> Comparison {
        let mut comparison = Comparison {
            next: self.clone(),
            differs: Vec::new(),
            refused: Vec::new(),
        };
        for setting in own {
            let written = setting.written();
            let Some(there) = self.0.get(setting.key) else {
                comparison.next.put(written);
                continue;
            };
            if there.amount == written.amount && there.text == written.text {
                continue;
            }
            let difference = Difference {
                key: setting.key,
                here: written.text.clone(),
                cluster: there.text.clone(),
                rule: setting.rule,
            };
            match setting.rule {
                Rule::Equal(_) => comparison.refused.push(difference),
                Rule::Largest if written.amount > there.amount => {
                    comparison.next.put(written);
                    comparison.differs.push(difference);
                }
                Rule::Largest | Rule::Own => comparison.differs.push(difference),
            }
        }
        comparison
    }

    /// Returns the record for when every living node is set like this one.
    pub(super) fn settled(&self, own: &[Setting]) -> Self {
        let mut settled = self.clone();
        for setting in own.iter().filter(|setting| !matches!(setting.rule, Rule::Equal(_))) {
            settled.put(setting.written());
        }
        settled
    }

    fn put(&mut self, setting: ClusterSetting) {
        self.0.insert(setting.key.clone(), setting);
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            here,
            cluster,
            rule,
        } = self;
        write!(f, "{key} is {here} on this node and {cluster} in the cluster")?;
        match rule {
            Rule::Equal(change) => write!(f, ": set it to {cluster}; {change}"),
            Rule::Largest => write!(f, ": the larger is in force until all nodes say the same"),
            Rule::Own => write!(f, ": each node goes by its own until all say the same"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::setting::Value;
    use super::*;

    fn settings(partitions: u64, events: u64, rooms: &str) -> Vec<Setting> {
        vec![
            Setting::new("nats.partitions", Value::Count(partitions), Rule::Equal("begin anew")),
            Setting::new("history.events_max", Value::Count(events), Rule::Largest),
            Setting::new("history.rooms", Value::Text(rooms.to_owned()), Rule::Own),
        ]
    }

    fn first(own: &[Setting]) -> Record {
        Record::default().compare(own).next
    }

    #[test]
    fn the_first_node_writes_its_own_settings() {
        let own = settings(64, 100, "");
        let Comparison { next, differs, refused } = Record::default().compare(&own);
        assert_eq!((differs, refused), (vec![], vec![]));
        assert_eq!(Record::decode(&next.encode()), Some(next.clone()));
        assert_eq!(next.compare(&own).next, next, "there is nothing to add");
    }

    #[test]
    fn another_number_of_partitions_is_refused_and_named() {
        let compared = first(&settings(64, 100, "")).compare(&settings(32, 100, ""));
        assert_eq!(
            compared.refused[0].to_string(),
            "nats.partitions is 32 on this node and 64 in the cluster: set it to 64; begin anew"
        );
    }

    #[test]
    fn the_larger_limit_is_in_force_whoever_starts_last() {
        for (one, other) in [(100, 300), (300, 100)] {
            let compared = first(&settings(64, one, "")).compare(&settings(64, other, ""));
            assert_eq!(compared.next.amount("history.events_max"), Some(300));
            assert_eq!((compared.differs.len(), compared.refused.len()), (1, 0));
        }
    }

    #[test]
    fn a_limit_goes_down_once_all_nodes_say_less() {
        let lowered = first(&settings(64, 300, "a")).settled(&settings(32, 100, "b"));
        assert_eq!(lowered.amount("history.events_max"), Some(100));
        assert_eq!(
            lowered.amount("nats.partitions"),
            Some(64),
            "what must be equal never changes"
        );
        assert_eq!(lowered.compare(&settings(64, 100, "b")).differs, []);
    }

    #[test]
    fn what_a_later_release_has_written_is_kept() {
        let mut record = first(&settings(64, 100, ""));
        record.put(ClusterSetting {
            key: "of.tomorrow".to_owned(),
            amount: 7,
            ..ClusterSetting::default()
        });
        let next = record.compare(&settings(64, 300, "")).next;
        assert_eq!(next.settled(&settings(64, 100, "")).amount("of.tomorrow"), Some(7));
    }

    #[test]
    fn what_is_no_record_is_none() {
        assert_eq!(Record::decode(b"\xff\xff"), None);
    }
}
