//! Lifetimes and ends in the forms in which providers write them. Pure.
//!
//! RFC 6749 knows one form, `expires_in` in seconds. Providers also send points in time, milliseconds, texts with a
//! unit, and values that make no sense. A value is read as what it plainly is.

use std::time::Duration;

use jiff::{SpanRelativeTo, Timestamp, Unit, civil::DateTime, fmt::rfc2822, tz::TimeZone};

use crate::model::WallTime;

/// When a token ends, as a response says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// This long after the response.
    In(Duration),
    /// At this time, by the provider's clock.
    At(WallTime),
}

/// What the name of a field promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promised {
    Lifetime,
    PointInTime,
}

/// A value that was read, and whether it had to be read otherwise than its field's name promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) ends: Ends,
    pub(super) senseless: bool,
}

/// Longer than any lifetime of a refresh token that a provider means.
pub(super) const LONGEST_REFRESH_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3_600);

/// Seconds since 1970, from 2001 on: as a lifetime this would be more than thirty years.
const EPOCH_SECONDS: std::ops::Range<f64> = 1e9..1e11;
const EPOCH_MILLIS: std::ops::Range<f64> = 1e12..1e14;

/// Reads a number; `None` if it is zero, negative or not finite.
///
/// A lifetime of more than `longest` makes no sense. If the number is a point in time or a lifetime in milliseconds, it
/// is read so; otherwise `longest` is taken.
pub(super) fn of_number(number: f64, promised: Promised, longest: Duration) -> Option<Read> {
    if !number.is_finite() || number <= 0.0 {
        return None;
    }
    let read = |ends, senseless| Some(Read { ends, senseless });
    let lifetime = promised == Promised::Lifetime;
    match number {
        seconds if seconds <= longest.as_secs_f64() => read(Ends::In(Duration::from_secs_f64(seconds)), !lifetime),
        seconds if EPOCH_SECONDS.contains(&seconds) => read(Ends::At(WallTime((seconds * 1e3) as i64)), lifetime),
        millis if EPOCH_MILLIS.contains(&millis) => read(Ends::At(WallTime(millis as i64)), lifetime),
        millis if millis / 1e3 <= longest.as_secs_f64() => read(Ends::In(Duration::from_secs_f64(millis / 1e3)), true),
        _ => read(Ends::In(longest), true),
    }
}

/// Reads a text: a number, a duration with a unit (`3600s`, `1h`, ISO 8601's `PT1H`), or a point in time (RFC 3339, ISO
/// 8601 without an offset as UTC, the date of HTTP and mail). `None` if it is none of these, or zero.
pub(super) fn of_text(text: &str, promised: Promised, longest: Duration) -> Option<Read> {
    let text = text.trim();
    if let Ok(number) = text.parse() {
        return of_number(number, promised, longest);
    }
    if let Some(time) = point_in_time(text) {
        return Some(Read { ends: Ends::At(time), senseless: promised == Promised::Lifetime });
    }
    let span: jiff::Span = text.parse().ok()?;
    let seconds = span.total((Unit::Second, SpanRelativeTo::days_are_24_hours())).ok()?;
    of_number(seconds, promised, longest)
}

/// A time before 2001 is the zero of some language, not an end.
fn point_in_time(text: &str) -> Option<WallTime> {
    let utc = |time: DateTime| time.to_zoned(TimeZone::UTC).map(|time| time.timestamp());
    let time = text
        .parse::<Timestamp>()
        .or_else(|_| text.parse().and_then(utc))
        .or_else(|_| rfc2822::parse(text).map(|time| time.timestamp()))
        .map(|time| WallTime(time.as_millisecond()))
        .or_else(|_| httpdate::parse_http_date(text).map(WallTime::from));
    time.ok().filter(|time| time.0 as f64 >= EPOCH_MILLIS.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAYS_400: Duration = Duration::from_secs(400 * 24 * 3_600);
    const HOUR: Ends = Ends::In(Duration::from_secs(3_600));
    /// 2026-11-29 10:00:00 UTC.
    const AT: Ends = Ends::At(WallTime(1_795_946_400_000));
    const LONGEST: Ends = Ends::In(DAYS_400);

    fn check(promised: Promised, table: &[(&str, Option<Ends>, bool)]) {
        for (text, ends, senseless) in table {
            let read = of_text(text, promised, DAYS_400);
            assert_eq!(read.map(|read| read.ends), *ends, "{text}");
            assert_eq!(read.is_some_and(|read| read.senseless), *senseless, "{text}");
        }
    }

    #[test]
    fn a_lifetime_is_read_as_what_it_plainly_is() {
        check(
            Promised::Lifetime,
            &[
                ("3600", Some(HOUR), false),
                (" 3600.0 ", Some(HOUR), false),
                ("3600s", Some(HOUR), false),
                ("3600 seconds", Some(HOUR), false),
                ("60m", Some(HOUR), false),
                ("60 min", Some(HOUR), false),
                ("1h", Some(HOUR), false),
                ("PT1H", Some(HOUR), false),
                ("3600000ms", Some(HOUR), false),
                ("2d", Some(Ends::In(Duration::from_secs(172_800))), false),
                ("34560000", Some(LONGEST), false),
                // Milliseconds: as seconds it would be nearly three years.
                ("86400000", Some(Ends::In(Duration::from_secs(86_400))), true),
                ("1795946400", Some(AT), true),
                ("1795946400000", Some(AT), true),
                ("2026-11-29T10:00:00Z", Some(AT), true),
                ("99999999999999999", Some(LONGEST), true),
                ("1e300", Some(LONGEST), true),
                ("500000000000", Some(LONGEST), true),
                ("0", None, false),
                ("0s", None, false),
                ("-1", None, false),
                ("-1h", None, false),
                ("", None, false),
                ("soon", None, false),
                ("never", None, false),
                ("inf", None, false),
                ("NaN", None, false),
            ],
        );
    }

    #[test]
    fn a_point_in_time_may_have_any_usual_form() {
        check(
            Promised::PointInTime,
            &[
                ("1795946400", Some(AT), false),
                ("1795946400.5", Some(Ends::At(WallTime(1_795_946_400_500))), false),
                ("1795946400000", Some(AT), false),
                ("2026-11-29T10:00:00Z", Some(AT), false),
                ("2026-11-29T10:00:00.000000000Z", Some(AT), false),
                ("2026-11-29T12:00:00+02:00", Some(AT), false),
                ("2026-11-29 10:00:00Z", Some(AT), false),
                ("2026-11-29T10:00:00", Some(AT), false),
                ("2026-11-29 10:00:00", Some(AT), false),
                ("Sun, 29 Nov 2026 10:00:00 GMT", Some(AT), false),
                ("Sun, 29 Nov 2026 10:00:00 +0000", Some(AT), false),
                ("2020-01-01T00:00:00Z", Some(Ends::At(WallTime(1_577_836_800_000))), false),
                ("3600", Some(HOUR), true),
                ("0001-01-01T00:00:00Z", None, false),
                ("1970-01-01T00:00:00Z", None, false),
                ("0", None, false),
                ("tomorrow", None, false),
            ],
        );
    }
}
