//! How somebody opens a WebSocket.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request, Response, header};

use super::node::Traces;
use super::{Client, Encoding, User, within};

/// How a connection is to be opened.
#[derive(Debug, Clone)]
pub struct Opening {
    address: SocketAddr,
    encoding: Encoding,
    traces: Arc<Traces>,
    request: Request<()>,
}

/// Why there is no WebSocket.
#[derive(Debug)]
pub enum NotOpen {
    /// What the gateway answers instead of an upgrade.
    Refused(Box<Response<Option<Vec<u8>>>>),
    /// The connection ended in the middle of it.
    Broken(WsError),
}

impl Opening {
    pub fn new(address: SocketAddr, encoding: Encoding, traces: Arc<Traces>) -> Self {
        let mut request = format!("ws://{address}/v1/ws").into_client_request().unwrap();
        let subprotocol = HeaderValue::from_static(encoding.subprotocol());
        request
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        Self {
            address,
            encoding,
            traces,
            request,
        }
    }

    /// In another encoding than the node's.
    pub fn speaking(self, encoding: Encoding) -> Self {
        let opening = self.header("sec-websocket-protocol", encoding.subprotocol());
        Self { encoding, ..opening }
    }

    /// With a header more, or another one.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.request.headers_mut().insert(name, value.parse().unwrap());
        self
    }

    /// With a query.
    pub fn query(mut self, query: &str) -> Self {
        let uri = format!("ws://{}/v1/ws?{query}", self.address);
        *self.request.uri_mut() = uri.parse().unwrap();
        self
    }

    /// Upgrades.
    ///
    /// # Errors
    /// What the gateway answers instead of an upgrade.
    pub async fn open(self) -> Result<Client, Response<Option<Vec<u8>>>> {
        self.try_open().await.map_err(|not| match not {
            NotOpen::Refused(response) => *response,
            NotOpen::Broken(error) => panic!("the upgrade failed: {error}"),
        })
    }

    /// Upgrades, if the gateway has not too much to do.
    ///
    /// # Errors
    /// Every variant of [`NotOpen`].
    pub async fn try_open(self) -> Result<Client, NotOpen> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream = stream.into_std().unwrap();
        self.traces.sockets.lock().unwrap().push(stream.try_clone().unwrap());
        let stream = TcpStream::from_std(stream).unwrap();
        let upgrade = tokio_tungstenite::client_async(self.request, stream);
        match within("the answer to an upgrade", upgrade).await {
            Ok((socket, _)) => Ok(Client::new(socket, self.encoding, self.traces)),
            Err(WsError::Http(response)) => Err(NotOpen::Refused(response)),
            Err(error) => Err(NotOpen::Broken(error)),
        }
    }

    /// Upgrades and connects with the user's token.
    pub async fn connect(self, user: User) -> Client {
        let mut client = self.open().await.expect("the upgrade is accepted");
        client
            .authenticate(&user, Vec::new())
            .await
            .expect("the token is accepted");
        client
    }
}
