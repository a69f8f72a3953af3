//! The chart renders for each value set, to objects that Kubernetes takes and a configuration that the gateway takes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use super::{CHART, block, program, sets, template};
use crate::tools::{expect_success, installed, root};

/// The objects of each value set: Helm takes half a second for one.
static RENDERED: LazyLock<BTreeMap<PathBuf, String>> = LazyLock::new(|| {
    let render = |set: PathBuf| {
        let output = expect_success(template().arg("--values").arg(&set));
        (set, String::from_utf8(output.stdout).unwrap())
    };
    sets().into_iter().map(render).collect()
});

fn rendered(set: &Path) -> &'static str {
    &RENDERED[set]
}

#[test]
fn the_chart_is_linted_with_each_value_set() {
    for set in sets() {
        expect_success(
            program("helm")
                .args(["lint", "--strict", "--quiet", CHART, "--values"])
                .arg(set),
        );
    }
}

#[test]
fn objects_of_each_value_set_are_what_kubernetes_takes() {
    let schemas = installed(".tools/deploy/schemas");
    let folder = tempfile::tempdir().unwrap();
    for set in sets() {
        fs::write(folder.path().join(set.file_name().unwrap()), rendered(&set)).unwrap();
    }
    // The oldest release that the chart supports, and a recent one.
    for release in ["1.30", "1.37"] {
        let mut command = program("kubeconform");
        command.args(["-strict", "-summary"]);
        for place in [release, "custom"] {
            let place = schemas.join(place).join("{{ .ResourceKind }}{{ .KindSuffix }}.json");
            command.arg("-schema-location").arg(place);
        }
        let output = expect_success(command.arg(folder.path()));
        let summary = String::from_utf8(output.stdout).unwrap();
        assert!(
            summary.contains("Invalid: 0, Errors: 0, Skipped: 0"),
            "{release}: {summary}"
        );
    }
}

#[test]
fn configuration_of_each_value_set_passes_roomcast_check() {
    for set in sets() {
        let objects = rendered(&set);
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().to_str().unwrap();
        let config = block(objects, "roomcast.toml: |").unwrap();
        let config = config.replace("/etc/roomcast", below);
        mount_secrets(&config, below);
        let file = folder.path().join("roomcast.toml");
        fs::write(&file, &config).unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_roomcast"));
        let output = check.arg("check").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}\n{config}", set.display());
        assert!(!said.contains("warning:"), "{}: {said}", set.display());
    }
}

/// Puts a secret at each place that the configuration names, as Kubernetes mounts them.
fn mount_secrets(config: &str, below: &str) {
    let key = rcgen::generate_simple_self_signed(["gateway".to_owned()]).unwrap();
    for place in config.split('"').filter(|text| text.starts_with(below)) {
        let place = Path::new(place);
        let content = match place.extension().and_then(OsStr::to_str) {
            Some("crt") => key.cert.pem(),
            Some("key") => key.signing_key.serialize_pem(),
            _ => "a secret of more than 32 bytes, for tests\n".to_owned(),
        };
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
    }
}

#[test]
fn every_file_that_the_configuration_names_is_mounted() {
    for set in sets() {
        let objects = rendered(&set);
        let config = block(objects, "roomcast.toml: |").unwrap();
        for place in config.split('"').filter(|text| text.starts_with("/etc/roomcast/")) {
            let mounted = if let Some(path) = place.strip_prefix("/etc/roomcast/secrets/") {
                objects.contains(&format!("path: {path}\n"))
            } else {
                let folder = Path::new(place).parent().unwrap().display();
                objects.contains(&format!("mountPath: {folder}\n"))
            };
            assert!(mounted, "{}: {place}", set.display());
        }
    }
}

#[test]
fn a_pod_outlives_its_pause_and_its_drain_window() {
    for set in sets() {
        let objects = rendered(&set);
        let number = |text: &str, key: &str| -> u64 {
            let (_, rest) = text
                .split_once(key)
                .unwrap_or_else(|| panic!("{key} in {}", set.display()));
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap()
        };
        let pod = objects
            .split("---\n")
            .find(|object| object.contains("kind: Deployment\n"))
            .unwrap();
        let pause = if pod.contains("preStop:") {
            number(pod, "                seconds: ")
        } else {
            0
        };
        let window = number(objects, "drain_window = \"");
        let grace = number(pod, "terminationGracePeriodSeconds: ");
        assert!(
            grace >= pause + window + 30,
            "{}: {grace} s for {pause} s and {window} s",
            set.display()
        );
    }
}

#[test]
fn configuration_of_bundled_nats_is_what_nats_takes() {
    let set = root().join(CHART).join("ci/bundled-nats-values.yaml");
    let objects = rendered(&set);
    let config = block(objects, "nats.conf: |").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nats.conf");
    fs::write(&file, config).unwrap();
    let mut server = Command::new(installed(".tools/nats/bin/nats-server"));
    // Digits at the beginning: without the quotes that the pod adds, NATS would read a number.
    server
        .env("POD_NAME", "rel-roomcast-nats-0")
        .env("NATS_TOKEN", "\"7f31\"");
    expect_success(server.arg("-c").arg(&file).arg("-t").stdin(Stdio::null()));
}

#[test]
fn liveness_never_asks_for_more_than_the_process() {
    for set in sets() {
        let objects = rendered(&set);
        let pod = objects
            .split("---\n")
            .find(|object| object.contains("kind: Deployment\n"))
            .unwrap();
        for probe in ["startupProbe:", "livenessProbe:"] {
            let probe = block(pod, probe).unwrap();
            assert!(
                probe.contains("path: /livez\n") && probe.contains("port: admin\n"),
                "{probe}"
            );
        }
        assert!(block(pod, "readinessProbe:").unwrap().contains("path: /readyz\n"));
    }
}
