//! The closed lists of errors for callers and of close reasons.
//!
//! Edges own the tables from these to gRPC status, close code or `connect_error`; each is an exhaustive `match`.

/// The error that a caller gets. Says little on purpose; the log carries the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The command cannot be read.
    Malformed,
    /// No valid credential was given.
    Unauthenticated,
    /// The credential has expired; a fresh one helps.
    TokenExpired,
    /// The connection is already authenticated.
    AlreadyConnected,
    /// Not allowed. The same for rooms that exist and rooms that do not.
    Forbidden,
    /// The room name is not acceptable.
    InvalidRoom,
    /// The event name is not acceptable.
    InvalidEventName,
    /// The payload, or another argument, is not acceptable.
    InvalidArgument,
    /// The payload is larger than its bound.
    PayloadTooLarge,
    /// The room has to be joined first.
    NotJoined,
    /// The connection is in as many rooms as it may be.
    RoomLimit,
    /// The user has as many connections as it may have.
    ConnectionLimit,
    /// Rate limit exceeded; try again later.
    RateLimited,
    /// The presence state is larger than its bound.
    PresenceTooLarge,
    /// The room's head is not the one the publisher expected.
    VersionConflict,
    /// The idempotency key was used with another body.
    KeyReused,
    /// No backend is configured for this request.
    NoBackend,
    /// The backend refused, with a reason of its own.
    Rejected,
    /// A deadline passed.
    Timeout,
    /// Not possible now; nothing was stored.
    Unavailable,
    /// The outcome is unknown: the event may be stored; repeat it with its idempotency key.
    UnknownOutcome,
    /// Not offered by this gateway.
    Unsupported,
    /// An internal error of the gateway.
    Internal,
}

impl ErrorCode {
    /// Every code, in the order of the documentation.
    pub const ALL: [Self; 23] = [
        Self::Malformed,
        Self::Unauthenticated,
        Self::TokenExpired,
        Self::AlreadyConnected,
        Self::Forbidden,
        Self::InvalidRoom,
        Self::InvalidEventName,
        Self::InvalidArgument,
        Self::PayloadTooLarge,
        Self::NotJoined,
        Self::RoomLimit,
        Self::ConnectionLimit,
        Self::RateLimited,
        Self::PresenceTooLarge,
        Self::VersionConflict,
        Self::KeyReused,
        Self::NoBackend,
        Self::Rejected,
        Self::Timeout,
        Self::Unavailable,
        Self::UnknownOutcome,
        Self::Unsupported,
        Self::Internal,
    ];

    /// Reports whether the same request may succeed later, with nothing else changed.
    #[must_use]
    pub const fn may_repeat(self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::Unavailable | Self::Timeout | Self::UnknownOutcome
        )
    }

    /// Returns the machine-readable name, the same on every wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::TokenExpired => "token_expired",
            Self::AlreadyConnected => "already_connected",
            Self::Forbidden => "forbidden",
            Self::InvalidRoom => "invalid_room",
            Self::InvalidEventName => "invalid_event_name",
            Self::InvalidArgument => "invalid_argument",
            Self::PayloadTooLarge => "payload_too_large",
            Self::NotJoined => "not_joined",
            Self::RoomLimit => "room_limit",
            Self::ConnectionLimit => "connection_limit",
            Self::RateLimited => "rate_limited",
            Self::PresenceTooLarge => "presence_too_large",
            Self::VersionConflict => "version_conflict",
            Self::KeyReused => "key_reused",
            Self::NoBackend => "no_backend",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::UnknownOutcome => "unknown_outcome",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }
}

/// The reason why a connection ends. The number is the WebSocket close code: RFC 6455 section 7.4.1 where it fits.
/// Codes of the gateway from 4000 to 4499 mean "reconnect", from 4500 to 4999 "do not".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client closed.
    ClientLeft,
    /// The peer broke the WebSocket protocol.
    ProtocolError,
    /// A message of a kind the subprotocol does not use.
    UnsupportedData,
    /// A text message is not UTF-8.
    InvalidUtf8,
    /// A message with too many fragments, or sent too slowly.
    PolicyViolation,
    /// A frame or message is larger than its bound.
    MessageTooBig,
    /// The node shuts down; reconnect elsewhere after the advised delay.
    Draining,
    /// The client read too slowly; it may resume from its last position.
    SlowConsumer,
    /// No sign of life within the heartbeat's bound.
    HeartbeatTimeout,
    /// A backend closed the connection and allows a new one.
    Disconnected,
    /// Too many control frames, joins or publishes.
    Flooding,
    /// The node is out of memory, descriptors or queue space.
    Overloaded,
    /// Commands that cannot be read, or out of order.
    Misuse,
    /// No valid credential, or none in time.
    Unauthenticated,
    /// The token expired and was not refreshed.
    TokenExpired,
    /// A backend ended the session for good.
    Kicked,
    /// The user has as many connections as it may have.
    ConnectionLimit,
    /// The policy does not let this user connect.
    Forbidden,
}

impl CloseReason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 18] = [
        Self::ClientLeft,
        Self::ProtocolError,
        Self::UnsupportedData,
        Self::InvalidUtf8,
        Self::PolicyViolation,
        Self::MessageTooBig,
        Self::Draining,
        Self::SlowConsumer,
        Self::HeartbeatTimeout,
        Self::Disconnected,
        Self::Flooding,
        Self::Overloaded,
        Self::Misuse,
        Self::Unauthenticated,
        Self::TokenExpired,
        Self::Kicked,
        Self::ConnectionLimit,
        Self::Forbidden,
    ];

    /// Returns the WebSocket close code.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::ClientLeft => 1000,
            Self::ProtocolError => 1002,
            Self::UnsupportedData => 1003,
            Self::InvalidUtf8 => 1007,
            Self::PolicyViolation => 1008,
            Self::MessageTooBig => 1009,
            Self::Draining => 4000,
            Self::SlowConsumer => 4002,
            Self::HeartbeatTimeout => 4003,
            Self::Disconnected => 4004,
            Self::Flooding => 4005,
            Self::Overloaded => 4006,
            Self::Misuse => 4500,
            Self::Unauthenticated => 4501,
            Self::TokenExpired => 4502,
            Self::Kicked => 4503,
            Self::ConnectionLimit => 4504,
            Self::Forbidden => 4505,
        }
    }

    /// Returns the text of the close frame, which is also the value in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientLeft => "client_left",
            Self::ProtocolError => "protocol_error",
            Self::UnsupportedData => "unsupported_data",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::PolicyViolation => "policy_violation",
            Self::MessageTooBig => "message_too_big",
            Self::Draining => "draining",
            Self::SlowConsumer => "slow_consumer",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::Disconnected => "disconnected",
            Self::Flooding => "flooding",
            Self::Overloaded => "overloaded",
            Self::Misuse => "misuse",
            Self::Unauthenticated => "unauthenticated",
            Self::TokenExpired => "token_expired",
            Self::Kicked => "kicked",
            Self::ConnectionLimit => "connection_limit",
            Self::Forbidden => "forbidden",
        }
    }

    /// Reports whether a client should reconnect by itself.
    #[must_use]
    pub const fn may_reconnect(self) -> bool {
        matches!(self.code(), 4000..=4499)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_and_reasons_are_distinct() {
        let names: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        let codes: HashSet<_> = CloseReason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), CloseReason::ALL.len());
    }
}
