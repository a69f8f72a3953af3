//! Files for containers and hosts, read by the programs that they are for, as far as those run without an engine.

use std::fs;
use std::process::{Command, Stdio};

use super::{program, read};
use crate::tools::{expect_success, installed, python, root};

#[test]
fn the_dockerfile_is_linted() {
    let mut hadolint = Command::new(installed(".tools/deploy/venv/bin/hadolint"));
    expect_success(
        hadolint
            .current_dir(root())
            .args(["--failure-threshold", "style", "Dockerfile"]),
    );
}

#[test]
fn the_compose_file_is_what_compose_takes() {
    let folder = root().join("deploy/compose");
    let output =
        expect_success(
            program("compose-check")
                .current_dir(&folder)
                .args(["-format", "json", "compose.yaml"]),
        );
    let project: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let services = project["services"].as_object().unwrap();
    assert_eq!(services.keys().filter(|name| name.starts_with("roomcast-")).count(), 3);
    for (name, service) in services {
        // The one that runs as root ends at once, and has no network.
        if name == "nats-volumes" {
            assert_eq!(service["network_mode"], "none");
            continue;
        }
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume["source"].as_str().unwrap();
            assert!(
                volume["type"] == "volume" || fs::exists(source).unwrap(),
                "{name}: {source}"
            );
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name}");
        }
    }
}

#[test]
fn configuration_of_the_compose_file_passes_roomcast_check() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["app-token", "user-secret"] {
        fs::write(folder.path().join(name), "a secret of more than 32 bytes, for tests\n").unwrap();
    }
    let config = read("deploy/compose/roomcast.toml").replace("/run/secrets", folder.path().to_str().unwrap());
    let file = folder.path().join("roomcast.toml");
    fs::write(&file, config).unwrap();
    expect_success(Command::new(env!("CARGO_BIN_EXE_roomcast")).arg("check").arg(&file));

    let mut server = Command::new(installed(".tools/nats/bin/nats-server"));
    let config = root().join("deploy/compose/nats.conf");
    expect_success(
        server
            .env("SERVER", "nats-0")
            .arg("-c")
            .arg(config)
            .arg("-t")
            .stdin(Stdio::null()),
    );
}

#[test]
fn the_unit_is_what_systemd_takes_and_is_closed_off() {
    let unit = read("deploy/systemd/roomcast.service");
    // The program at its place in the unit is not that of this build.
    let unit = unit.replace("/usr/bin/roomcast", env!("CARGO_BIN_EXE_roomcast"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("roomcast.service");
    fs::write(&file, unit).unwrap();
    let output = expect_success(analyze().args(["verify", "--man=no"]).arg(&file));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("roomcast.service"), "{said}");
    // From 0, closed off, to 100; a unit without any of it has 96.
    expect_success(
        analyze()
            .args(["security", "--offline=yes", "--threshold=15", "--no-pager"])
            .arg(&file),
    );
}

fn analyze() -> Command {
    let mut command = Command::new("systemd-analyze");
    command.stdin(Stdio::null());
    command
}

#[test]
fn a_rolling_update_under_load_loses_nothing() {
    let mut replay = python("tests/deploy/termination.py");
    replay
        .arg(env!("CARGO_BIN_EXE_roomcast"))
        .arg(installed(".tools/nats/bin/nats-server"))
        .arg("deploy/compose/roomcast.toml");
    expect_success(&mut replay);
}
