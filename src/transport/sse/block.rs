//! Blocks of an event stream (HTML standard, "Server-sent events", section "Parsing an event stream").

/// Writes one event. A line end within the data would end the field, so each line has one of its own; names and numbers have
/// none.
pub(super) fn event(out: &mut Vec<u8>, name: &[&str], data: &[u8]) {
    out.extend_from_slice(b"event: ");
    for part in name {
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'\n');
    for line in lines(data) {
        // The space is dropped by the reader, and keeps one that the line begins with.
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// Splits at CR, LF and CRLF. Nothing is one empty line: an event without data is none.
fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
            rest = None;
            return Some(text);
        };
        let is_pair = text[end..].starts_with(b"\r\n");
        rest = Some(&text[end + 1 + usize::from(is_pair)..]);
        Some(&text[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_the_data_has_a_field_of_its_own() {
        for (data, fields) in [
            ("{}", "data: {}\n"),
            ("", "data: \n"),
            (
                " [1,\r\n2,\r3,\n\n4]",
                "data:  [1,\ndata: 2,\ndata: 3,\ndata: \ndata: 4]\n",
            ),
            ("1\n", "data: 1\ndata: \n"),
        ] {
            let mut out = Vec::new();
            event(&mut out, &["a:", "b"], data.as_bytes());
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("event: a:b\n{fields}\n"),
                "{data:?}"
            );
        }
    }
}
