//! How a client of a round opens its connection, and what its events say.

use std::net::SocketAddr;
use std::time::Duration;

use roomcast::proto::client_v1::Event;
use roomcast::proto::client_v1::payload::Content;
use serde::Deserialize;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::log::Id;
use crate::support::Encoding;

/// How long opening a connection, or sending something, may take.
pub const OPENING: Duration = Duration::from_secs(3);

pub type Socket = WebSocketStream<TcpStream>;

/// Opens one, if the gateway answers. One that is `narrow` has little room in the kernel, so that what is not read piles up
/// in the gateway.
pub async fn open(address: SocketAddr, encoding: Encoding, narrow: bool) -> Option<Socket> {
    let socket = TcpSocket::new_v4().expect("a socket is made");
    if narrow {
        socket.set_recv_buffer_size(4096).expect("a size is set");
    }
    let opening = async {
        let stream = socket.connect(address).await.ok()?;
        let request = format!("ws://{address}/v1/ws").into_client_request();
        let mut request = request.expect("an address is a URL");
        let subprotocol = encoding.subprotocol().parse().expect("a header");
        request.headers_mut().insert("sec-websocket-protocol", subprotocol);
        Some(tokio_tungstenite::client_async(request, stream).await.ok()?.0)
    };
    timeout(OPENING, opening).await.ok()?
}

/// What an event's payload says.
#[derive(Deserialize)]
struct Stamp {
    by: u32,
    n: u32,
}

/// Who published an event, and its how manyth; `None` for the one that ends a room.
pub fn stamp_of(json: &str) -> Option<Id> {
    let Stamp { by, n } = serde_json::from_str(json).ok()?;
    Some(Id { by, n })
}

/// The same, of an event that a client got.
pub fn stamp(event: &Event) -> Option<Id> {
    match event.payload.as_ref()?.content.as_ref()? {
        Content::Json(json) => stamp_of(json),
        Content::Binary(_) => None,
    }
}
