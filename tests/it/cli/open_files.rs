//! The limit of open files of a gateway.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::GOOD;

#[test]
fn a_gateway_may_open_as_many_files_as_the_system_allows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roomcast.toml");
    fs::write(&path, GOOD).unwrap();
    let mut process = Command::new("sh")
        .args([
            "-c",
            "ulimit -Sn 200; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_roomcast"),
            "serve",
        ])
        .args([
            "--set",
            "client.listen=127.0.0.1:0",
            "--set",
            "grpc.listen=127.0.0.1:0",
            "--config",
        ])
        .arg(&path)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(log.any(|line| line.contains("gateway started")));
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{files}");
    assert_ne!(numbers[0], "200", "{files}");
}
