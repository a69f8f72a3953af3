//! Tries every permission that a node needs, over a separate connection.
//!
//! A server reports a refused publish or subscription asynchronously, after the call has returned. So every permission
//! is tried at the start, harmlessly, and a refusal is reported before anything is served. It is tried again when the
//! server has refused something to a running node.

use async_nats::header::NATS_EXPECTED_STREAM;
use async_nats::{Client, ConnectOptions, Event, HeaderMap};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Config, NatsError, Subjects, connect};

/// The most server messages that are kept; there are not more permissions.
const WORDS_MAX: usize = 64;

/// A token that no room has: rooms have a zero byte in theirs.
const PROBE: &str = "PROBE";

/// Tries every permission.
///
/// # Errors
/// [`NatsError::Permission`] with the first one that is missing; [`NatsError::Connect`].
pub(super) async fn run(config: &Config, subjects: &Subjects) -> Result<(), NatsError> {
    let (told, mut words) = mpsc::channel(WORDS_MAX);
    let options = connect::options(config, subjects, "self-test")?;
    let client = listen(options, told)
        .connect(&config.servers)
        .await
        .map_err(|source| connect::failed(config, source))?;
    let trying = async {
        let mut refused = try_all(&client, subjects).await;
        // The last event of a connection is its end; every refusal arrives before.
        client.drain().await.map_err(failed)?;
        while let Some(word) = words.recv().await {
            match word {
                Word::Refused(what) => refused = refused.and(Err(NatsError::Permission(what))),
                Word::Closed => break,
            }
        }
        refused
    };
    // The connection was established before; each step here is one round trip.
    let patience = config.request_timeout * 3;
    timeout(patience, trying)
        .await
        .unwrap_or_else(|_| Err(NatsError::JetStream("permission test timed out".to_owned())))
}

enum Word {
    Refused(String),
    Closed,
}

fn listen(options: ConnectOptions, told: mpsc::Sender<Word>) -> ConnectOptions {
    options.event_callback(move |event| {
        let word = match event {
            Event::ServerError(error) => Some(Word::Refused(missing(&error.to_string()))),
            Event::Closed => Some(Word::Closed),
            _ => None,
        };
        if let Some(word) = word {
            // Messages beyond the bound add nothing.
            let _ = told.try_send(word);
        }
        async {}
    })
}

/// The server's words for a refused publish or subscription; before them is the first letter, in either case.
const REFUSAL: &str = "ermissions Violation for ";

/// Reports whether a server's error is a refusal for want of a permission.
pub(super) fn is_refusal(word: &str) -> bool {
    word.contains(REFUSAL)
}

/// Returns the missing permission named by the server: `Permissions Violation for Publish to "a.b"`.
fn missing(word: &str) -> String {
    let Some((_, rest)) = word.split_once(REFUSAL) else {
        return format!("do everything a node does ({word})");
    };
    let rest = rest.replace('"', "");
    match rest.split_once(' ') {
        Some((verb, rest)) => format!("{} {rest}", verb.to_lowercase()),
        None => rest,
    }
}

async fn try_all(client: &Client, subjects: &Subjects) -> Result<(), NatsError> {
    for pattern in subscribed(subjects) {
        // The subscription ends with the connection.
        let subscribed = client.subscribe(pattern).await;
        subscribed.map_err(failed)?;
    }
    for subject in published(subjects) {
        // A stream refuses a publish that expects another stream, so nothing is stored.
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, "-");
        let tried = client.publish_with_headers(subject, headers, "{}".into()).await;
        tried.map_err(failed)?;
    }
    // A message over the own inbox returns after the server's refusals of everything sent before.
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await.map_err(failed)?;
    client.publish(inbox, "".into()).await.map_err(failed)?;
    client.flush().await.map_err(failed)?;
    let heard = timeout(std::time::Duration::from_secs(2), echo.next()).await;
    match heard {
        Ok(Some(_)) => Ok(()),
        _ => Err(NatsError::Permission(format!(
            "publish and subscribe to {}.>",
            subjects.inbox()
        ))),
    }
}

fn failed(error: impl std::fmt::Display) -> NatsError {
    NatsError::JetStream(format!("permission test failed: {error}"))
}

fn subscribed(subjects: &Subjects) -> Vec<String> {
    let deployment = subjects.deployment();
    vec![
        format!("{deployment}.l.{PROBE}.*"),
        format!("{deployment}.p.{PROBE}"),
        subjects.heartbeats(),
        subjects.all_nodes(),
        subjects.node(0),
        subjects.relay(0),
        subjects.activity(),
        subjects.records(),
    ]
}

fn published(subjects: &Subjects) -> Vec<String> {
    let deployment = subjects.deployment();
    let mut all: Vec<String> = [
        "h.0.PROBE",
        "l.PROBE.e",
        "l.PROBE.n",
        "v.PROBE.PROBE",
        "m.PROBE",
        "c.PROBE",
        "p.PROBE",
    ]
    .map(|rest| format!("{deployment}.{rest}"))
    .into();
    all.extend([subjects.node(0), subjects.relay(0), format!("{deployment}.i.{PROBE}")]);
    let control = subjects.stream_of('c');
    let streams = ['v', 'm', 'c'].map(|letter| subjects.stream_of(letter));
    for stream in std::iter::once(subjects.stream_of_partition(0)).chain(streams) {
        let verbs = ["STREAM.CREATE", "STREAM.UPDATE", "STREAM.INFO", "STREAM.MSG.GET"];
        all.extend(verbs.map(|verb| format!("$JS.API.{verb}.{stream}")));
    }
    let read_in_batches = [subjects.stream_of_partition(0), subjects.stream_of('v')];
    all.extend(read_in_batches.map(|stream| format!("$JS.API.DIRECT.GET.{stream}")));
    // The subject for the control log's flow control is not known in advance.
    all.extend([
        format!("$JS.API.CONSUMER.CREATE.{control}"),
        format!("$JS.FC.{control}.PROBE.PROBE"),
    ]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_word_is_said_as_what_is_missing() {
        for (word, expected) in [
            (
                "nats: Permissions Violation for Publish to \"d.h.0.PROBE\"",
                "publish to d.h.0.PROBE",
            ),
            (
                "permissions violation for subscription",
                "do everything a node does (permissions violation for subscription)",
            ),
            (
                "nats: Permissions Violation for Subscription to \"d.l.PROBE.*\"",
                "subscription to d.l.PROBE.*",
            ),
        ] {
            assert_eq!(missing(word), expected);
        }
    }
}
