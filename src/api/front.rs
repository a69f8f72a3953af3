//! Where a request goes: gRPC straight to the gate, and whatever else there is (browsers, the HTTP mirror) through the
//! layers that understand it. Most calls are gRPC, and each layer less is a boxed body less.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Layer, Service, ServiceExt as _};

use super::gate::{Gate, GateLayer};

/// Puts the gate before the methods, and `L` before the gate for what is not plain gRPC.
#[derive(Clone)]
pub(super) struct FrontLayer<L> {
    /// The gate.
    pub(super) gate: GateLayer,
    /// What else there is.
    pub(super) others: L,
}

impl<L: Layer<Gate>> Layer<Routes> for FrontLayer<L> {
    type Service = Front<L::Service>;

    fn layer(&self, routes: Routes) -> Self::Service {
        let grpc = self.gate.layer(routes);
        Front {
            others: Arc::new(self.others.layer(grpc.clone())),
            grpc,
        }
    }
}

/// Stands before everything.
pub(super) struct Front<O> {
    grpc: Gate,
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
        if is_plain_grpc(request.headers()) {
            self.grpc.call(request)
        } else {
            Box::pin(O::clone(&self.others).oneshot(request))
        }
    }
}

/// gRPC over HTTP/2, "Requests": the content type begins with `application/grpc`, and what follows names an encoding.
/// Only browsers send an origin.
fn is_plain_grpc(headers: &HeaderMap) -> bool {
    let encoding = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    encoding.is_some_and(|encoding| matches!(encoding, [] | [b'+' | b';', ..])) && !headers.contains_key(ORIGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_web_and_browsers_are_not_plain_grpc() {
        let is_plain = |kind: &'static str, origin: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            if origin {
                headers.insert(ORIGIN, "https://app.example".parse().unwrap());
            }
            is_plain_grpc(&headers)
        };
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;charset=utf-8",
        ] {
            assert!(is_plain(kind, false) && !is_plain(kind, true), "{kind}");
        }
        for kind in [
            "application/grpc-web",
            "application/grpc-web-text",
            "application/json",
            "application/grpcx",
        ] {
            assert!(!is_plain(kind, false), "{kind}");
        }
    }
}
