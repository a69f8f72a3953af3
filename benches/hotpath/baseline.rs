//! The counts that were committed, and how far those of today are from them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Comes before the compiler's version, in the file's head as in what the compiler says.
const COMPILER: &str = "rustc ";

/// The instructions of one unit of a scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Count {
    /// The scenario.
    pub name: String,
    /// What it took.
    pub instructions: f64,
    /// For what.
    pub unit: String,
    /// By how much it may differ from the baseline.
    pub tolerated_percent: f64,
}

/// The counts of a version that was committed.
#[derive(Debug, Default)]
pub struct Baseline {
    compiler: String,
    /// By scenario: the instructions, and for what.
    counts: BTreeMap<String, (f64, String)>,
}

impl Baseline {
    /// Reads the file; what is not there or not readable has no counts.
    pub fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let compiler = text
            .lines()
            .find_map(|line| line.strip_prefix("# ")?.strip_prefix(COMPILER));
        Self {
            compiler: compiler.unwrap_or_default().to_owned(),
            counts: text.lines().filter_map(count).collect(),
        }
    }

    /// Prints the counts beside the baseline's; answers whether none differs by more than is tolerated.
    pub fn compare(&self, counts: &[Count]) -> bool {
        let (before, now) = (&self.compiler, compiler());
        if !before.is_empty() && *before != now {
            println!("The baseline is of rustc {before}, this is {now}: differences may be the compiler's.");
        }
        println!("{:32} {:>12} {:>12}  change", "instructions per ..", "baseline", "now");
        let mut is_as_before = true;
        for count in counts {
            let (name, unit, now) = (&count.name, &count.unit, count.instructions);
            let Some((before, _)) = self.counts.get(name) else {
                println!("{name:32} {:>12} {now:>12.1}  new, per {unit}", "");
                continue;
            };
            let change_percent = (now / before - 1.0) * 100.0;
            let differs = change_percent.abs() > count.tolerated_percent;
            is_as_before &= !differs;
            let mark = if differs { "  <-- differs" } else { "" };
            println!("{name:32} {before:>12.1} {now:>12.1}  {change_percent:+.1} % per {unit}{mark}");
        }
        is_as_before
    }

    /// The same with these counts in place of the older ones.
    pub fn with(mut self, counts: Vec<Count>) -> Self {
        let counts = counts.into_iter();
        self.counts
            .extend(counts.map(|count| (count.name, (count.instructions, count.unit))));
        self.compiler = compiler();
        self
    }

    /// Writes the file.
    pub fn write(&self, file: &Path) -> std::io::Result<()> {
        let mut text = format!(
            "# Instructions of the hot path, by callgrind. Written by: make bench-instructions SAVE=1\n# {COMPILER}{}\n",
            self.compiler
        );
        for (name, (instructions, unit)) in &self.counts {
            writeln!(text, "{name} {instructions:.1} {unit}").expect("a string takes everything");
        }
        std::fs::write(file, text)
    }
}

fn count(line: &str) -> Option<(String, (f64, String))> {
    let mut words = line.split_whitespace();
    let (name, instructions, unit) = (words.next()?, words.next()?, words.next()?);
    Some((name.to_owned(), (instructions.parse().ok()?, unit.to_owned())))
}

/// The version of the compiler on the path, which is the one that built this.
fn compiler() -> String {
    let version = std::process::Command::new("rustc").arg("--version").output();
    let text = version
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.trim().trim_start_matches(COMPILER).to_owned()
}
