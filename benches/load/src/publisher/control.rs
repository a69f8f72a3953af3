//! Publishing to a peer over its control connection.
//!
//! A message is the length of the rest, the length of the room's name, the room and the text, lengths in network order of
//! 4 and 2 bytes. The texts have the shape and the size of the gateway's own events, so that all write the same bytes.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Burst, Counts, Style};
use crate::crowd::room_name;
use crate::stamp::Stamp;
use roomcast::cli::failure::Failure;
use roomcast::proto::v1::Retention;

/// In place of what the gateway draws at random: 16 and 32 digits.
const EPOCH: &str = "0123456789abcdef";
const ID: &str = "0123456789abcdef0123456789abcdef";

/// The connection, and a buffer for one burst.
pub(super) struct Control {
    stream: TcpStream,
    style: Style,
    counts: Arc<Counts>,
    out: Vec<u8>,
}

impl Control {
    pub(super) fn connect(address: SocketAddr, style: Style, counts: Arc<Counts>) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        Ok(Self {
            stream: stream.map_err(|error| Failure::Undone(format!("cannot publish to {address}: {error}")))?,
            style,
            counts,
            out: Vec::new(),
        })
    }

    /// A burst is one write.
    pub(super) fn send(&mut self, burst: &Burst) -> Result<(), String> {
        let room = room_name(&self.style.run, burst.room);
        self.out.clear();
        for number in burst.first..burst.first + burst.count {
            let stamp = Stamp {
                number,
                due_us: burst.due_us,
                room: burst.room,
            };
            frame(&mut self.out, &room, &self.style.event(&room, stamp));
        }
        self.stream
            .write_all(&self.out)
            .map_err(|error| format!("publishing broke off: {error}"))?;
        // There is no answer: it counts once it is on its way.
        self.counts.acknowledged.fetch_add(burst.count, Ordering::Release);
        Ok(())
    }
}

fn frame(out: &mut Vec<u8>, room: &str, text: &str) {
    let length = u32::try_from(2 + room.len() + text.len()).unwrap_or(u32::MAX);
    out.extend(length.to_be_bytes());
    out.extend(u16::try_from(room.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(room.bytes());
    out.extend(text.bytes());
}

impl Style {
    /// Returns the JSON that the gateway would write for this event.
    fn event(&self, room: &str, stamp: Stamp) -> String {
        let payload = stamp.payload(self.payload_bytes);
        let time_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let (retention, link) = match self.retention {
            Retention::Ephemeral => ("ephemeral", String::new()),
            Retention::LastValue => ("last_value", link(stamp.number)),
            Retention::Reliable | Retention::Unspecified => ("reliable", link(stamp.number)),
        };
        format!(
            "{{\"event\":{{\"room\":\"{room}\",\"id\":\"{ID}\",\"eventName\":\"bench\",{link}\"timeMs\":{time_ms},\
             \"retention\":\"{retention}\",\"payload\":{payload}}}}}"
        )
    }
}

/// The fields by which a member sees gaps; the one before the first event is left out, as the gateway does.
fn link(number: u64) -> String {
    let offset = number + 1;
    match number {
        0 => format!("\"epoch\":\"{EPOCH}\",\"offset\":{offset},"),
        _ => format!("\"epoch\":\"{EPOCH}\",\"offset\":{offset},\"previousOffset\":{number},"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::With;

    #[test]
    fn a_message_names_its_room_and_both_lengths() {
        let mut out = Vec::new();
        frame(&mut out, "ab", "xyz");
        assert_eq!(out, b"\0\0\0\x07\0\x02abxyz");
    }

    #[test]
    fn the_text_is_an_event_as_the_gateway_writes_it() {
        let style = Style {
            run: "r".to_owned(),
            tenant: "default".to_owned(),
            payload_bytes: 64,
            retention: Retention::Reliable,
            with: With::Unary,
            lanes: 1,
        };
        let stamp = Stamp {
            number: 7,
            due_us: 1,
            room: 0,
        };
        let text = style.event("r", stamp);
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<_> = event["event"].as_object().unwrap().keys().cloned().collect();
        let mut expected = [
            "room",
            "id",
            "eventName",
            "epoch",
            "offset",
            "previousOffset",
            "timeMs",
            "retention",
            "payload",
        ]
        .map(str::to_owned);
        expected.sort();
        let mut keys = keys;
        keys.sort();
        assert_eq!(keys, expected);
        assert_eq!(Stamp::find(text.as_bytes(), &mut 0), Some(stamp));
    }
}
