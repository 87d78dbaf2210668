//! Times for people, and the clock that commands go by.

use std::time::{Duration, SystemTime};

use token_supervisor::api::time::rfc3339;

/// Formats the time to the second: `2027-01-15T08:00:00Z`.
pub(crate) fn to_the_second(time: SystemTime) -> String {
    rfc3339(whole_seconds(time))
}

/// Omits fractions of a second.
pub(super) fn whole_seconds(time: SystemTime) -> SystemTime {
    let whole = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    SystemTime::UNIX_EPOCH + Duration::from_secs(whole)
}

/// Reads a whole number and its unit, such as `90d`: `s`, `m`, `h`, `d` or `w`; at most a century.
///
/// # Errors
/// What the text must be.
pub(super) fn lifetime(text: &str) -> Result<Duration, &'static str> {
    const UNITS: [(char, u64); 5] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400), ('w', 7 * 86_400)];
    let seconds = UNITS.iter().find_map(|(unit, seconds)| {
        let number = text.strip_suffix(*unit)?.parse::<u64>().ok()?;
        number.checked_mul(*seconds)
    });
    let seconds = seconds.filter(|seconds| (1..=100 * 366 * 86_400).contains(seconds));
    seconds.map(Duration::from_secs).ok_or("must be a number and its unit (s, m, h, d, w), such as 90d")
}

/// Formats the time with its distance from now: `2027-01-15T08:00:00Z (in 60 min)`.
pub(super) fn for_people(time: SystemTime) -> String {
    relative(time, now())
}

fn relative(time: SystemTime, now: SystemTime) -> String {
    let text = to_the_second(time);
    match time.duration_since(now) {
        Ok(left) => format!("{text} (in {})", rough(left)),
        Err(error) => format!("{text} ({} ago)", rough(error.duration())),
    }
}

/// Formats a duration rounded to one unit.
pub(super) fn rough(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_millis() >= 500);
    let whole = |unit: u64| (seconds + unit / 2) / unit;
    match (seconds, whole(60), whole(3_600)) {
        (..120, ..) => format!("{seconds} s"),
        (_, minutes @ ..120, _) => format!("{minutes} min"),
        (_, _, hours @ ..48) => format!("{hours} h"),
        _ => format!("{} d", whole(86_400)),
    }
}

#[expect(clippy::disallowed_methods, reason = "output is relative to the clock that its readers see")]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "commands wait by the machine's clock")]
pub(super) async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_with_their_distance_from_now() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let after = |seconds| relative(now + Duration::from_millis(120) + Duration::from_secs(seconds), now);
        assert_eq!(after(59), "2027-01-15T08:00:59Z (in 59 s)");
        assert_eq!(after(3_599), "2027-01-15T08:59:59Z (in 60 min)");
        assert_eq!(after(7_199), "2027-01-15T09:59:59Z (in 2 h)");
        assert_eq!(after(8 * 3_600), "2027-01-15T16:00:00Z (in 8 h)");
        assert_eq!(relative(now - Duration::from_secs(3 * 86_400), now), "2027-01-12T08:00:00Z (3 d ago)");
    }

    #[test]
    fn a_lifetime_has_a_unit() {
        for (text, seconds) in [("90d", 7_776_000), ("1s", 1), ("2m", 120), ("12h", 43_200), ("2w", 1_209_600)] {
            assert_eq!(lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "d", "90", "0d", "-1d", "1.5d", "1y", "101000d", "18446744073709551615w", "9 d", "९d"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
