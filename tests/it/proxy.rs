//! The proxy that stands in for a bad network.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::support::proxy::{Proxy, Way};
use crate::support::{eventually, within};

/// Two ends with a proxy between.
struct Line {
    listener: TcpListener,
    proxy: Proxy,
    client: TcpStream,
    server: TcpStream,
}

impl Line {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::before(listener.local_addr().unwrap()).await;
        let client = TcpStream::connect(proxy.address()).await.unwrap();
        let (server, _) = within("a connection", listener.accept()).await.unwrap();
        Self {
            listener,
            proxy,
            client,
            server,
        }
    }

    async fn reopen(&mut self) {
        self.client = TcpStream::connect(self.proxy.address()).await.unwrap();
        self.server = within("a connection", self.listener.accept()).await.unwrap().0;
    }
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

async fn hear(stream: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    within(text, stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), text);
}

async fn expect_reset(stream: &mut TcpStream) {
    let error = within("a reset", stream.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn passes_both_ways_and_ends_in_order() {
    let mut line = Line::open().await;
    say(&mut line.client, "ping").await;
    hear(&mut line.server, "ping").await;
    assert_eq!(line.proxy.connections(), 1);
    line.client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within("the client's end", line.server.read_to_end(&mut rest))
        .await
        .unwrap();
    say(&mut line.server, "the last word").await;
    drop(line.server);
    hear(&mut line.client, "the last word").await;
    assert_eq!(within("the end", line.client.read(&mut [0])).await.unwrap(), 0);
    let proxy = &line.proxy;
    eventually("no connection", async || (proxy.connections() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_cut_resets_both_sides_and_whoever_comes_until_it_is_mended() {
    let mut line = Line::open().await;
    line.proxy.cut();
    expect_reset(&mut line.client).await;
    expect_reset(&mut line.server).await;
    let mut again = TcpStream::connect(line.proxy.address()).await.unwrap();
    expect_reset(&mut again).await;
    line.proxy.mend();
    line.reopen().await;
    say(&mut line.client, "ping").await;
    hear(&mut line.server, "ping").await;
}

#[tokio::test]
async fn a_reset_ends_what_is_there_and_lets_others_come() {
    let mut line = Line::open().await;
    line.proxy.reset();
    expect_reset(&mut line.client).await;
    expect_reset(&mut line.server).await;
    line.reopen().await;
    say(&mut line.client, "ping").await;
    hear(&mut line.server, "ping").await;
}

#[tokio::test]
async fn frozen_one_way_holds_back_that_way_only() {
    let mut line = Line::open().await;
    line.proxy.freeze(Way::ToClient);
    say(&mut line.server, "held").await;
    say(&mut line.client, "ping").await;
    hear(&mut line.server, "ping").await;
    let nothing = line.client.try_read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    line.proxy.mend();
    hear(&mut line.client, "held").await;
}

#[tokio::test]
async fn frozen_both_ways_says_nothing_even_of_an_end() {
    let mut line = Line::open().await;
    line.proxy.freeze_both();
    say(&mut line.client, "held").await;
    drop(line.server);
    // Another connection shows that the proxy had its turn: it is taken, and nothing more.
    let mut second = TcpStream::connect(line.proxy.address()).await.unwrap();
    let (mut seen, _) = within("a connection", line.listener.accept()).await.unwrap();
    say(&mut second, "too").await;
    for stream in [&line.client, &seen] {
        let nothing = stream.try_read(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    }
    line.proxy.mend();
    hear(&mut seen, "too").await;
    within("the end", line.client.read(&mut [0])).await.ok();
}

#[tokio::test]
async fn a_delay_holds_back_one_way_and_keeps_the_order() {
    let mut line = Line::open().await;
    let delay = Duration::from_millis(50);
    line.proxy.delay(Way::ToServer, delay);
    let start = Instant::now();
    say(&mut line.client, "one").await;
    line.proxy.delay(Way::ToServer, Duration::ZERO);
    say(&mut line.client, "two").await;
    say(&mut line.server, "back").await;
    hear(&mut line.client, "back").await;
    hear(&mut line.server, "onetwo").await;
    // Both may have been read after the delay was taken back; then there was none.
    assert!(start.elapsed() < Duration::from_secs(20));
}
