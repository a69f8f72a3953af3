//! The process as Linux sees it (proc(5)). Elsewhere these metrics are absent.

use std::fs;

use opentelemetry::metrics::Meter;

use super::gauge;

/// Clock ticks of `/proc` in a second: a constant of the kernel's interface to programs (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A gauge of the process: its name, its meaning, its unit, and its reading.
type ProcessGauge = (&'static str, &'static str, &'static str, fn() -> Option<u64>);

const GAUGES: [ProcessGauge; 3] = [
    (
        "process.resident_memory",
        "Memory of the process that is in RAM.",
        "By",
        resident_bytes,
    ),
    (
        "process.open_fds",
        "Files and sockets that the process has open.",
        "",
        open_files,
    ),
    (
        "process.max_fds",
        "Files and sockets that the process may have open.",
        "",
        files_max,
    ),
];

/// Registers what the process uses, under the names that Prometheus' client libraries give it.
pub(super) fn register(meter: &Meter) {
    for (name, about, unit, read) in GAUGES {
        gauge(meter, (name, about, unit), move |observer| {
            if let Some(value) = read() {
                observer.observe(value, &[]);
            }
        });
    }
    meter
        .f64_observable_counter("process.cpu")
        .with_description("CPU time that the process has used, in user and system mode.")
        .with_unit("s")
        .with_callback(|observer| {
            if let Some(seconds) = cpu_seconds() {
                observer.observe(seconds, &[]);
            }
        })
        .build();
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may hold spaces and brackets; the state is the first field behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

fn open_files() -> Option<u64> {
    fs::read_dir("/proc/self/fd").ok()?.count().try_into().ok()
}

fn files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_is_read_from_proc() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(cpu_seconds().unwrap() >= 0.0);
        let open = open_files().unwrap();
        assert!((3..=files_max().unwrap()).contains(&open), "{open}");
    }
}
