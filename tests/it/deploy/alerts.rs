//! Alert rules and the dashboard: names that exist, expressions that Prometheus reads, a section of the runbook for each alert.

use std::collections::BTreeSet;

use super::{block, program, read};
use crate::tools::expect_success;

const RULES: &str = "helm/roomcast/rules/roomcast.yaml";
const DASHBOARD: &str = "helm/roomcast/dashboards/roomcast.json";

/// The metrics of the table in docs/telemetry.md.
fn documented() -> BTreeSet<String> {
    let page = read("docs/telemetry.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split(['`', '{']).next())
        .filter(|name| name.starts_with("roomcast_") || name.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// The metrics that rules and dashboard name, as Prometheus' own parser finds them; a histogram by its name.
fn named() -> BTreeSet<String> {
    let output = expect_success(program("promcheck").args([RULES, DASHBOARD]));
    let names = String::from_utf8(output.stdout).unwrap();
    let names = names.lines().map(|name| {
        let parts = ["_bucket", "_sum", "_count"];
        let whole = parts.iter().find_map(|part| name.strip_suffix(part));
        whole.unwrap_or(name).to_owned()
    });
    names.collect()
}

fn alerts() -> Vec<String> {
    let rules = read(RULES);
    let alerts: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .map(str::to_owned)
        .collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    alerts
}

#[test]
fn rules_and_dashboard_name_every_metric_there_is_and_no_other() {
    let documented = documented();
    assert!(documented.len() > 20, "{documented:?}");
    assert_eq!(named(), documented);
}

#[test]
fn every_alert_has_a_section_of_the_runbook_and_every_section_an_alert() {
    let runbook = read("docs/runbook.md");
    let sections: BTreeSet<_> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## Roomcast"))
        .map(|rest| format!("Roomcast{rest}"))
        .collect();
    assert_eq!(sections, alerts().into_iter().collect());
    let rules = read(RULES);
    for alert in alerts() {
        let rule = block(&rules, &format!("- alert: {alert}")).unwrap();
        let anchor = format!("docs/runbook.md#{}\n", alert.to_lowercase());
        assert!(format!("{rule}\n").contains(&anchor), "{alert}: {rule}");
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(rule.contains(part), "{alert} has no {part}");
        }
    }
}
