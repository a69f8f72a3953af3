//! A real gateway in a process of its own, that a test may kill, pause, drain and start again.
//!
//! It has a loopback address and a folder of its own, and ends with the value that owns it, and with the test program,
//! however that ends. Who connects is checked as the tests' usual nodes do it: users of [`super::user`], the backend with
//! the token [`super::ROOT`].

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;
use tokio::time::{Duration, Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::identity::{AUDIENCE, ISSUER};
use super::nats::{Address, Process};
use super::{Client, Encoding, Opening, ROOT, SECRET, User};

/// How long a start may take. It makes streams, and may wait for the election of their leaders.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a program with standard error in a pipe whose other end is open and never read.
const UNREAD: &str = r#"pipe=$(mktemp -u); mkfifo "$pipe"; exec 3<>"$pipe"; rm "$pipe"; exec "$@" 2>&3"#;

/// What a test may choose about a gateway.
#[derive(Clone, Debug, Default)]
pub struct GatewayOptions {
    /// `node.id`.
    pub name: String,
    /// More of the configuration file; the sections `[node]`, `[client]`, `[grpc]`, `[auth]` and `[policy]` are taken.
    pub config: String,
    /// What starts the program, with its arguments: for example a script that enters a network namespace.
    pub through: Vec<String>,
    /// Whether what it logs goes into a pipe that nobody reads.
    pub unread_log: bool,
    /// Where it is reached, if not at a loopback address of its own: it listens on all addresses then.
    pub reached_at: Option<std::net::IpAddr>,
}

/// A running gateway, or one that was.
#[derive(Debug)]
pub struct Gateway {
    // Ends first: it writes into the folder.
    process: Mutex<Process>,
    options: GatewayOptions,
    address: Address,
    folder: TempDir,
    /// To its port for backends; connects when it is used, again and again.
    channel: Channel,
}

impl Gateway {
    /// Starts it and waits until it serves.
    pub async fn start(options: GatewayOptions) -> Self {
        let gateway = Self::launch(options);
        gateway.ready(0).await;
        gateway
    }

    /// Starts the process; it does not serve yet.
    pub fn launch(options: GatewayOptions) -> Self {
        let address = Address::claim();
        let folder = tempfile::Builder::new()
            .prefix("gateway-")
            .tempdir()
            .expect("there is room for a folder");
        fs::write(folder.path().join("roomcast.toml"), file(&options, &address)).expect("the folder is ours");
        let process = start(&options, folder.path());
        let grpc = reached(&options, address.port(1));
        let channel = Endpoint::from_shared(format!("http://{grpc}"))
            .expect("an address is a URL")
            .connect_timeout(Duration::from_secs(2))
            .connect_lazy();
        Self {
            process: Mutex::new(process),
            options,
            address,
            folder,
            channel,
        }
    }

    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Where clients connect. The same after a restart.
    pub fn clients(&self) -> SocketAddr {
        reached(&self.options, self.address.port(0))
    }

    /// A connected client. It fails the test when its connection ends unasked.
    pub async fn connect(&self, user: User) -> Client {
        self.opening().connect(user).await
    }

    /// A WebSocket with particular wishes.
    pub fn opening(&self) -> Opening {
        Opening::new(self.clients(), Encoding::Protobuf, Arc::default())
    }

    /// To the port for backends.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// What it has logged, in all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    /// Whether the process is there; it may be paused.
    pub fn is_running(&self) -> bool {
        self.process().is_running()
    }

    /// Kills it (`SIGKILL`) and waits for its end.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Stops it where it stands (`SIGSTOP`), with its connections open.
    pub async fn pause(&self) {
        self.process().signal("STOP");
        self.until("stopped", || self.process().is_stopped()).await;
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.process().signal("CONT");
    }

    /// Replaces a part of its configuration, which holds from the next start on.
    pub fn configure(&self, from: &str, to: &str) {
        let file = self.folder.path().join("roomcast.toml");
        let text = fs::read_to_string(&file).expect("the folder is ours");
        assert!(text.contains(from), "{from} is not in the configuration:\n{text}");
        fs::write(file, text.replacen(from, to, 1)).expect("the folder is ours");
    }

    /// Waits until it has ended by itself.
    pub async fn until_ended(&self) {
        self.until("ended", || !self.is_running()).await;
    }

    /// Asks it to drain and end (`SIGTERM`), and waits until it did.
    pub async fn stop(&self) {
        self.process().signal("TERM");
        self.until("ended", || !self.is_running()).await;
    }

    /// Starts it again at the same address and waits until it serves. If it still runs it is killed first.
    pub async fn restart(&self) {
        let started = self.relaunch();
        self.ready(started).await;
    }

    /// Starts it again and does not wait; the answer is how often it had started before, for [`Self::ready`].
    pub fn relaunch(&self) -> usize {
        let mut process = self.process();
        process.kill();
        let started = self.started();
        *process = start(&self.options, self.folder.path());
        started
    }

    /// Waits until it has started more often than this.
    pub async fn ready(&self, started: usize) {
        if self.options.unread_log {
            return self.serving().await;
        }
        self.until("started", || {
            assert!(self.is_running(), "{} ended:\n{}", self.name(), self.log());
            self.started() > started
        })
        .await;
    }

    /// Waits until health says that it serves.
    async fn serving(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut health = HealthClient::new(self.channel());
            let answer = health.check(HealthCheckRequest::default()).await;
            if answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving) {
                return;
            }
            assert!(Instant::now() < deadline, "{} does not serve", self.name());
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn started(&self) -> usize {
        self.log().matches("\"gateway started\"").count()
    }

    async fn until(&self, what: &str, is: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is() {
            let waited = Instant::now() >= deadline;
            assert!(!waited, "{} is not {what}:\n{}", self.name(), self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        // Nothing is left half done by what panics under it.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reached(options: &GatewayOptions, address: SocketAddr) -> SocketAddr {
    options
        .reached_at
        .map_or(address, |ip| SocketAddr::new(ip, address.port()))
}

fn start(options: &GatewayOptions, folder: &Path) -> Process {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_roomcast"));
    let config = folder.join("roomcast.toml");
    let mut command: Vec<&OsStr> = options.through.iter().map(OsStr::new).collect();
    if options.unread_log {
        command.extend(["sh", "-c", UNREAD, "sh"].map(OsStr::new));
    }
    command.extend([
        program.as_os_str(),
        "serve".as_ref(),
        "--config".as_ref(),
        config.as_os_str(),
    ]);
    Process::start(folder, &command)
}

fn file(options: &GatewayOptions, address: &Address) -> String {
    let listen = |which| match options.reached_at {
        Some(_) => SocketAddr::from(([0, 0, 0, 0], address.port(which).port())),
        None => address.port(which),
    };
    format!(
        r#"
        [node]
        id = "{name}"
        shards = 1
        drain_window = "1s"

        [client]
        listen = "{clients}"
        connect_rate = {{ per_second = 100000, burst = 100000 }}

        [connections]
        per_address_max = 100000

        [grpc]
        listen = "{grpc}"

        [[grpc.services]]
        name = "tests"
        token = "{ROOT}"
        scopes = ["publish", "read", "manage", "watch", "subscribe"]

        [[auth.issuers]]
        issuer = "{ISSUER}"
        audiences = ["{AUDIENCE}"]
        keys = [{{ algorithm = "HS256", secret = "{SECRET}" }}]
        claims.tenant = "tenant_id"

        [[policy.rules]]
        name = "everything"
        room = "{{room*}}"
        allow = ["join", "publish", "presence", "history", "request"]

        {more}
        "#,
        name = options.name,
        clients = listen(0),
        grpc = listen(1),
        more = options.config,
    )
}
