//! `[connections]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hub::admission::Config;

/// How many connections the node serves. One more is refused with 503, or closed with 4504 where it belongs to a user.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Config", deny_unknown_fields)]
pub(in crate::config) struct Connections {
    /// All connections of the node. Each costs about 5 KiB, most of it the kernel's.
    pub connections_max: usize,
    /// Connections of one user of one tenant.
    pub per_user_max: u32,
    /// Connections from one address.
    pub per_address_max: u32,
}
