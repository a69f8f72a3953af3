//! A wall clock that a test moves while a gateway runs: `tests/tools/clock.c`, loaded before the program.
//!
//! Not Debian's `libfaketime`: that one takes over sleeping and waiting, too, and what it leaves alone depends on its
//! release and half a dozen variables. What is asked here is what a wrong wall clock alone does, as when a machine starts
//! without the time, or its time is set. Ours moves the three functions that tell the wall clock, in sixty lines, at the price
//! of an addition. It is built by the compiler that links Rust programs, so it is there wherever these tests are.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::tools;

/// The wall clock of one gateway, and of whoever it becomes when it is started again.
#[derive(Debug)]
pub struct Clock(NamedTempFile);

impl Clock {
    /// One that is right.
    pub fn new() -> Self {
        let mut file = NamedTempFile::with_prefix("clock-").expect("there is room for a clock");
        file.write_all(&0_i64.to_ne_bytes()).expect("the file is ours");
        Self(file)
    }

    /// What runs a program with this clock.
    pub fn through(&self) -> Vec<String> {
        let set = |name: &str, path: &Path| format!("{name}={}", path.display());
        vec![
            "env".to_owned(),
            set("LD_PRELOAD", library()),
            set("CLOCK_FILE", self.0.path()),
        ]
    }

    /// Sets it to be this much ahead of the true time.
    pub fn ahead(&self, by: Duration) {
        self.set(millis(by));
    }

    /// Sets it to be this much behind the true time.
    pub fn behind(&self, by: Duration) {
        self.set(-millis(by));
    }

    /// Sets it right.
    pub fn mend(&self) {
        self.set(0);
    }

    fn set(&self, ahead_ms: i64) {
        let written = self.0.as_file().write_all_at(&ahead_ms.to_ne_bytes(), 0);
        written.expect("the file is ours");
    }
}

fn millis(time: Duration) -> i64 {
    time.as_millis().try_into().expect("some hours")
}

/// What is loaded before the program; built once.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clock.so");
        // Put in place whole: another test program may do the same.
        let built = NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("there is room for a library");
        let source = tools::root().join("tests/tools/clock.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]);
        tools::expect_success(cc.arg(built.path()).arg(source).arg("-ldl"));
        built.persist(&path).expect("a file is moved");
        path
    })
}

/// The wall clock of a program that is not ours, and its monotonic one, in seconds.
fn both_clocks(clock: &Clock) -> (f64, f64) {
    let through = clock.through();
    let mut python = Command::new(&through[0]);
    python.args(&through[1..]);
    python.args(["python3", "-c", "import time; print(time.time(), time.monotonic())"]);
    let output = tools::expect_success(&mut python).stdout;
    let said = String::from_utf8(output).expect("two numbers");
    let (wall, monotonic) = said.trim().split_once(' ').expect("two numbers");
    (wall.parse().expect("a number"), monotonic.parse().expect("a number"))
}

/// The two are told by different clocks, so it is said how far each may be off: by the start of a Python or two.
#[test]
fn the_wall_clock_alone_is_moved() {
    let clock = Clock::new();
    let (wall, monotonic) = both_clocks(&clock);
    let check = |ahead: f64| {
        let (moved, passed) = both_clocks(&clock);
        let passed = passed - monotonic;
        assert!((0.0..60.0).contains(&passed), "{passed} s have passed");
        let off = moved - wall - passed - ahead;
        assert!(off.abs() < 0.5, "{ahead} s ahead, and off by {off} s");
    };
    clock.ahead(Duration::from_millis(3_600_250));
    check(3_600.25);
    clock.behind(Duration::from_millis(90_750));
    check(-90.75);
    clock.mend();
    check(0.0);
}
