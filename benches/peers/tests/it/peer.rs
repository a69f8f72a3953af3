//! A peer that runs, and what it says about itself.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

/// Ends with the value, as it ends with the load generator.
pub struct Peer {
    child: Child,
    announced: Value,
}

impl Peer {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the peer starts");
        let out = child.stdout.take().expect("it was piped");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).unwrap();
        let announced = serde_json::from_str(&line).expect("its first line is JSON");
        Self { child, announced }
    }

    /// One of the addresses it announced.
    pub fn says(&self, name: &str) -> &str {
        self.announced[name].as_str().expect("the peer announces it")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Waiting closes standard input first, and that alone must end it.
        let status = self.child.wait().unwrap();
        if !std::thread::panicking() {
            assert!(status.success(), "{status}");
        }
    }
}
