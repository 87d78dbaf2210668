//! Parses and formats times.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// Formats the time as `2027-01-15T08:00:00Z`. Later times than the year 9999 are shown as its last second.
pub(super) fn rfc3339(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX).to_string()
}

/// Serializes an optional time of a body.
pub(super) mod optional {
    use std::time::SystemTime;

    use serde::{Serialize as _, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands it over like this")]
    pub(in super::super) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(super::rfc3339).serialize(serializer)
    }
}

/// Parses RFC 3339 or seconds since the epoch.
pub(super) fn parse(text: &str) -> Result<SystemTime, &'static str> {
    const FORM: &str = "must be RFC 3339 such as 2027-01-15T08:00:00Z, or seconds since the epoch";
    // In seconds this is the year 5138, in milliseconds 1973.
    const LOOKS_LIKE_MILLISECONDS: u64 = 100_000_000_000;
    match text.parse::<Timestamp>() {
        Ok(time) => Ok(time.into()),
        Err(_) => match text.parse().map_err(|_| FORM)? {
            LOOKS_LIKE_MILLISECONDS.. => Err("looks like milliseconds; use seconds since the epoch, or RFC 3339"),
            seconds => Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
        },
    }
}

/// Formats the time to the second: `2027-01-15T08:00:00Z`.
pub(super) fn to_the_second(time: SystemTime) -> String {
    let whole = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(whole))
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
    fn both_forms_of_time_are_parsed_and_milliseconds_are_rejected() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for text in ["1800000000", "2027-01-15T08:00:00Z", "2027-01-15T09:00:00+01:00"] {
            assert_eq!(parse(text), Ok(time), "{text}");
        }
        for text in ["1800000000000", "-1", "soon", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

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
}
