//! The first branch of a request: gRPC goes straight to the gate, all else (browsers, the HTTP mirror) through its layers.
//! Most calls are gRPC, and each layer less is a boxed body less.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Layer, Service, ServiceExt as _};

use super::gate::{self, GateLayer, RequestGate};
use super::protocol::Protocol;
use super::unread;

/// Puts the gate before the methods, and `L` before the gate for requests that are not plain gRPC.
#[derive(Clone)]
pub(super) struct FrontLayer<L> {
    /// The gate.
    pub(super) gate: GateLayer,
    /// Layers of all other requests.
    pub(super) others: L,
}

impl<L: Layer<RequestGate>> Layer<Routes> for FrontLayer<L> {
    type Service = Front<L::Service>;

    fn layer(&self, routes: Routes) -> Self::Service {
        let grpc = self.gate.layer(routes);
        Front {
            others: Arc::new(self.others.layer(grpc.clone())),
            grpc,
        }
    }
}

/// The outermost service.
pub(super) struct Front<O> {
    grpc: RequestGate,
    /// Shared: tonic clones the whole service for every call, and these are rarely wanted.
    others: Arc<O>,
}

impl<O> Clone for Front<O> {
    fn clone(&self) -> Self {
        Self {
            grpc: self.grpc.clone(),
            others: self.others.clone(),
        }
    }
}

/// Counts a reply as unread. Outside of everything else, because only what leaves here occupies memory.
fn counted(call: impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static) -> Answer {
    Box::pin(async move {
        let Ok(response) = call.await;
        Ok(unread::count(response).await)
    })
}

type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

impl<O> Service<Request<Body>> for Front<O>
where
    O: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    O: Send + Sync + 'static,
    O::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.grpc.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match Protocol::of(&request) {
            Ok(Protocol::Grpc) if gate::is_large(request.uri().path()) => counted(self.grpc.call(request)),
            Ok(Protocol::Grpc) => self.grpc.call(request),
            Ok(Protocol::Other) => counted(O::clone(&self.others).oneshot(request)),
            Err(refused) => Box::pin(std::future::ready(Ok(*refused))),
        }
    }
}
