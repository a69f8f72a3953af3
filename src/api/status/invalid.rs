//! Kinds of invalid arguments.

/// Kind of an invalid argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// The tenant.
    Tenant,
    /// A room name.
    Room,
    /// The targets: none, too many, or the same twice.
    Target,
    /// The event name.
    EventName,
    /// The payload: none, or not acceptable JSON.
    Payload,
    /// The payload is larger than its bound.
    PayloadTooLarge,
    /// The idempotency key.
    IdempotencyKey,
    /// The page token.
    PageToken,
    /// The cursor of a subscription.
    Cursor,
    /// Another field.
    Field,
    /// More events than a call may hold.
    BatchTooLarge,
    /// The message does not decode.
    Undecodable,
}

impl Invalid {
    /// Every kind, in the order of the documentation.
    #[cfg(test)]
    pub(in crate::api) const ALL: [Self; 12] = [
        Self::Tenant,
        Self::Room,
        Self::Target,
        Self::EventName,
        Self::Payload,
        Self::PayloadTooLarge,
        Self::IdempotencyKey,
        Self::PageToken,
        Self::Cursor,
        Self::Field,
        Self::BatchTooLarge,
        Self::Undecodable,
    ];

    /// Returns the stable reason.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Tenant => "INVALID_TENANT",
            Self::Room => "INVALID_ROOM",
            Self::Target => "INVALID_TARGET",
            Self::EventName => "INVALID_EVENT_NAME",
            Self::Payload => "INVALID_PAYLOAD",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::IdempotencyKey => "INVALID_IDEMPOTENCY_KEY",
            Self::PageToken => "INVALID_PAGE_TOKEN",
            Self::Cursor => "INVALID_CURSOR",
            Self::Field => "INVALID_FIELD",
            Self::BatchTooLarge => "BATCH_TOO_LARGE",
            Self::Undecodable => "UNDECODABLE_MESSAGE",
        }
    }
}
