//! A network namespace for a gateway, between which and the rest packets may be lost. Its clients come another way.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;

use crate::tools;

/// How many networks are tried. Others on this machine may have some.
const TRIES: usize = 50;

/// A namespace; removed with its value.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// The way that packets may be lost on.
    net: u8,
    /// The way that clients come.
    also: u8,
}

impl Namespace {
    /// Whether this machine allows namespaces; why not.
    pub fn is_allowed() -> Result<(), String> {
        script(&["available"])
    }

    pub fn make() -> Self {
        let name = format!("rc{}", std::process::id() % 1_000_000);
        let net = |command: &str| {
            let nets = std::iter::repeat_with(|| rand::random_range(1..250));
            let mut tried = nets.take(TRIES);
            tried
                .find(|net: &u8| script(&[command, &name, &net.to_string()]).is_ok())
                .expect("a network is free")
        };
        let (net, also) = (net("up"), net("also"));
        Self { name, net, also }
    }

    /// Where what is outside is reached from inside.
    pub fn outside(&self) -> IpAddr {
        Ipv4Addr::new(10, 99, self.net, 1).into()
    }

    /// Where what is inside is reached by clients.
    pub fn inside(&self) -> IpAddr {
        Ipv4Addr::new(10, 99, self.also, 2).into()
    }

    /// What runs a program inside.
    pub fn through(&self) -> Vec<String> {
        let path = path().display().to_string();
        [path.as_str(), "exec", &self.name].map(str::to_owned).into()
    }

    /// Loses every packet `in`, `out` or `both` ways.
    pub fn lose(&self, way: &str) {
        script(&["drop", &self.name, way]).expect("packets are lost");
    }

    pub fn mend(&self) {
        script(&["mend", &self.name]).expect("no packets are lost");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(why) = script(&["down", &self.name]) {
            eprintln!("{} is left behind: {why}", self.name);
        }
    }
}

fn path() -> PathBuf {
    tools::root().join("tests/tools/partition.sh")
}

fn script(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(path())
        .args(arguments)
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or(said)
}
