//! The limit of open files of a gateway.

use std::fs;
use std::process::Command;

use super::serving::Serve;

#[test]
fn a_gateway_may_open_as_many_files_as_the_system_allows() {
    let mut limited = Command::new("sh");
    limited.args([
        "-c",
        "ulimit -Sn 200; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_roomcast"),
    ]);
    let serve = Serve::start(limited);
    let limits = fs::read_to_string(format!("/proc/{}/limits", serve.process.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{files}");
    assert_ne!(numbers[0], "200", "{files}");
}
