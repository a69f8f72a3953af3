//! A nats-server for several development nodes, started and ended with them.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::cli::failure::Failure;

/// Its path after `make setup`, from the root of a checkout.
const INSTALLED: &str = ".tools/nats/bin/nats-server";

/// Deadline of its start.
const START_MAX: Duration = Duration::from_secs(15);

/// Shell script that ends the server when the pipe to its stdin closes, however the gateway ended.
const GUARD: &str = r#"exec 3<&0; "$@" 3<&- </dev/null & server=$!; (read -r _ <&3; kill "$server") & wait "$server""#;

/// A running nats-server. Ends with this value, or with the process.
pub(super) struct Broker {
    guard: Child,
    folder: PathBuf,
    url: String,
    pid: Option<u32>,
}

impl Broker {
    /// Starts the named program, else the one that is found.
    pub(super) async fn start(named: Option<&Path>) -> Result<Self, Failure> {
        let program = find(named)?;
        let folder = std::env::temp_dir().join(format!("roomcast-dev-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&folder)
            .map_err(|error| Failure::Undone(format!("cannot make {}: {error}", folder.display())))?;
        let guard = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(&program)
            .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir"])
            .arg(folder.join("store"))
            .arg("--ports_file_dir")
            .arg(&folder)
            .arg("--log")
            .arg(folder.join("log"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own keeps Ctrl-C from it: the gateways still need it for their goodbye.
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::Undone(format!("cannot start {}: {error}", program.display())))?;
        let mut broker = Self {
            guard,
            folder,
            url: String::new(),
            pid: None,
        };
        (broker.url, broker.pid) = broker.until_started(&program).await?;
        Ok(broker)
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the server's process id, for its CPU time and memory.
    pub(super) const fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Waits for the file with its addresses, which the server writes once it listens.
    async fn until_started(&self, program: &Path) -> Result<(String, Option<u32>), Failure> {
        let until = Instant::now() + START_MAX;
        while Instant::now() < until {
            if let Some(found) = self.address() {
                return Ok(found);
            }
            // Another process writes the file, and no portable notification tells of it.
            sleep(Duration::from_millis(20)).await;
        }
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it wrote no log");
        Err(Failure::Undone(format!("{} did not start: {last}", program.display())))
    }

    /// Reads the file, which is named after the program and its process: `nats-server_1234.ports`.
    fn address(&self) -> Option<(String, Option<u32>)> {
        let mut files = std::fs::read_dir(&self.folder).ok()?.flatten().map(|file| file.path());
        let path = files.find(|path| path.extension().is_some_and(|extension| extension == "ports"))?;
        let ports: Value = serde_json::from_str(&std::fs::read_to_string(&path).ok()?).ok()?;
        let pid = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.rsplit_once('_')?.1.parse().ok());
        Some((ports["nats"][0].as_str()?.to_owned(), pid))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // The guard only waits for the server, so this ends soon.
        let _ = self.guard.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn find(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the PATH is where programs are, not a setting of ours"
    )]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("nats-server"));
    on_path
        .chain([PathBuf::from(INSTALLED)])
        .find(|program| program.is_file())
        .ok_or_else(|| {
            Failure::Undone(
                "no nats-server was found, and several nodes need one; in a checkout run: scripts/setup.sh nats, else see \
                 https://docs.nats.io/running-a-nats-service/introduction/installation and name it: --nats-server PROGRAM"
                    .to_owned(),
            )
        })
}
