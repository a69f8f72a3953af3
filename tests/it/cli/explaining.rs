//! `explain` shows what was compared, so that a mistake is seen where it was made.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{roomcast, success};
use crate::tools::root;

/// The answer, and its text.
fn explain(folder: &Path, when: &str, claims: &str) -> (bool, String) {
    let path = folder.join("roomcast.toml");
    let rule = "[[policy.rules]]\nname = 'members'\nroom = 'project:{project}'\nallow = ['join']\n";
    std::fs::write(&path, format!("{rule}when = \"{when}\"\n")).unwrap();
    let path = path.to_str().unwrap();
    let output = roomcast(&["explain", "--config", path, "--claims", claims, "join", "project:7"]);
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_false_condition_is_shown_with_the_values_and_types_that_were_compared() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (
            "room.project in claims.projects",
            r#"{"sub":"ada","projects":["8","9"]}"#,
            r#"`room.project in claims.projects` is not true: `room.project` is "7", a string and `claims.projects` is ["8","9"], a list of string"#,
        ),
        (
            "has(claims.projects) && room.project in claims.projects",
            r#"{"sub":"ada"}"#,
            "`has(claims.projects)` is not true",
        ),
        (
            "claims.role == 'admin' || claims.level > 3",
            r#"{"sub":"ada","role":"user","level":2}"#,
            r#"`claims.role == "admin"` is not true: `claims.role` is "user", a string and "admin" is a string; `claims.level > 3` is not true: `claims.level` is 2, an int and 3 is an int"#,
        ),
        (
            "room.name.startsWith('team:')",
            r#"{"sub":"ada"}"#,
            r#"`room.name.startsWith("team:")` is not true: `room.name` is "project:7", a string"#,
        ),
        (
            "claims.roles.exists(role, role == 'admin')",
            r#"{"sub":"ada","roles":["user"]}"#,
            r#"`claims.roles` is ["user"], a list of string"#,
        ),
        (
            "claims.admin",
            r#"{"sub":"ada","admin":false}"#,
            "`claims.admin` is not true",
        ),
    ];
    for (when, claims, expected) in cases {
        let (allowed, said) = explain(folder.path(), when, claims);
        assert!(!allowed && said.contains(expected), "{when}: {said}");
    }
}

#[test]
fn a_number_compared_with_a_text_of_its_digits_gets_a_hint_that_helps() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (
            "room.project in claims.projects",
            r#"{"sub":"ada","projects":[7]}"#,
            ("room.project", "int(room.project)"),
        ),
        (
            "room.project == claims.project",
            r#"{"sub":"ada","project":7}"#,
            ("room.project", "int(room.project)"),
        ),
        (
            "claims.project == room.project",
            r#"{"sub":"ada","project":7}"#,
            ("claims.project", "string(claims.project)"),
        ),
        (
            "claims.level in ['1', '2']",
            r#"{"sub":"ada","level":2}"#,
            ("claims.level", "string(claims.level)"),
        ),
    ];
    for (when, claims, (operand, converted)) in cases {
        let (allowed, said) = explain(folder.path(), when, claims);
        let hint = format!("which are never equal: have the token say it as the other does, or write `{converted}`");
        assert!(!allowed && said.contains(&hint), "{when}: {said}");
        let (allowed, said) = explain(folder.path(), &when.replacen(operand, converted, 1), claims);
        assert!(allowed, "the hint does not help: {when}: {said}");
    }
}

#[test]
fn the_example_of_the_help_is_allowed_by_the_example_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let example = root().join("docs/roomcast.example.toml");
    std::fs::copy(example, folder.path().join("roomcast.toml")).unwrap();
    let help = success(&["explain", "--help"]);
    let example = help.lines().find_map(|line| line.strip_prefix("  roomcast explain"));
    let (program, example) = (env!("CARGO_BIN_EXE_roomcast"), example.unwrap());
    let output = Command::new("sh")
        .args([
            "-c",
            &format!("{program} explain {example} && {program} explain --json {example}"),
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("allowed by project-members: "), "{said}");
    let json: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(json["decision"], "allowed");
}
