//! An authenticated service and its publish rate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::grant::{Grant, Scope};
use crate::api::status::Refusal;
use crate::policy::Service;
use crate::rate::{Rate, TokenBucket};
use crate::sync::lock;
use crate::units::millis;

/// An authenticated service, as the handlers see it.
#[derive(Debug)]
pub struct Caller {
    /// Its rights in rooms.
    pub service: Service,
    watch: bool,
    rate: Option<Rate>,
    bucket: Arc<Mutex<TokenBucket>>,
}

impl Caller {
    /// Creates the caller of a credential.
    pub(super) fn new(grant: &Grant, bucket: Arc<Mutex<TokenBucket>>) -> Self {
        let may = |scope| grant.scopes.contains(&scope);
        let tenants = |tenants: &Vec<String>| tenants.iter().map(|tenant| tenant.as_str().into()).collect();
        Self {
            service: Service {
                name: grant.name.as_str().into(),
                publish: may(Scope::Publish),
                read: may(Scope::Read),
                manage: may(Scope::Manage),
                subscribe: may(Scope::Subscribe),
                tenants: grant.tenants.as_ref().map(tenants),
            },
            watch: may(Scope::Watch),
            rate: grant.publish_rate,
            bucket,
        }
    }

    /// Checks the scope, then the tenant.
    ///
    /// # Errors
    /// [`Refusal::ScopeMissing`] and [`Refusal::TenantForbidden`].
    pub fn check(&self, scope: Scope, tenant: &str) -> Result<(), Refusal> {
        self.check_scope(scope)?;
        if self.service.serves(tenant) {
            Ok(())
        } else {
            Err(Refusal::TenantForbidden)
        }
    }

    /// Checks the scope alone.
    ///
    /// # Errors
    /// [`Refusal::ScopeMissing`].
    pub fn check_scope(&self, scope: Scope) -> Result<(), Refusal> {
        let granted = match scope {
            Scope::Publish => self.service.publish,
            Scope::Read => self.service.read,
            Scope::Manage => self.service.manage,
            Scope::Watch => self.watch,
            Scope::Subscribe => self.service.subscribe,
        };
        if granted {
            Ok(())
        } else {
            Err(Refusal::ScopeMissing(scope))
        }
    }

    /// Takes `count` publishes from the service's token bucket.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`].
    pub fn spend(&self, count: usize, default: Rate) -> Result<(), Refusal> {
        let now_ms = clock_ms();
        let rate = self.rate.unwrap_or(default);
        let mut bucket = lock(&self.bucket);
        for _ in 0..count {
            bucket.take(rate, now_ms).map_err(|retry_after| Refusal::RateLimited {
                service: self.service.name.clone(),
                retry_after,
            })?;
        }
        Ok(())
    }
}

/// Returns milliseconds of a monotonic clock.
fn clock_ms() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let passed: Duration = START.get_or_init(Instant::now).elapsed();
    millis(passed)
}

/// Token buckets of services, by name: a new token of a service does not bring a new bucket.
#[derive(Debug, Default)]
pub(super) struct Buckets(Mutex<HashMap<Box<str>, Arc<Mutex<TokenBucket>>>>);

impl Buckets {
    /// Above this many, unused buckets are dropped.
    const KEPT_MAX: usize = 1024;

    /// Returns the bucket of a service.
    pub(super) fn of(&self, name: &str) -> Arc<Mutex<TokenBucket>> {
        let mut buckets = lock(&self.0);
        if buckets.len() >= Self::KEPT_MAX {
            buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1);
        }
        let new = || Arc::new(Mutex::new(TokenBucket::new(clock_ms())));
        buckets.entry(name.into()).or_insert_with(new).clone()
    }
}
