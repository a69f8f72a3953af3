//! Resource usage of a process, as Linux reports it under `/proc`; nothing elsewhere.

use std::fs;
use std::time::Duration;

/// The clock tick of `/proc/PID/stat`: user space sees 100 per second on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// The resources that a process has used up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// User and system time of its threads.
    pub(super) cpu: Duration,
    /// The memory it holds now, shared libraries included.
    pub(super) resident_bytes: u64,
    /// The part of it that belongs to nobody else.
    pub(super) private_bytes: u64,
    /// The part of it that no file is behind: heap and stacks.
    pub(super) anonymous_bytes: u64,
}

impl Usage {
    pub(super) fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let resident_bytes = kibibytes(&status, "VmRSS:")?;
        let private = kibibytes(&rollup, "Private_Clean:").zip(kibibytes(&rollup, "Private_Dirty:"));
        let anonymous_bytes = kibibytes(&status, "RssAnon:").unwrap_or(resident_bytes);
        Some(Self {
            cpu: cpu(pid)?,
            resident_bytes,
            private_bytes: private.map_or(anonymous_bytes, |(clean, dirty)| clean + dirty),
            anonymous_bytes,
        })
    }

    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            resident_bytes: self.resident_bytes + other.resident_bytes,
            private_bytes: self.private_bytes + other.private_bytes,
            anonymous_bytes: self.anonymous_bytes + other.anonymous_bytes,
        }
    }
}

/// The most files this process may have open.
pub(super) fn files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The time the calling thread has run.
pub(super) fn thread_cpu() -> Option<Duration> {
    exact("/proc/thread-self")
}

/// In nanoseconds where the kernel counts them by thread, else in clock ticks. Threads that ended count in ticks only.
fn cpu(pid: u32) -> Option<Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let times = threads.map(|thread| exact(thread.ok()?.path().to_str()?));
    if let Some(sum) = times.sum() {
        return Some(sum);
    }
    ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads the CPU time in nanoseconds; the kernel's build decides which of the two files exists.
fn exact(thread: &str) -> Option<Duration> {
    match fs::read_to_string(format!("{thread}/schedstat")) {
        Ok(schedstat) => {
            let nanos = schedstat.split_whitespace().next()?.parse().ok()?;
            Some(Duration::from_nanos(nanos))
        }
        Err(_) => run_time(&fs::read_to_string(format!("{thread}/sched")).ok()?),
    }
}

/// Milliseconds with six decimals.
fn run_time(sched: &str) -> Option<Duration> {
    let line = sched.lines().find(|line| line.starts_with("se.sum_exec_runtime"))?;
    let (_, value) = line.split_once(':')?;
    let (millis, nanos) = value.trim().split_once('.')?;
    let nanos = Duration::from_nanos(nanos.parse().ok()?);
    Some(Duration::from_millis(millis.parse().ok()?) + nanos)
}

/// The 14th and 15th field; the second is a name that may hold spaces and brackets.
fn ticks(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(TICK * ticks()?.checked_add(ticks()?)?)
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_an_odd_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 3 0 100 0 0";
        assert_eq!(ticks(stat), Some(Duration::from_secs(2)));
        let status = "Name:\ta\nVmRSS:\t    12 kB\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(12 * 1024));
        let sched = "a (7, #threads: 1)\n---\nse.exec_start   :   13.5\nse.sum_exec_runtime    :    2.000510\n";
        assert_eq!(run_time(sched), Some(Duration::from_nanos(2_000_510)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_holds_memory() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(
            usage.resident_bytes >= usage.private_bytes && usage.private_bytes > 0,
            "{usage:?}"
        );
        assert!(files_max().unwrap() > 0);
    }
}
