//! Connections that say nothing, and listeners that are full.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tonic::transport::Endpoint;

use super::limits::frame;
use super::support::{Api, Caller, ROOT, Setup, event};
use crate::api::Config;
use crate::proto::v1::publish_service_client::PublishServiceClient;

/// Nothing here ends because its time is over.
async fn with(change: impl FnOnce(&mut Config)) -> Api {
    let mut config = Config {
        first_bytes_timeout: Duration::from_secs(3600),
        ..Config::default()
    };
    change(&mut config);
    Api::with(Setup {
        config,
        ..Setup::default()
    })
    .await
}

/// A connection from an address of this machine.
async fn connect(api: &Api, from: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, from), 0)))
        .unwrap();
    socket.connect(api.address).await.unwrap()
}

/// A connection that has said what HTTP/2 it speaks, and nothing else. The answer shows that it is open.
async fn begun(api: &Api, from: u8) -> TcpStream {
    let mut stream = connect(api, from).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let mut first = [0; 9];
    stream.read_exact(&mut first).await.unwrap();
    stream
}

/// Whether a call from this address is answered.
async fn is_served(api: &Api, from: u8) -> bool {
    caller(api, from).await.is_some()
}

/// A caller over a connection of its own, which has been served once.
async fn caller(
    api: &Api,
    from: u8,
) -> Option<PublishServiceClient<tonic::service::interceptor::InterceptedService<tonic::transport::Channel, Caller>>> {
    let endpoint = Endpoint::from_shared(format!("http://{}", api.address)).unwrap();
    let endpoint = endpoint.local_address(Some(Ipv4Addr::new(127, 0, 0, from).into()));
    let channel = endpoint.connect().await.ok()?;
    let mut publisher = PublishServiceClient::with_interceptor(channel, Caller::with(ROOT));
    publisher.publish(event()).await.ok()?;
    Some(publisher)
}

async fn until_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // By EOF or reset.
    let _ = stream.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn silent_connections_of_one_address_hold_up_no_other() {
    let api = with(|config| {
        config.handshakes_max = 100;
        config.handshakes_per_address_max = 10;
        config.connections_max = 10;
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(connect(&api, 1).await);
    }
    // One more is closed, and so is a caller from there.
    until_closed(connect(&api, 1).await).await;
    assert!(!is_served(&api, 1).await);
    assert!(is_served(&api, 2).await);
    // One that goes or speaks makes room for another.
    drop(silent.pop());
    while !is_served(&api, 1).await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn all_silent_connections_together_are_bounded() {
    let api = with(|config| config.handshakes_max = 10).await;
    let mut silent = Vec::new();
    for from in 1..=10 {
        silent.push(connect(&api, from).await);
    }
    until_closed(connect(&api, 11).await).await;
    drop(silent);
    while !is_served(&api, 12).await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_address_has_a_bounded_number_of_open_connections() {
    let api = with(|config| config.connections_per_address_max = 3).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(begun(&api, 1).await);
    }
    assert!(!is_served(&api, 1).await);
    assert!(is_served(&api, 2).await);
    drop(open);
    while !is_served(&api, 1).await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_listener_gives_the_places_of_strangers_to_callers() {
    let api = with(|config| config.connections_max = 3).await;
    let mut first = caller(&api, 1).await.unwrap();
    let (oldest, newest) = (begun(&api, 2).await, begun(&api, 3).await);
    let mut second = caller(&api, 4).await.expect("the oldest stranger makes way");
    until_closed(oldest).await;
    let mut third = caller(&api, 5).await.expect("the other one, too");
    until_closed(newest).await;
    // Callers make way for nobody.
    assert!(!is_served(&api, 6).await);
    for caller in [&mut first, &mut second, &mut third] {
        caller.publish(event()).await.unwrap();
    }
    drop(third);
    while !is_served(&api, 6).await {
        tokio::task::yield_now().await;
    }
}
