//! Times and lifetimes as members of bodies: written as RFC 3339 in UTC, read also as seconds since the epoch.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Returns the time as `2027-01-15T08:00:00Z`. A time after the year 9999 becomes the last moment of that year.
pub fn rfc3339(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or(Timestamp::MAX).to_string()
}

/// Returns the time that this text gives: RFC 3339, or seconds since the epoch.
///
/// # Errors
/// What the text must be, without the text itself.
pub fn parse(text: &str) -> Result<SystemTime, &'static str> {
    TimeInput::Text(text.to_owned()).read()
}

/// A member that is a time or null, for `#[serde(with = "..")]`.
pub mod optional {
    use std::time::SystemTime;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    /// Writes RFC 3339 or null.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(super::rfc3339).serialize(serializer)
    }

    /// Reads null or what [`parse`](super::parse) reads.
    ///
    /// # Errors
    /// Those of the deserializer, and what the text must be.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.as_deref().map(super::parse).transpose().map_err(D::Error::custom)
    }
}

/// A time as a caller writes it.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum TimeInput {
    Seconds(f64),
    Text(String),
}

/// As seconds, the year 5138; as milliseconds, 1973.
const LOOKS_LIKE_MILLISECONDS: f64 = 100_000_000_000.0;

impl TimeInput {
    /// # Errors
    /// What the time must be.
    pub(crate) fn read(&self) -> Result<SystemTime, &'static str> {
        const FORM: &str = "a time is RFC 3339 such as 2027-01-15T08:00:00Z, or seconds since the epoch";
        let seconds = match self {
            Self::Seconds(seconds) => *seconds,
            Self::Text(text) => match text.parse::<Timestamp>() {
                Ok(time) => return Ok(time.into()),
                Err(_) => text.parse().map_err(|_| FORM)?,
            },
        };
        if seconds.abs() >= LOOKS_LIKE_MILLISECONDS {
            return Err("this time looks like milliseconds: give seconds since the epoch, or RFC 3339");
        }
        let after = Duration::try_from_secs_f64(seconds).map_err(|_| FORM)?;
        SystemTime::UNIX_EPOCH.checked_add(after).ok_or(FORM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms_and_milliseconds_are_refused() {
        let read = |json: &str| serde_json::from_str::<TimeInput>(json).unwrap().read();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for json in ["1800000000", "\"1800000000\"", "\"2027-01-15T08:00:00Z\"", "\"2027-01-15T09:00:00+01:00\""] {
            assert_eq!(read(json), Ok(time), "{json}");
        }
        for json in ["1800000000000", "\"1800000000000\"", "-1", "\"soon\"", "\"\"", "1e300", "\"NaN\"", "\"inf\""] {
            assert!(read(json).is_err(), "{json}");
        }
        assert_eq!(rfc3339(time), "2027-01-15T08:00:00Z");
        assert_eq!(rfc3339(time + Duration::from_millis(120)), "2027-01-15T08:00:00.12Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50)), "9999-12-30T22:00:00.999999999Z");
    }
}
