//! Carries bytes between two sockets, as the weather allows.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{Way, Weather};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks that may be under way, each way. Then the sender's own buffers fill.
const CHUNKS: usize = 64;

/// Bytes, and when they may go on.
type Parcel = (Instant, Vec<u8>);

/// Both ways, until both ends are done or one fails.
pub(super) async fn carry(
    client: &mut TcpStream,
    server: &mut TcpStream,
    weather: &watch::Receiver<Weather>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(
        one_way(from_client, to_server, Way::ToServer, weather),
        one_way(from_server, to_client, Way::ToClient, weather),
    )?;
    Ok(())
}

async fn one_way(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    way: Way,
    weather: &watch::Receiver<Weather>,
) -> io::Result<()> {
    let (parcels, arriving) = mpsc::channel(CHUNKS);
    tokio::try_join!(
        take(from, parcels, way, weather.clone()),
        give(to, arriving, way, weather.clone())
    )?;
    Ok(())
}

/// Reads whatever the weather is: the sender notices nothing.
async fn take(
    mut from: ReadHalf<'_>,
    parcels: mpsc::Sender<Parcel>,
    way: Way,
    weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = from.read(&mut chunk).await?;
        chunk.truncate(read);
        let due = Instant::now() + weather.borrow().passage(way).delay;
        // The end of the stream travels as an empty chunk, no faster than the bytes before it.
        if parcels.send((due, chunk)).await.is_err() || read == 0 {
            return Ok(());
        }
    }
}

async fn give(
    mut to: WriteHalf<'_>,
    mut arriving: mpsc::Receiver<Parcel>,
    way: Way,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    while let Some((due, chunk)) = arriving.recv().await {
        sleep_until(due).await;
        // The proxy is gone: so is this task.
        let _ = weather.wait_for(|now| !now.passage(way).frozen).await;
        if chunk.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&chunk).await?;
    }
    Ok(())
}
