//! The timeouts and bounds of the cluster.

use std::time::Duration;

/// The bounds of what nodes order of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Timeout for the answers of other nodes. Default 2 s; the caller's deadline may be shorter.
    pub answer_timeout: Duration,
    /// The most orders of others that are carried out at once; more are not heard, and sent again. Default 1,024.
    pub orders_max: usize,
    /// The most completed orders that are remembered with their answers, so that a repeated one is answered and not
    /// carried out again. Default 4,096.
    pub remembered_max: usize,
    /// The most bytes of the control log. When it is full, `Revoke` is refused. Default 64 MiB, some 200,000 revocations.
    pub log_bytes_max: u64,
    /// Retention of the control log, and so the longest revocation there may be. Default 30 days.
    pub log_age_max: Duration,
    /// Interval at which the control log is checked for room and for losses. Default 5 s.
    pub look_interval: Duration,
    /// Interval at which the lease is renewed. Default 1 s.
    pub renew_interval: Duration,
    /// Margin added to the lease of a silent node before a revocation is answered without it, for clocks that do not run
    /// at the same rate. Default 1 s.
    pub lease_margin: Duration,
    /// The largest difference between the clocks of NATS servers. A node whose lease ended this long ago may count as one that has
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
