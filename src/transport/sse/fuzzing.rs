//! Targets of the fuzzer for what clients of event streams send: `fuzz/`, and the short run in the tests. Each takes bytes of a client
//! and panics where an invariant does not hold.

use super::id::{self, LastEventId};
use super::request;

/// A cursor's longest text, which has to fit into a header.
const ID_BYTES_MAX: usize = 9_000;

/// Parses a `Last-Event-ID`; the cursor that is written again is read as the same.
pub fn last_event_id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let LastEventId::From(cursor) = id::parse(text) else {
        return;
    };
    let written = id::text(&cursor);
    assert!(written.len() <= ID_BYTES_MAX, "{} bytes", written.len());
    let LastEventId::From(again) = id::parse(&written) else {
        panic!("{written} ends the client");
    };
    let positions = |cursor: &crate::session::Cursor| cursor.positions().collect::<Vec<_>>();
    assert_eq!(positions(&again), positions(&cursor), "{written}");
}

/// Parses the query of a request.
pub fn query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(rooms) = request::rooms_named(text) {
        assert!(rooms <= text.matches("room").count(), "{rooms} rooms of nothing");
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::mutator::run;

    #[test]
    fn mutated_last_event_ids_hold_the_invariants() {
        run("sse_last_event_id", super::last_event_id);
    }

    #[test]
    fn mutated_queries_hold_the_invariants() {
        run("sse_query", super::query);
    }
}
