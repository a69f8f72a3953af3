//! The well-known duration type, read within its own bounds. Generated code accepts any numbers. A value out of bounds
//! was written by a client that computes wrongly, and is no duration.

use std::time::Duration;

const NANOS_MAX: i32 = 999_999_999;

/// Reads a `google.protobuf.Duration` that is not negative.
#[must_use]
pub fn duration(wire: prost_types::Duration) -> Option<Duration> {
    /// 10,000 years, as duration.proto says.
    const SECONDS_MAX: u64 = 315_576_000_000;
    let seconds = u64::try_from(wire.seconds)
        .ok()
        .filter(|seconds| *seconds <= SECONDS_MAX)?;
    Some(Duration::new(seconds, nanos(wire.nanos)?))
}

fn nanos(nanos: i32) -> Option<u32> {
    u32::try_from(nanos).ok().filter(|_| nanos <= NANOS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_the_bounds_of_its_type() {
        let read = |seconds, nanos| duration(prost_types::Duration { seconds, nanos });
        assert_eq!(read(1, 500_000_000), Some(Duration::from_millis(1500)));
        assert_eq!(read(0, NANOS_MAX), Some(Duration::from_nanos(999_999_999)));
        assert_eq!(
            read(315_576_000_000, 0).map(|long| long.as_secs()),
            Some(315_576_000_000)
        );
        for (seconds, nanos) in [
            (1, 1_000_000_000),
            (1, 2_000_000_000),
            (1, -1),
            (-1, 0),
            (0, -1),
            (315_576_000_001, 0),
            (i64::MAX, 0),
            (i64::MIN, i32::MIN),
        ] {
            assert_eq!(read(seconds, nanos), None, "{seconds} {nanos}");
        }
    }
}
