//! Commands as JSON text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roomcast::proto::client_v1::answer::Answer as Answered;
use roomcast::proto::client_v1::client_frame::Command;
use roomcast::proto::client_v1::history_query::Anchor as Side;
use roomcast::proto::client_v1::payload::Content;
use roomcast::proto::client_v1::{ClientFrame, Payload, Ping, Position, PresenceMode, Retention};

/// A command as JSON text.
pub fn encode(frame: &ClientFrame) -> String {
    let (name, fields) = command(frame.command.as_ref().expect("a frame has a command"));
    format!("{{\"id\":{},\"{name}\":{}}}", frame.id, fields.text())
}

/// The fields of an object to write; those with their zero value are left out.
#[derive(Default)]
struct Written(Vec<String>);

impl Written {
    fn raw(mut self, key: &str, json: Option<impl AsRef<str>>) -> Self {
        if let Some(json) = json {
            self.0.push(format!("\"{key}\":{}", json.as_ref()));
        }
        self
    }

    fn string(self, key: &str, value: &str) -> Self {
        let text = (!value.is_empty()).then(|| serde_json::Value::from(value).to_string());
        self.raw(key, text)
    }

    fn number(self, key: &str, value: impl Into<u64>) -> Self {
        let value = value.into();
        self.raw(key, (value != 0).then(|| value.to_string()))
    }

    fn texts(self, key: &str, values: &[String]) -> Self {
        let text = (!values.is_empty()).then(|| serde_json::Value::from(values.to_vec()).to_string());
        self.raw(key, text)
    }

    fn payload(self, payload: Option<&Payload>) -> Self {
        match payload.and_then(|payload| payload.content.as_ref()) {
            Some(Content::Json(json)) => self.raw("payload", Some(json)),
            Some(Content::Binary(bytes)) => self.raw("binary", Some(format!("\"{}\"", STANDARD.encode(bytes)))),
            None => self,
        }
    }

    fn position(self, key: &str, position: Option<&Position>) -> Self {
        let text = position.map(|at| {
            Self::default()
                .string("epoch", &at.epoch)
                .number("offset", at.offset)
                .text()
        });
        self.raw(key, text)
    }

    fn text(&self) -> String {
        format!("{{{}}}", self.0.join(","))
    }
}

fn command(command: &Command) -> (&'static str, Written) {
    let new = Written::default();
    match command {
        Command::Connect(connect) => {
            let resume = connect.resume.iter().map(|at| {
                let fields = Written::default().string("room", &at.room);
                fields.position("position", at.position.as_ref()).text()
            });
            let resume: Vec<String> = resume.collect();
            let resume = (!resume.is_empty()).then(|| format!("[{}]", resume.join(",")));
            let fields = new.string("token", &connect.token).string("client", &connect.client);
            let fields = fields.raw("resume", resume);
            ("connect", fields.texts("features", &connect.features))
        }
        Command::Join(join) => {
            let presence = match join.presence() {
                PresenceMode::Unspecified => "",
                PresenceMode::None => "none",
                PresenceMode::Counts => "counts",
                PresenceMode::Members => "members",
                PresenceMode::Others => "others",
            };
            let fields = new.string("room", &join.room).position("since", join.since.as_ref());
            let fields = fields.number("rewind", join.rewind);
            let fields = fields.string("presence", presence);
            let fields = fields.raw("state", join.state_json.as_ref());
            ("join", fields.texts("requiredFeatures", &join.required_features))
        }
        Command::Leave(leave) => ("leave", new.string("room", &leave.room)),
        Command::Publish(publish) => {
            let retention = match publish.retention() {
                Retention::Unspecified => "",
                Retention::Ephemeral => "ephemeral",
                Retention::Reliable => "reliable",
                Retention::LastValue => "last_value",
            };
            let fields = new
                .string("room", &publish.room)
                .string("eventName", &publish.event_name);
            let fields = fields.payload(publish.payload.as_ref()).string("retention", retention);
            let fields = fields.string("idempotencyKey", &publish.idempotency_key);
            ("publish", fields.texts("requiredFeatures", &publish.required_features))
        }
        Command::Request(request) => {
            let fields = new.string("method", &request.method).string("room", &request.room);
            ("request", fields.payload(request.payload.as_ref()))
        }
        Command::PresenceQuery(query) => ("presenceQuery", new.string("room", &query.room)),
        Command::PresenceUpdate(update) => {
            let fields = new.string("room", &update.room);
            ("presenceUpdate", fields.raw("state", update.state_json.as_ref()))
        }
        Command::UserRoomsQuery(query) => ("userRoomsQuery", new.string("userId", &query.user_id)),
        Command::HistoryQuery(query) => {
            let fields = new.string("room", &query.room);
            let fields = match &query.anchor {
                Some(Side::After(at)) => fields.position("after", Some(at)),
                Some(Side::Before(at)) => fields.position("before", Some(at)),
                None => fields,
            };
            ("historyQuery", fields.number("limit", query.limit))
        }
        Command::Answer(answer) => {
            let fields = new.number("askId", answer.ask_id);
            let fields = match &answer.answer {
                Some(Answered::Payload(payload)) => fields.payload(Some(payload)),
                Some(Answered::Error(error)) => {
                    let error = Written::default()
                        .string("reason", &error.reason)
                        .string("message", &error.message);
                    fields.raw("error", Some(error.text()))
                }
                None => fields,
            };
            ("answer", fields)
        }
        Command::Refresh(refresh) => ("refresh", new.string("token", &refresh.token)),
        Command::Ping(Ping {}) => ("ping", new),
    }
}
