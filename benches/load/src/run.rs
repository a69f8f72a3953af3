//! The common start of all scenarios: a server, members with credentials for it, and a clock.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::crowd::{Crowd, Plan, RoomsOf};
use super::process::{Usage, files_max, thread_cpu};
use super::target::{Target, random};
use roomcast::cli::failure::Failure;
use roomcast::url::shown;

/// Files needed beside the members' sockets.
const FILES_BESIDE: u64 = 64;

/// One run: its server, its clock, and whether it is still wanted.
pub(super) struct Run {
    pub(super) target: Target,
    pub(super) clock: Instant,
    /// Tells the rooms of this run from those of any other.
    pub(super) name: String,
    stop: Arc<AtomicBool>,
}

/// The resource usage of the processes at one time.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    pub(super) at: Instant,
    /// All of the server's processes together, without the one of NATS.
    pub(super) server: Option<Usage>,
    /// Each of several nodes by itself, the first one first.
    nodes: Vec<Usage>,
    /// The nats-server of the nodes.
    nats: Option<Usage>,
    pub(super) generator: Option<Usage>,
    /// The time this thread has run, which serves the members.
    thread: Option<Duration>,
}

impl Run {
    pub(super) fn of(target: Target, stop: Arc<AtomicBool>) -> Self {
        Self {
            target,
            clock: Instant::now(),
            name: random::<8>(),
            stop,
        }
    }

    /// Members of this server. Rooms from `second_group` on have their latencies counted apart.
    pub(super) fn crowd(&self, rooms_of: RoomsOf, second_group: u32) -> Result<Crowd, Failure> {
        let missing = || Failure::Usage(format!("{} takes no members", self.target.name));
        let (address, host, path) = resolve(self.target.url.as_deref().ok_or_else(missing)?)?;
        let plan = Plan {
            wire: self.target.wire,
            address,
            host,
            path,
            issuer: self.target.issuer.clone(),
            tenant: self.target.tenant.clone(),
            run: self.name.clone(),
            rooms_of,
            second_group,
            since: HashMap::new(),
            first_event: 0,
        };
        Crowd::new(plan, self.clock, self.stop.clone())
    }

    /// An error when the process that is to be looked at cannot be.
    pub(super) fn moment(&self) -> Result<Moment, Failure> {
        let usage = |pid| {
            // Elsewhere than on Linux only a process that was asked for must be readable.
            Usage::of(pid)
                .ok_or_else(|| Failure::Undone(format!("cannot read what process {pid} uses; --pid needs Linux")))
        };
        let usages = |pids: &mut dyn Iterator<Item = u32>| {
            let pids = pids.filter(|_| cfg!(target_os = "linux"));
            pids.map(usage).collect::<Result<Vec<_>, _>>()
        };
        let target = &self.target;
        let nodes = usages(&mut target.pid.into_iter().chain(target.further.iter().copied()))?;
        Ok(Moment {
            at: Instant::now(),
            server: nodes.iter().copied().reduce(Usage::plus),
            nats: usages(&mut target.nats.into_iter())?.pop(),
            nodes,
            generator: Usage::of(std::process::id()),
            thread: thread_cpu(),
        })
    }
}

impl Moment {
    pub(super) fn since(&self, earlier: &Self) -> Duration {
        self.at.saturating_duration_since(earlier.at)
    }

    /// Returns the server's CPU time since then.
    pub(super) fn server_cpu(&self, earlier: &Self) -> Option<Duration> {
        Some(self.server?.cpu.saturating_sub(earlier.server?.cpu))
    }

    /// Returns the CPU time of each of several nodes since then.
    pub(super) fn nodes_cpu(&self, earlier: &Self) -> Vec<Duration> {
        let each = self.nodes.iter().zip(&earlier.nodes);
        each.map(|(now, then)| now.cpu.saturating_sub(then.cpu)).collect()
    }

    /// Returns the nats-server's CPU time since then.
    pub(super) fn nats_cpu(&self, earlier: &Self) -> Option<Duration> {
        Some(self.nats?.cpu.saturating_sub(earlier.nats?.cpu))
    }

    /// Returns the generator's CPU time since then, publishing included.
    pub(super) fn generator_cpu(&self, earlier: &Self) -> Option<Duration> {
        Some(self.generator?.cpu.saturating_sub(earlier.generator?.cpu))
    }

    /// Returns the load of the members' thread, in percent of a processor.
    pub(super) fn thread_percent(&self, earlier: &Self) -> Option<f64> {
        let used = self.thread?.saturating_sub(earlier.thread?).as_secs_f64();
        Some(100.0 * used / self.since(earlier).as_secs_f64().max(f64::EPSILON))
    }
}

/// Checks that this process may open the files that so many members need.
pub(super) fn check_files(members: u32) -> Result<(), Failure> {
    let needed = u64::from(members) + FILES_BESIDE;
    match files_max() {
        Some(files) if files < needed => Err(Failure::Undone(format!(
            "{needed} open files are needed and {files} allowed: try `ulimit -n {needed}`"
        ))),
        _ => Ok(()),
    }
}

/// Resolves a WebSocket address into the socket address, the name of the host, and the path.
fn resolve(url: &str) -> Result<(SocketAddr, String, String), Failure> {
    let wrong = || {
        Failure::Usage(format!(
            "{} is no WebSocket address without TLS (ws://HOST:PORT/PATH)",
            shown(url)
        ))
    };
    let uri: http::Uri = url.parse().map_err(|_| wrong())?;
    if uri.scheme_str() != Some("ws") {
        return Err(wrong());
    }
    let authority = uri.authority().ok_or_else(wrong)?;
    let host = authority.host().trim_matches(['[', ']']);
    let found = (host, authority.port_u16().unwrap_or(80)).to_socket_addrs();
    let mut found = found.map_err(|error| Failure::Undone(format!("{}: {error}", shown(url))))?;
    let address = found
        .next()
        .ok_or_else(|| Failure::Undone(format!("{}: the host has no address", shown(url))))?;
    Ok((address, authority.to_string(), uri.path().to_owned()))
}
