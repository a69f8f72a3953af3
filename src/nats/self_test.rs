//! Tries every permission a node needs, over a connection of its own.
//!
//! A server refuses a publish or a subscription with a word that arrives some time after the call has returned, on no
//! call at all. So everything is tried at the start, harmlessly, and what was refused is said before anything is served.

use async_nats::header::NATS_EXPECTED_STREAM;
use async_nats::{Client, ConnectOptions, Event, HeaderMap};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Config, NatsError, Subjects, connect};

/// Words of the server that are kept; there are not more permissions.
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
        // The last word of a connection is that it is closed; everything else comes before.
        client.drain().await.map_err(failed)?;
        while let Some(word) = words.recv().await {
            match word {
                Word::Refused(what) => refused = refused.and(Err(NatsError::Permission(what))),
                Word::Closed => break,
            }
        }
        refused
    };
    // Connecting took its own time; each step here is one round trip.
    let patience = config.request_timeout * 3;
    timeout(patience, trying).await.unwrap_or_else(|_| {
        Err(NatsError::JetStream(
            "the test of the permissions had no answer in time".to_owned(),
        ))
    })
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
            // More words than fit say nothing new.
            let _ = told.try_send(word);
        }
        async {}
    })
}

/// What the server's word says is not allowed: `Permissions Violation for Publish to "a.b"`.
fn missing(word: &str) -> String {
    let Some((_, rest)) = word.split_once("ermissions Violation for ") else {
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
        // Ends with the connection.
        let subscribed = client.subscribe(pattern).await;
        subscribed.map_err(failed)?;
    }
    for subject in published(subjects) {
        // A stream takes nothing that is meant for another one.
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, "-");
        let tried = client.publish_with_headers(subject, headers, "{}".into()).await;
        tried.map_err(failed)?;
    }
    // What comes back over the own inbox comes after everything the server had to say to what was sent before.
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
    NatsError::JetStream(format!("the permissions could not be tried: {error}"))
}

fn subscribed(subjects: &Subjects) -> Vec<String> {
    let deployment = subjects.deployment();
    vec![
        format!("{deployment}.l.{PROBE}.*"),
        format!("{deployment}.p.{PROBE}"),
        subjects.heartbeats(),
        subjects.all_nodes(),
        subjects.node(0),
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
    all.extend([subjects.node(0), format!("{deployment}.i.{PROBE}")]);
    let control = subjects.stream_of('c');
    let streams = ['v', 'm', 'c'].map(|letter| subjects.stream_of(letter));
    for stream in std::iter::once(subjects.stream_of_partition(0)).chain(streams) {
        let verbs = ["STREAM.CREATE", "STREAM.UPDATE", "STREAM.INFO", "STREAM.MSG.GET"];
        all.extend(verbs.map(|verb| format!("$JS.API.{verb}.{stream}")));
    }
    let read_in_batches = [subjects.stream_of_partition(0), subjects.stream_of('v')];
    all.extend(read_in_batches.map(|stream| format!("$JS.API.DIRECT.GET.{stream}")));
    // What answers the flow control of the control log is not known before.
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
