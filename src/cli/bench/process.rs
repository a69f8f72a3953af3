//! What a process has used, as Linux tells it under `/proc`; nothing elsewhere.

use std::fs;
use std::time::Duration;

/// The clock tick of `/proc/PID/stat`: user space sees 100 per second on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// What a process has used up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// User and system time of all threads, in steps of 10 ms.
    pub(super) cpu: Duration,
    /// The memory it holds now.
    pub(super) resident_bytes: u64,
}

impl Usage {
    pub(super) fn of(pid: u32) -> Option<Self> {
        let read = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        Some(Self {
            cpu: cpu(&read("stat")?)?,
            resident_bytes: resident_bytes(&read("status")?)?,
        })
    }
}

/// The most files this process may have open.
pub(super) fn files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The 14th and 15th field; the second is a name that may hold spaces and brackets.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(TICK * ticks()?.checked_add(ticks()?)?)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_an_odd_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 3 0 100 0 0";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(resident_bytes("Name:\ta\nVmRSS:\t    12 kB\n"), Some(12 * 1024));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_holds_memory() {
        assert!(Usage::of(std::process::id()).unwrap().resident_bytes > 0);
        assert!(files_max().unwrap() > 0);
    }
}
