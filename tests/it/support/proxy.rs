//! A TCP proxy on whose both sides a test may do what networks do: cut, freeze one way or both, delay.
//!
//! Stands before anything, usually a `nats-server`. Knows nothing of what it carries, and nothing of Roomcast. Runs on the
//! runtime of the test that made it, and ends with its value.
//!
//! A client of a NATS cluster learns the addresses of the other servers and would go around: start it with
//! `advertise: false`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[path = "proxy/pump.rs"]
mod pump;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From who connected to the proxy.
    ToServer,
    /// To who connected to the proxy.
    ToClient,
}

/// How bytes go one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Passage {
    frozen: bool,
    delay: Duration,
}

/// What the network is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weather {
    to_server: Passage,
    to_client: Passage,
    /// Connections that began before this number are cut.
    age: u64,
    /// New connections are cut as well.
    cut: bool,
}

impl Weather {
    fn passage(&self, way: Way) -> Passage {
        match way {
            Way::ToServer => self.to_server,
            Way::ToClient => self.to_client,
        }
    }

    fn passage_mut(&mut self, way: Way) -> &mut Passage {
        match way {
            Way::ToServer => &mut self.to_server,
            Way::ToClient => &mut self.to_client,
        }
    }
}

/// A proxy before one address. Passes everything on until told otherwise.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    /// Counts the connections by the clones that they hold.
    open: Arc<()>,
    /// Holds the task that accepts, and ends it.
    _accepting: JoinSet<()>,
}

impl Proxy {
    pub async fn before(target: SocketAddr) -> Self {
        Self::at([127, 0, 0, 1].into(), target).await
    }

    /// A proxy that is reached at this address of this machine.
    pub async fn at(ip: IpAddr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (weather, seen) = watch::channel(Weather::default());
        let open = Arc::new(());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, target, seen, Arc::clone(&open)));
        Self {
            address,
            weather,
            open,
            _accepting: accepting,
        }
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as NATS writes it.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// How many connections go through.
    pub fn connections(&self) -> usize {
        // The proxy itself and its accepting task hold one each.
        Arc::strong_count(&self.open) - 2
    }

    /// Ends all connections with a reset, and new ones as soon as they come, until [`Self::mend`].
    pub fn cut(&self) {
        self.weather.send_modify(|weather| {
            weather.cut = true;
            weather.age += 1;
        });
    }

    /// Ends all connections with a reset, once; new ones are welcome.
    pub fn reset(&self) {
        self.weather.send_modify(|weather| weather.age += 1);
    }

    /// Passes nothing on, one way: nobody is told, bytes are still taken until the buffers are full, and connections are
    /// still accepted. What was held goes on with [`Self::mend`].
    pub fn freeze(&self, way: Way) {
        self.weather
            .send_modify(|weather| weather.passage_mut(way).frozen = true);
    }

    /// [`Self::freeze`] both ways: what a network does that is parted.
    pub fn freeze_both(&self) {
        self.weather.send_modify(|weather| {
            weather.to_server.frozen = true;
            weather.to_client.frozen = true;
        });
    }

    /// Passes everything on as much later, one way, from now on. No bytes overtake others.
    pub fn delay(&self, way: Way, delay: Duration) {
        self.weather
            .send_modify(|weather| weather.passage_mut(way).delay = delay);
    }

    /// All is well again.
    pub fn mend(&self) {
        self.weather.send_modify(|weather| {
            *weather = Weather {
                age: weather.age,
                ..Weather::default()
            };
        });
    }
}

/// Accepts, for ever. The connections end with this task.
async fn accept(listener: TcpListener, target: SocketAddr, weather: watch::Receiver<Weather>, open: Arc<()>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        // Nobody waits for them; this lets go of those that ended.
        while connections.try_join_next().is_some() {}
        connections.spawn(connect(client, target, weather.clone(), Arc::clone(&open)));
    }
}

/// One connection, from its beginning to its end.
async fn connect(mut client: TcpStream, target: SocketAddr, mut weather: watch::Receiver<Weather>, open: Arc<()>) {
    let Weather { age, cut, .. } = *weather.borrow();
    let is_cut = move |now: &Weather| now.age != age;
    let mut server = None;
    if !cut && let Ok(stream) = TcpStream::connect(target).await {
        let server = server.insert(stream);
        let seen = weather.clone();
        let ended = tokio::select! {
            ended = pump::carry(&mut client, server, &seen) => ended.is_ok(),
            _ = weather.wait_for(is_cut) => false,
        };
        if ended {
            return;
        }
    }
    // One side failed; the other learns of it as of anything else.
    let clear = move |now: &Weather| is_cut(now) || !(now.to_server.frozen || now.to_client.frozen);
    let _ = weather.wait_for(clear).await;
    for socket in [Some(client), server].into_iter().flatten() {
        // Closed like this it sends a reset.
        let _ = socket.set_zero_linger();
    }
    drop(open);
}
