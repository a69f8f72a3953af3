//! One server.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::address::Address;
use super::monitor;
use super::options::NatsOptions;
use super::process::Process;

/// How long a fact may take. Elections take up to nine seconds, on a machine with nothing else to do.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A `nats-server` with an address and a store of its own. Killed and removed when dropped.
#[derive(Debug)]
pub struct NatsServer {
    // Ends first: it writes into the folder.
    process: Mutex<Process>,
    name: String,
    address: Address,
    options: Box<NatsOptions>,
    folder: TempDir,
}

impl NatsServer {
    /// The newest release, alone, with nothing special.
    pub async fn start() -> Self {
        Self::start_with(NatsOptions::default()).await
    }

    /// One server alone. Takes connections, and has its streams ready, when this returns.
    pub async fn start_with(options: NatsOptions) -> Self {
        let server = Self::launch("alone".to_owned(), Address::claim(), options, &[]);
        server.ready().await;
        server
    }

    /// Starts the process; it is not yet ready.
    pub(super) fn launch(name: String, address: Address, options: NatsOptions, peers: &[SocketAddr]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("nats-")
            .tempdir()
            .expect("there is room for a store");
        let file = options.file(&name, &address, &folder.path().join("store"), peers);
        fs::write(folder.path().join("server.conf"), file).expect("the folder is ours");
        let process = start(&options, folder.path());
        Self {
            process: Mutex::new(process),
            name,
            address,
            options: Box::new(options),
            folder,
        }
    }

    /// Waits until it serves: clients, and its streams.
    pub async fn ready(&self) {
        self.eventually("ready", || async { self.monitor("/healthz").await.map(drop) })
            .await;
    }

    /// The folder of its streams. To be touched only while it does not run.
    #[allow(dead_code, reason = "used by the tests inside the crate")]
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// For clients: `nats://127.a.b.c:port`. The same after a restart.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// For clients, and for proxies before it.
    pub fn address(&self) -> SocketAddr {
        self.address.clients()
    }

    /// As the server calls itself in what it says about clusters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the process is there; it may be paused.
    pub fn is_running(&self) -> bool {
        self.process().is_running()
    }

    /// Whether it is stopped where it stands.
    pub fn is_paused(&self) -> bool {
        self.process().is_stopped()
    }

    /// What it wrote: the log since the beginning, and what it said before it had one.
    pub fn log(&self) -> String {
        let read = |file| fs::read_to_string(self.folder.path().join(file)).unwrap_or_default();
        read("server.log") + &read("output")
    }

    /// What the monitoring port says to `path`, for example `/varz` or `/jsz?streams=true`; `None` if nothing good.
    pub async fn monitor(&self, path: &str) -> Option<Value> {
        monitor::get(self.address.monitor(), path).await
    }

    /// Puts this in place of [`NatsOptions::config`] while it runs (`SIGHUP`), and returns at once. For a server alone.
    #[allow(dead_code, reason = "the tests inside the crate do without")]
    pub fn reload(&self, config: &str) {
        let options = NatsOptions {
            config: config.to_owned(),
            ..(*self.options).clone()
        };
        let folder = self.folder.path();
        let file = options.file(&self.name, &self.address, &folder.join("store"), &[]);
        fs::write(folder.join("server.conf"), file).expect("the folder is ours");
        self.process().signal("HUP");
    }

    /// Kills it (`SIGKILL`) and waits for its end.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Asks it to end (`SIGTERM`), and waits until it did.
    pub async fn stop(&self) {
        self.process().signal("TERM");
        self.ended().await;
    }

    /// Asks it to hand over its leaderships and its clients, and then to end: `lame_duck_mode`. Returns at once; clients are
    /// told, and closed from a second later on, one each second. [`Self::ended`] waits for the end.
    pub fn lame_duck(&self) {
        self.process().signal("USR2");
    }

    /// Waits for the end of the process.
    pub async fn ended(&self) {
        until(
            || format!("end of {}\n{}", self.name, self.log()),
            || async { (!self.is_running()).then_some(()) },
        )
        .await;
    }

    /// Stops it where it stands (`SIGSTOP`), with its connections open: what a host does that hangs.
    pub async fn pause(&self) {
        self.process().signal("STOP");
        self.eventually("stopped", || async { self.is_paused().then_some(()) })
            .await;
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.process().signal("CONT");
    }

    /// Starts it again, on the same address and store, and waits until it serves. If it still runs it is killed first.
    pub async fn restart(&self) {
        self.relaunch();
        self.ready().await;
    }

    /// Starts it again and does not wait: a server alone of its cluster cannot be ready.
    pub fn relaunch(&self) {
        let mut process = self.process();
        process.kill();
        *process = start(&self.options, self.folder.path());
    }

    /// Asks until there is an answer. Fails, with the log, if the server ended.
    async fn eventually<F>(&self, what: &str, mut ask: impl FnMut() -> F)
    where
        F: Future<Output = Option<()>>,
    {
        until(
            || format!("{} to be {what}\n{}", self.name, self.log()),
            || {
                assert!(self.is_running(), "{} ended:\n{}", self.name, self.log());
                ask()
            },
        )
        .await;
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        // Nothing is left half done by what panics under it.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process with its files in `folder`.
fn start(options: &NatsOptions, folder: &Path) -> Process {
    let (config, log) = (folder.join("server.conf"), folder.join("server.log"));
    let program = options.release.program();
    let mut command: Vec<&OsStr> = options.through.iter().map(OsStr::new).collect();
    command.extend([
        program.as_os_str(),
        "--config".as_ref(),
        config.as_os_str(),
        "--log".as_ref(),
        log.as_os_str(),
    ]);
    Process::start(folder, &command)
}

/// Asks until there is an answer; fails with what `what` says after [`PATIENCE`].
pub(super) async fn until<T, F>(what: impl Fn() -> String, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "waited {} s for {}",
            PATIENCE.as_secs(),
            what()
        );
        sleep(Duration::from_millis(5)).await;
    }
}
