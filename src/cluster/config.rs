//! How long others are waited for, and how much is remembered.

use std::time::Duration;

/// The bounds of what nodes order of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How long the answers of other nodes are waited for. Default 2 s; the caller's deadline may be shorter.
    pub answer_timeout: Duration,
    /// The most orders of others that are carried out at once; more are not heard, and sent again. Default 1,024.
    pub orders_max: usize,
    /// How many orders that were carried out are remembered, with their answers, so that one that comes again is not
    /// carried out again. Default 4,096.
    pub remembered_max: usize,
    /// The most bytes of the control log. When it is full, `Revoke` is refused. Default 64 MiB, some 200,000 revocations.
    pub log_bytes_max: u64,
    /// How long a revocation stays in the control log: the longest there may be. Default 30 days.
    pub log_age_max: Duration,
    /// How often it is looked whether the control log has room and has lost nothing. Default 5 s.
    pub look_interval: Duration,
    /// How often the lease is renewed. Default 1 s.
    pub renew_interval: Duration,
    /// What is added to the lease of a silent node before a revocation is answered without it: for clocks that do not go
    /// at the same rate. Default 1 s.
    pub lease_margin: Duration,
    /// How far the clocks of NATS servers may be apart. A node whose lease ended this long ago may count as one that has
    /// one. Default 5 s.
    pub clock_difference_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            answer_timeout: Duration::from_secs(2),
            orders_max: 1024,
            remembered_max: 4096,
            log_bytes_max: 64 << 20,
            log_age_max: Duration::from_secs(30 * 24 * 3600),
            look_interval: Duration::from_secs(5),
            renew_interval: Duration::from_secs(1),
            lease_margin: Duration::from_secs(1),
            clock_difference_max: Duration::from_secs(5),
        }
    }
}
