//! Establishes connections.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{ConnectOptions, Event, ToServerAddrs};
use tokio::sync::watch;

use super::link::{LibraryConnection, ReportedState};
use crate::units::jittered_ms;
use crate::url;

use super::{Config, Credentials, ManagedConnection, NatsError, SERVER_VERSION_MIN, Standing, Subjects};

/// The timeout of one attempt: a server that does not answer by then is passed over for the next.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The most commands submitted to the connection and not yet written. Behind it publishers wait: it is back-pressure, not a
/// buffer for outages.
const COMMANDS_MAX: usize = 2048;

/// The most unread messages of one subscription. The library drops messages beyond it (slow consumer), and the chain
/// detects the gap.
pub const SUBSCRIPTION_MAX: usize = 65_536;

pub(super) async fn link(
    config: &Config,
    subjects: &Subjects,
    name: &'static str,
) -> Result<ManagedConnection, NatsError> {
    let told = ReportedState::new();
    let line = line(config, subjects, (name, &told), &config.servers).await?;
    let found = line.client.server_info().version;
    if !is_new_enough(&found) {
        return Err(NatsError::Version { found });
    }
    Ok(ManagedConnection::new(name, line, told))
}

/// Connects to one of these servers. Events of the connection are reported to the link while it is in use there.
pub(super) async fn line(
    config: &Config,
    subjects: &Subjects,
    (name, told): (&str, &Arc<ReportedState>),
    servers: impl ToServerAddrs,
) -> Result<LibraryConnection, NatsError> {
    let (own, standing) = watch::channel(Standing {
        connected: true,
        events: 0,
        lame_duck: false,
    });
    let (told, number) = (Arc::clone(told), told.next_line());
    let connecting = options(config, subjects, name)?
        .event_callback(move |event| {
            let in_use = told.tell(number, &own, &event);
            log(&event, in_use);
            async {}
        })
        .connect(servers);
    let client = connecting.await.map_err(|source| failed(config, source))?;
    Ok(LibraryConnection {
        client,
        standing,
        number,
    })
}

/// Builds the error of a failed connection, with a hint where the cause does not say what to change.
pub(super) fn failed(config: &Config, source: async_nats::ConnectError) -> NatsError {
    let said = source.to_string();
    let hint = if said.contains("InvalidContentType") {
        "; the server does not speak TLS here, or not before its first word (nats.tls)"
    } else if said.contains("expected INFO") && !config.tls.first {
        "; a server that awaits the TLS handshake first needs nats.tls.first"
    } else if said.starts_with("TLS error") {
        "; the files of nats.tls cannot be used"
    } else if said.contains("CertificateRequired") || said.contains("certificate required") {
        "; the server wants a client certificate (nats.tls)"
    } else {
        ""
    };
    NatsError::Connect {
        servers: config
            .servers
            .iter()
            .map(|server| url::shown(server))
            .collect::<Vec<_>>()
            .join(", "),
        hint,
        source,
    }
}

pub(super) fn options(config: &Config, subjects: &Subjects, name: &str) -> Result<ConnectOptions, NatsError> {
    let mut options = ConnectOptions::new()
        .name(format!("roomcast {name}"))
        .custom_inbox_prefix(subjects.inbox())
        .ping_interval(config.ping_interval)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(config.request_timeout))
        .client_capacity(COMMANDS_MAX)
        .subscription_capacity(SUBSCRIPTION_MAX)
        .reconnect_delay_callback(reconnect_delay)
        .require_tls(config.tls.required);
    options = match &config.credentials {
        Credentials::None => options,
        Credentials::Creds(text) => options
            .credentials(text)
            .map_err(|error| NatsError::Config(format!("credentials: {error}")))?,
        Credentials::NkeySeed(seed) => options.nkey(seed.clone()),
        Credentials::Password { user, password } => options.user_and_password(user.clone(), password.clone()),
        Credentials::Token(token) => options.token(token.clone()),
    };
    if config.tls.first {
        options = options.tls_first();
    }
    if let Some(authorities) = &config.tls.ca_file {
        options = options.add_root_certificates(authorities.clone());
    }
    if let Some((certificate, key)) = &config.tls.certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

/// Returns the delay before an attempt to reconnect: none, then doubling up to 2 s, each with jitter. Nodes that lost
/// one server do not return in step (thundering herd).
fn reconnect_delay(attempts: usize) -> Duration {
    let exponent = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(5);
    let most_ms = (50_u64 << exponent).min(2000);
    match attempts {
        0 | 1 => Duration::from_millis(rand::random_range(0..20)),
        _ => Duration::from_millis(jittered_ms(most_ms, rand::random())),
    }
}

fn log(event: &Event, in_use: bool) {
    match event {
        other if !in_use => tracing::debug!(event = %other, "nats event on an unused connection"),
        Event::Connected => tracing::info!("connected to nats"),
        Event::Disconnected => tracing::warn!("disconnected from nats"),
        Event::ServerError(error) => tracing::error!(%error, "nats server error"),
        Event::SlowConsumer(_) => tracing::warn!("nats subscription overflowed, room recovery started"),
        other => tracing::info!(event = %other, "nats event"),
    }
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.trim_start_matches('v').split(['.', '-']).map(str::parse::<u16>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= SERVER_VERSION_MIN,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_before_2_11_and_what_is_no_version_are_refused() {
        for (version, expected) in [
            ("2.9.10", false),
            ("2.10.27", false),
            ("2.11.0", true),
            ("2.15.1", true),
            ("v2.12.0-RC.1", true),
            ("3.0.0", true),
            ("", false),
            ("two", false),
        ] {
            assert_eq!(is_new_enough(version), expected, "{version}");
        }
    }

    #[test]
    fn attempts_to_reconnect_come_ever_later_up_to_two_seconds() {
        for attempt in 0..40 {
            assert!(reconnect_delay(attempt) <= Duration::from_secs(2), "{attempt}");
        }
        assert!(reconnect_delay(1) < Duration::from_millis(20));
        assert!(reconnect_delay(20) >= Duration::from_millis(800));
    }
}
