//! Event streams (Server-Sent Events) of the gateway.

use super::{Heard, event};

/// Reads a block of a stream. `place` is where the last stamp stood.
pub(super) fn hear(block: &[u8], place: &mut usize) -> Heard {
    if block.starts_with(b":") {
        return Heard::Ping;
    }
    let mut lines = block.split(|byte| *byte == b'\n');
    let name = lines.find_map(|line| line.strip_prefix(b"event: "));
    match name.and_then(|name| name.strip_prefix(b"roomcast:")) {
        None => event(block, place),
        Some(b"joined") => Heard::Joined { exact: false },
        Some(b"resync") => Heard::Resync,
        Some(b"refused" | b"closing") => Heard::Refused(String::from_utf8_lossy(block).into_owned()),
        Some(_) => Heard::Other,
    }
}
