//! The stamp in each event, and the search for it in any frame of a server.

/// The number of an event in its room, when it was due, and the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) number: u64,
    /// Microseconds of the run's clock.
    pub(super) due_us: u64,
    pub(super) room: u32,
}

/// The first bytes of a stamp, plain and where its payload travels as text within JSON (Socket.IO).
const PLAIN: &[u8] = b"{\"n\":";
const ESCAPED: &[u8] = b"{\\\"n\\\":";

/// The most bytes between two numbers of a stamp.
const GAP_MAX: usize = 8;

impl Stamp {
    /// The smallest payload a stamp fits into.
    pub(super) const BYTES_MIN: u32 = 64;

    /// A JSON payload of exactly this many bytes.
    pub(super) fn payload(self, bytes: usize) -> String {
        let mut text = format!(
            "{{\"n\":{},\"t\":{},\"r\":{},\"p\":\"",
            self.number, self.due_us, self.room
        );
        let padding = bytes.saturating_sub(text.len() + 2);
        text.extend(std::iter::repeat_n('x', padding));
        text.push_str("\"}");
        text
    }

    /// Finds the stamp in a message. `place` is where the last one stood: frames of one run are alike, and looking
    /// there first saves the search.
    pub(super) fn find(message: &[u8], place: &mut usize) -> Option<Self> {
        if let Some(rest) = message.get(*place..).and_then(after_mark) {
            return Self::read(rest);
        }
        let found = (0..message.len()).find(|at| message[*at] == b'{' && after_mark(&message[*at..]).is_some())?;
        *place = found;
        Self::read(after_mark(&message[found..])?)
    }

    /// Three numbers with a few other bytes between them.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (number, rest) = digits(bytes)?;
        let (due_us, rest) = digits(skip(rest)?)?;
        let (room, _) = digits(skip(rest)?)?;
        Some(Self {
            number,
            due_us,
            room: room.try_into().ok()?,
        })
    }
}

fn after_mark(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(PLAIN).or_else(|| bytes.strip_prefix(ESCAPED))
}

fn digits(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let count = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = bytes.split_at(count);
    let add = |number: u64, digit: &u8| number.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    let number = digits.iter().try_fold(0, add)?;
    (count > 0).then_some((number, rest))
}

fn skip(bytes: &[u8]) -> Option<&[u8]> {
    let next = bytes.iter().take(GAP_MAX).position(u8::is_ascii_digit)?;
    Some(&bytes[next..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Stamp = Stamp {
        number: 1_000_000,
        due_us: 7_200_000_000,
        room: 100_000,
    };

    #[test]
    fn a_payload_has_the_size_asked_for_and_gives_its_stamp_back() {
        let small = Stamp {
            number: 0,
            due_us: 0,
            room: 0,
        };
        for stamp in [small, LARGE] {
            for bytes in [Stamp::BYTES_MIN as usize, 200] {
                let payload = stamp.payload(bytes);
                assert_eq!(payload.len(), bytes);
                assert_eq!(Stamp::find(payload.as_bytes(), &mut 0), Some(stamp));
            }
        }
    }

    #[test]
    fn a_stamp_is_found_wherever_it_stands_and_however_it_is_quoted() {
        let payload = LARGE.payload(200);
        let event = format!("{{\"event\":{{\"room\":\"{{n\",\"payload\":{payload}}}}}");
        let quoted = format!("42[\"event\",{}]", serde_json::to_string(&event).unwrap());
        for text in [&event, &quoted] {
            for place in [0, 30, 10_000] {
                let mut place = place;
                assert_eq!(Stamp::find(text.as_bytes(), &mut place), Some(LARGE), "{text}");
                let found = place;
                assert_eq!(Stamp::find(text.as_bytes(), &mut place), Some(LARGE));
                assert_eq!(place, found, "the second search looks at the same place");
            }
        }
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        for text in [
            "",
            "{\"n\":",
            "{\"n\":1}",
            "{\"n\":1,\"t\":2}",
            "{\"n\":x,\"t\":2,\"r\":3}",
            "{\"event\":{}}",
        ] {
            assert_eq!(Stamp::find(text.as_bytes(), &mut 0), None, "{text}");
        }
    }
}
