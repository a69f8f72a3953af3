//! The short run of the fuzz targets: seeds of `fuzz/corpus`, mutated by numbers that are the same each time.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Mutations of a run. It takes a second or two without optimizations.
const RUNS: u32 = 20_000;
/// The longest input.
const BYTES_MAX: usize = 6_000;

/// Pieces that mean something to one of the parsers.
const TOKENS: [&[u8]; 24] = [
    b"\x1e",
    b"\n",
    b"b",
    b"4",
    b"40",
    b"41/custom",
    b"/,",
    b"/custom,",
    b"451-",
    b"4510-",
    b"-",
    b"4294967293",
    b"99999999999999999999",
    b"[\"roomcast:join\",{\"room\":\"r\"}]",
    b"{\"_placeholder\":true,\"num\":0}",
    b"[",
    b"]",
    b"{\"a\":",
    b"\\ud83d",
    "\u{e9}\u{2028}\u{1F600}".as_bytes(),
    b"\xff\xfe",
    b"AQEAAAAAAAAAAA",
    b"%C3%A9",
    b"&room=",
];

/// A generator of numbers (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).expect("53 bits") % end.max(1)
    }
}

/// Gives a target its seeds, then mutations of them.
///
/// # Panics
/// With the input under which the target does.
pub fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    for seed in &seeds {
        check(target, seed);
    }
    for _ in 0..RUNS {
        let mut input = seeds[numbers.below(seeds.len())].clone();
        for _ in 0..=numbers.below(5) {
            mutate(&mut input, &seeds, &mut numbers);
        }
        check(target, &input);
    }
}

fn check(target: fn(&[u8]), input: &[u8]) {
    if let Err(broken) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let shown: String = input.escape_ascii().to_string();
        eprintln!("the input: b\"{shown}\"");
        std::panic::resume_unwind(broken);
    }
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], numbers: &mut Numbers) {
    let at = numbers.below(input.len() + 1);
    let to = (at + numbers.below(40)).min(input.len());
    match numbers.below(6) {
        0 if at < input.len() => input[at] ^= 1 << numbers.below(8),
        1 => drop(input.drain(at..to)),
        2 => {
            let again = input[at..to].to_vec();
            input.splice(at..at, again);
        }
        3 => {
            let other = &seeds[numbers.below(seeds.len())];
            let from = numbers.below(other.len() + 1);
            input.splice(at..to, other[from..].iter().copied());
        }
        4 => input.insert(at, u8::try_from(numbers.below(256)).expect("below 256")),
        _ => {
            let token = TOKENS[numbers.below(TOKENS.len())];
            input.splice(at..at, token.iter().copied());
        }
    }
    input.truncate(BYTES_MAX);
}
