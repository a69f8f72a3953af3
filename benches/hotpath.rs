//! The instructions of the hot path, counted by callgrind: the same number for the same binary on a busy machine and on an
//! idle one, so that two versions of the code can be compared.
//!
//! ```sh
//! make bench-instructions                 # counts, and prints the difference to benches/instructions.txt
//! make bench-instructions SAVE=1          # the same, and writes that file
//! cargo bench --bench hotpath -- fan-out  # only the scenarios whose name contains this
//! ```
//!
//! What is not in a number: the kernel's side of a system call, and waiting for memory. Reading the clock is a system call
//! under valgrind, so it is almost free here and is not in production. Each scenario leaves its profile in
//! `target/tmp/callgrind.NAME`, for `callgrind_annotate`.

#[path = "hotpath/baseline.rs"]
mod baseline;
#[path = "hotpath/scenarios.rs"]
mod scenarios;
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use baseline::{Baseline, Count};
use scenarios::{SCENARIOS, Scenario};

/// The argument by which this program, started under valgrind, is told to run one scenario.
const RUN: &str = "--run-under-valgrind=";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|text| text != "--bench").collect();
    if let Some(name) = arguments.iter().find_map(|text| text.strip_prefix(RUN)) {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
        (scenario.expect("it is one of ours").run)(counted);
        return ExitCode::SUCCESS;
    }
    let save = arguments.iter().any(|text| text == "--save");
    let wanted = |scenario: &&Scenario| {
        let mut names = arguments.iter().filter(|text| !text.starts_with("--")).peekable();
        names.peek().is_none() || names.any(|part| scenario.name.contains(part.as_str()))
    };
    let mut counts = Vec::new();
    for scenario in SCENARIOS.iter().filter(wanted) {
        match count(scenario) {
            Ok(instructions) => counts.push(Count {
                name: scenario.name.to_owned(),
                instructions: instructions / f64::from(scenario.units),
                unit: scenario.unit.to_owned(),
                tolerated_percent: scenario.tolerated_percent,
            }),
            Err(problem) => {
                eprintln!("{}: {problem}", scenario.name);
                return ExitCode::FAILURE;
            }
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt");
    let baseline = Baseline::read(&file);
    let is_as_before = baseline.compare(&counts);
    if save {
        baseline.with(counts).write(&file).expect("the baseline can be written");
        return ExitCode::SUCCESS;
    }
    if is_as_before {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    }
}

/// What runs in here is counted, and nothing else: valgrind is told the function's name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    // The call above must not be the last thing done here, or it becomes a jump and the count never ends.
    std::hint::black_box(());
}

/// Runs a scenario under callgrind; answers the instructions of the part that counts.
fn count(scenario: &Scenario) -> Result<f64, String> {
    let profile = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{}", scenario.name));
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let valgrind = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--toggle-collect=hotpath::counted*"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .arg(format!("{RUN}{}", scenario.name))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind does not start ({error}); install the package `valgrind`"))?;
    if !valgrind.status.success() {
        return Err(String::from_utf8_lossy(&valgrind.stderr).into_owned());
    }
    let profile = std::fs::read_to_string(&profile).map_err(|error| error.to_string())?;
    let totals = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    match totals.and_then(|total| total.trim().parse::<u32>().ok()) {
        Some(0) | None => Err("nothing was counted: is the function `counted` still called that?".to_owned()),
        Some(total) => Ok(f64::from(total)),
    }
}
