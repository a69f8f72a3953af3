//! The acceptance of connections, by every port of the node.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// Accepts the next connection. After a failure (no descriptor, no memory, a connection that was gone already) it pauses:
/// without that the loop would spin until a descriptor is free.
///
/// # Cancel safety
/// May be dropped at any time.
pub async fn accept(listener: &TcpListener, pause: Duration) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(pause).await;
            }
        }
    }
}
