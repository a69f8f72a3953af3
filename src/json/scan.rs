//! Scans a JSON text in one pass by the grammar of RFC 8259. Nothing is evaluated, and nothing recurses.

use std::ops::Range;

use super::Json;

/// A violation of the grammar, and its byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) what: &'static str,
    pub(super) at: usize,
}

/// The key that reaches the prototype of an object when a careless reader merges it.
const PROTO: &[u8] = b"__proto__";

/// The state of the scanner in a text.
pub(super) struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
    /// One bit per level, set for an object; the innermost level is the lowest bit.
    objects: u64,
    depth: usize,
}

/// The tokens that may follow.
enum Next {
    Value,
    /// A value, or the end of an empty array.
    FirstElement,
    /// A key, or the end of an empty object.
    FirstKey,
    Key,
    /// A comma or the end of the innermost level.
    After,
}

/// The notation of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// As the text that it is.
    Plainly,
    WithEscapes,
}

const _: () = assert!(Json::DEPTH_MAX <= 64, "a level has a bit");

impl<'t> Scanner<'t> {
    pub(super) const fn new(text: &'t [u8]) -> Self {
        Self {
            text,
            at: 0,
            objects: 0,
            depth: 0,
        }
    }

    /// Scans the whole text.
    pub(super) fn text(mut self) -> Result<(), Flaw> {
        // Validated as a whole, which is faster than along with the strings; outside them only ASCII is accepted
        // anyway.
        if let Err(error) = std::str::from_utf8(self.text) {
            self.at = error.valid_up_to();
            return Err(self.flaw("invalid UTF-8"));
        }
        self.one_value()?;
        match self.skip_blank() {
            None => Ok(()),
            Some(_) => Err(self.flaw("trailing characters")),
        }
    }

    /// Scans one value, up to the byte after it.
    fn one_value(&mut self) -> Result<(), Flaw> {
        let mut next = Next::Value;
        loop {
            let byte = self.skip_blank();
            next = match (next, byte) {
                (_, None) => return Err(self.flaw("unexpected end of the text")),
                (Next::After, Some(byte)) => self.after(byte)?,
                (Next::FirstElement, Some(b']')) | (Next::FirstKey, Some(b'}')) => self.leave(),
                (Next::Value | Next::FirstElement, Some(byte)) => self.value(byte)?,
                (Next::Key | Next::FirstKey, Some(b'"')) => self.key()?,
                (Next::Key | Next::FirstKey, Some(_)) => return Err(self.flaw("expected a key")),
            };
            if self.depth == 0 && matches!(next, Next::After) {
                return Ok(());
            }
        }
    }

    /// Scans an object outside all levels. `member` is called with the place of each key, and scans its value. `None` when
    /// one of them cannot be scanned, or a key is written with an escape.
    pub(super) fn object(&mut self, mut member: impl FnMut(&mut Self, Range<usize>) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        if self.skip_blank()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            if self.skip_blank()? != b'"' {
                return None;
            }
            let start = self.at + 1;
            if self.string().ok()? == Written::WithEscapes {
                return None;
            }
            let key = start..self.at - 1;
            self.take(b':')?;
            member(self, key)?;
            if self.skip_blank()? != b',' {
                return self.take(b'}');
            }
            self.at += 1;
        }
    }

    /// Scans one value outside all levels; returns its place.
    pub(super) fn value_range(&mut self) -> Option<Range<usize>> {
        self.skip_blank()?;
        let start = self.at;
        self.one_value().ok()?;
        Some(start..self.at)
    }

    /// Reports whether only blanks follow.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.skip_blank().is_none()
    }

    /// Scans this byte, after blanks.
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.skip_blank()? == byte).then(|| self.at += 1)
    }

    const fn flaw(&self, what: &'static str) -> Flaw {
        Flaw { what, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_blank(&mut self) -> Option<u8> {
        while let Some(byte) = self.peek() {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    const fn enter(&mut self, is_object: bool) -> Result<(), Flaw> {
        if self.depth == Json::DEPTH_MAX {
            return Err(self.flaw("nested deeper than 32 levels"));
        }
        self.at += 1;
        self.depth += 1;
        self.objects = self.objects << 1 | is_object as u64;
        Ok(())
    }

    const fn leave(&mut self) -> Next {
        self.at += 1;
        self.depth -= 1;
        self.objects >>= 1;
        Next::After
    }

    const fn after(&mut self, byte: u8) -> Result<Next, Flaw> {
        match (byte, self.objects & 1 == 1) {
            (b',', true) => {
                self.at += 1;
                Ok(Next::Key)
            }
            (b',', false) => {
                self.at += 1;
                Ok(Next::Value)
            }
            (b'}', true) | (b']', false) => Ok(self.leave()),
            (_, true) => Err(self.flaw("expected `,` or `}`")),
            (_, false) => Err(self.flaw("expected `,` or `]`")),
        }
    }

    fn value(&mut self, byte: u8) -> Result<Next, Flaw> {
        match byte {
            b'{' => return self.enter(true).map(|()| Next::FirstKey),
            b'[' => return self.enter(false).map(|()| Next::FirstElement),
            b'"' => drop(self.string()?),
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => return Err(self.flaw("expected a value")),
        }
        Ok(Next::After)
    }

    fn key(&mut self) -> Result<Next, Flaw> {
        let start = self.at;
        self.string()?;
        if is_proto(&self.text[start + 1..self.at - 1]) {
            return Err(self.flaw("the key `__proto__` is not allowed"));
        }
        if self.skip_blank() != Some(b':') {
            return Err(self.flaw("expected `:`"));
        }
        self.at += 1;
        Ok(Next::Value)
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), Flaw> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.flaw("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Scans `-`, an integer without leading zeros, and an optional fraction and exponent.
    fn number(&mut self) -> Result<(), Flaw> {
        self.skip(|byte| byte == b'-', 1);
        if self.skip(|byte| byte == b'0', 1) == 0 {
            self.digits()?;
        }
        if self.skip(|byte| byte == b'.', 1) == 1 {
            self.digits()?;
        }
        if self.skip(|byte| matches!(byte, b'e' | b'E'), 1) == 1 {
            self.skip(|byte| matches!(byte, b'+' | b'-'), 1);
            self.digits()?;
        }
        // A digit after a leading zero, or a letter, is no part of a number: the check after the value refuses it.
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Flaw> {
        match self.skip(|byte| byte.is_ascii_digit(), usize::MAX) {
            0 => Err(self.flaw("expected a digit")),
            _ => Ok(()),
        }
    }

    /// Skips bytes of a kind; returns their number.
    fn skip(&mut self, is: impl Fn(u8) -> bool, max: usize) -> usize {
        let bytes = self.text[self.at..].iter().take(max);
        let count = bytes.take_while(|byte| is(**byte)).count();
        self.at += count;
        count
    }

    /// Scans a string, up to the byte after its closing quote.
    fn string(&mut self) -> Result<Written, Flaw> {
        self.at += 1;
        let mut written = Written::Plainly;
        loop {
            self.at += plain_len(&self.text[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(written);
                }
                Some(b'\\') => {
                    written = Written::WithEscapes;
                    self.escape()?;
                }
                Some(_) => return Err(self.flaw("a control character in a string")),
                None => return Err(self.flaw("unexpected end of the text")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Flaw> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => self.unicode(),
            _ => Err(self.flaw("an escape that is none")),
        }
    }

    /// Scans `\uXXXX`, or the two of a surrogate pair.
    fn unicode(&mut self) -> Result<(), Flaw> {
        let flaw = self.flaw("a lone surrogate");
        match self.unit()? {
            0xdc00..=0xdfff => Err(flaw),
            0xd800..=0xdbff => {
                if !self.text[self.at..].starts_with(b"\\u") {
                    return Err(flaw);
                }
                match self.unit()? {
                    0xdc00..=0xdfff => Ok(()),
                    _ => Err(flaw),
                }
            }
            _ => Ok(()),
        }
    }

    fn unit(&mut self) -> Result<u16, Flaw> {
        let digits = self.text.get(self.at + 2..self.at + 6);
        let unit = digits.and_then(unit_of);
        let unit = unit.ok_or_else(|| self.flaw("an escape that is none"))?;
        self.at += 6;
        Ok(unit)
    }
}

/// Returns the number of bytes before the first that a string treats specially: a quote, a backslash, a control
/// character. Most of a text is in strings, so eight bytes are tested together.
fn plain_len(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let special = specials(u64::from_le_bytes(*word));
        if special != 0 {
            return index * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

/// Marks the highest bit of the special bytes among eight. The lowest mark is exact; one above it may be wrong, because
/// the carry of a special byte can reach the next.
const fn specials(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    let (quotes, backslashes) = (word ^ (ONES * b'"' as u64), word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = quotes.wrapping_sub(ONES) & !quotes;
    let backslash = backslashes.wrapping_sub(ONES) & !backslashes;
    (control | quote | backslash) & HIGHS
}

fn unit_of(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0, |unit: u16, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    })
}

/// Reports whether a key is `__proto__`; its characters may be written as escapes.
fn is_proto(written: &[u8]) -> bool {
    if written.len() < PROTO.len() || !written.contains(&b'\\') {
        return written == PROTO;
    }
    let mut rest = written;
    for expected in PROTO {
        let (byte, after) = match rest {
            [b'\\', b'u', digits @ ..] if digits.len() >= 4 => {
                let (digits, after) = digits.split_at(4);
                (unit_of(digits), after)
            }
            [byte, after @ ..] => (Some(u16::from(*byte)), after),
            [] => return false,
        };
        if byte != Some(u16::from(*expected)) {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn the_first_special_byte_ends_what_is_plain(
            bytes in proptest::collection::vec(proptest::sample::select(vec![
                b'"', b'\\', 0, 0x1f, 0x20, b'!', b'#', b'[', b']', b'a', b'x', 0x7f, 0x80, 0xa2, 0xdc, 0xff,
            ]), 0..40),
        ) {
            let special = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
            proptest::prop_assert_eq!(plain_len(&bytes), special.unwrap_or(bytes.len()));
        }
    }
}
