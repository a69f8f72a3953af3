//! The application behind the gateway, as the gateway calls it: answers as a test tells it to, and notes what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use roomcast::proto::backend::v1 as backend_v1;
use roomcast::proto::backend::v1::authorizer_service_server::{AuthorizerService, AuthorizerServiceServer};
use roomcast::proto::backend::v1::client_event_service_server::{ClientEventService, ClientEventServiceServer};
use roomcast::proto::v1;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// What becomes of one call.
#[derive(Debug, Clone)]
pub enum Answer<T> {
    Say(T),
    Fail(Status),
    /// No answer, ever.
    Silence,
}

impl<T> Answer<T> {
    async fn give(self) -> Result<Response<T>, Status> {
        match self {
            Self::Say(answer) => Ok(Response::new(answer)),
            Self::Fail(status) => Err(status),
            Self::Silence => std::future::pending().await,
        }
    }
}

type Script<Q, A> = Mutex<Box<dyn FnMut(Q) -> Answer<A> + Send>>;

struct Scripts {
    authorize: Script<backend_v1::AuthorizeRequest, backend_v1::AuthorizeResponse>,
    event: Script<backend_v1::HandleRequest, backend_v1::HandleResponse>,
    request: Script<backend_v1::AnswerRequest, backend_v1::AnswerResponse>,
    asked: Mutex<Vec<backend_v1::AuthorizeRequest>>,
}

/// A running application, in a runtime of its own so that it ends as a whole, with all its connections, when it is dropped.
pub struct Application {
    address: SocketAddr,
    scripts: Arc<Scripts>,
    runtime: Option<Runtime>,
}

impl Drop for Application {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Application {
    /// Starts an application that allows, accepts and answers nothing until it is told to.
    pub async fn start() -> Self {
        let scripts = Arc::new(Scripts {
            authorize: Mutex::new(Box::new(|_| deny("not scripted"))),
            event: Mutex::new(Box::new(|_| Answer::Fail(Status::unimplemented("not scripted")))),
            request: Mutex::new(Box::new(|_| Answer::Fail(Status::unimplemented("not scripted")))),
            asked: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (own, (ready, address)) = (Arc::clone(&scripts), tokio::sync::oneshot::channel());
        runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            ready.send(listener.local_addr().unwrap()).unwrap();
            Server::builder()
                .add_service(AuthorizerServiceServer::from_arc(Arc::clone(&own)))
                .add_service(ClientEventServiceServer::from_arc(own))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            address: address.await.unwrap(),
            scripts,
            runtime: Some(runtime),
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How it decides from now on.
    pub fn authorizes(
        &self,
        script: impl FnMut(backend_v1::AuthorizeRequest) -> Answer<backend_v1::AuthorizeResponse> + Send + 'static,
    ) {
        *self.scripts.authorize.lock().unwrap() = Box::new(script);
    }

    /// What it does with events from now on.
    pub fn handles_events(
        &self,
        script: impl FnMut(backend_v1::HandleRequest) -> Answer<backend_v1::HandleResponse> + Send + 'static,
    ) {
        *self.scripts.event.lock().unwrap() = Box::new(script);
    }

    /// What it answers to requests from now on.
    pub fn handles_requests(
        &self,
        script: impl FnMut(backend_v1::AnswerRequest) -> Answer<backend_v1::AnswerResponse> + Send + 'static,
    ) {
        *self.scripts.request.lock().unwrap() = Box::new(script);
    }

    /// The questions of permission since the last call.
    pub fn take_asked(&self) -> Vec<backend_v1::AuthorizeRequest> {
        std::mem::take(&mut *self.scripts.asked.lock().unwrap())
    }
}

/// Allows, for this question alone.
pub fn allow() -> Answer<backend_v1::AuthorizeResponse> {
    Answer::Say(backend_v1::AuthorizeResponse {
        decision: v1::Decision::Allow.into(),
        ..Default::default()
    })
}

/// Denies.
pub fn deny(reason: &str) -> Answer<backend_v1::AuthorizeResponse> {
    Answer::Say(backend_v1::AuthorizeResponse {
        decision: v1::Decision::Deny.into(),
        reason: reason.to_owned(),
        ..Default::default()
    })
}

#[tonic::async_trait]
impl AuthorizerService for Scripts {
    async fn authorize(
        &self,
        request: Request<backend_v1::AuthorizeRequest>,
    ) -> Result<Response<backend_v1::AuthorizeResponse>, Status> {
        let request = request.into_inner();
        self.asked.lock().unwrap().push(request.clone());
        let answer = (self.authorize.lock().unwrap())(request);
        answer.give().await
    }
}

#[tonic::async_trait]
impl ClientEventService for Scripts {
    async fn handle(
        &self,
        request: Request<backend_v1::HandleRequest>,
    ) -> Result<Response<backend_v1::HandleResponse>, Status> {
        let answer = (self.event.lock().unwrap())(request.into_inner());
        answer.give().await
    }

    async fn answer(
        &self,
        request: Request<backend_v1::AnswerRequest>,
    ) -> Result<Response<backend_v1::AnswerResponse>, Status> {
        let answer = (self.request.lock().unwrap())(request.into_inner());
        answer.give().await
    }
}
