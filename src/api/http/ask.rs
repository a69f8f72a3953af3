//! Asks as JSON over HTTP: `POST /v1/ask`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Extensions;
use serde::Serialize;
use serde_json::value::RawValue;

use super::object::text;
use super::{body, publish};
use crate::api::ApiServices;
use crate::api::credentials::Caller;
use crate::api::status::Refusal;
use crate::json::Fields;
use crate::proto::v1;

/// The fields' contents are checked by the shared method.
fn read(from: &mut Fields<'_>) -> Result<v1::AskRequest, Refusal> {
    use v1::ask_request::Session;
    let (payload, timeout) = (publish::payload(from), from.text("timeout"));
    let request = v1::AskRequest {
        tenant: text(from, "tenant"),
        session: from.text("connectionId").map(Session::ConnectionId),
        method: text(from, "method"),
        required_features: from.texts("requiredFeatures"),
        ..v1::AskRequest::default()
    };
    let parse = |text: String| text.parse().map_err(|_| Refusal::field("timeout", "cannot be read"));
    Ok(v1::AskRequest {
        payload: payload?,
        timeout: timeout.map(parse).transpose()?,
        ..request
    })
}

/// The reply to an ask: one of the three.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Answered {
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<AnswerError>,
}

#[derive(Serialize)]
struct AnswerError {
    reason: String,
    message: String,
}

pub(super) async fn ask(
    State(shared): State<Arc<ApiServices>>,
    Extension(caller): Extension<Arc<Caller>>,
    extensions: Extensions,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let request = body(bytes, read)?;
    let answered = shared.ask(&caller, request, &extensions).await?;
    let allowance = shared.ask_allowance(&answered, &extensions).await?;
    let mut response = Json(written(answered)?).into_response();
    if let Some(allowance) = allowance {
        response.extensions_mut().insert(allowance);
    }
    Ok(response)
}

fn written(response: v1::AskResponse) -> Result<Answered, Refusal> {
    use v1::ask_response::Answer;
    use v1::payload::Content;
    let nothing = Answered::default();
    Ok(match response.answer {
        Some(Answer::Payload(payload)) => match payload.content {
            // The text that the client sent; it was validated then.
            Some(Content::Json(text)) => Answered {
                payload: Some(RawValue::from_string(text).map_err(|_| Refusal::Internal)?),
                ..nothing
            },
            Some(Content::Binary(bytes)) => Answered {
                payload_base64: Some(STANDARD.encode(bytes)),
                ..nothing
            },
            None => return Err(Refusal::Internal),
        },
        Some(Answer::Error(v1::AnswerError { reason, message })) => Answered {
            error: Some(AnswerError { reason, message }),
            ..nothing
        },
        None => return Err(Refusal::Internal),
    })
}
