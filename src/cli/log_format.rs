//! Times and fields of log lines, as `tracing-subscriber` writes them, in less time: a line is written for each token that
//! is handed out.

use std::{
    cell::RefCell,
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::{RecordFields, VisitFmt as _, VisitOutput as _},
    fmt::{
        FormatFields,
        format::{DefaultVisitor, Writer},
        time::FormatTime,
    },
};

/// Writes the time in UTC with microseconds. The text of a second is made once.
pub(super) struct LogTime;

impl FormatTime for LogTime {
    #[expect(clippy::disallowed_methods, reason = "a log line has the real time")]
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write_time(SystemTime::now(), writer)
    }
}

fn write_time(time: SystemTime, writer: &mut impl fmt::Write) -> fmt::Result {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = since.subsec_micros();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() {
            let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            *text = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string();
            text.truncate("2027-01-15T08:00:00".len());
            *second = since.as_secs();
        }
        writer.write_str(text)
    })?;
    let mut digits = *b".000000Z";
    let mut rest = micros;
    for digit in digits[1..7].iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    writer.write_str(std::str::from_utf8(&digits).unwrap_or_default())
}

/// Writes the fields of a line as text.
pub(super) struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let is_coloured = writer.has_ansi_escapes();
        let mut visitor =
            TextVisitor { default: DefaultVisitor::new(writer, true), is_first: true, is_coloured, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result.and(visitor.default.finish())
    }
}

/// Writes texts that need no escapes, and leaves all else to the default visitor.
struct TextVisitor<'a> {
    default: DefaultVisitor<'a>,
    /// The default visitor writes no space before what it takes for the first field.
    is_first: bool,
    is_coloured: bool,
    result: fmt::Result,
}

impl Visit for TextVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        let name = field.name();
        if self.is_first || self.is_coloured || name == "message" || name.starts_with("r#") || !value.bytes().all(plain)
        {
            self.is_first = false;
            return self.default.record_str(field, value);
        }
        let writer = self.default.writer();
        let parts = [" ", name, "=\"", value, "\""];
        let written = parts.into_iter().try_for_each(|part| writer.write_str(part));
        self.result = self.result.and(written);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.is_first = false;
        self.default.record_error(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.is_first = false;
        self.default.record_debug(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use tracing::subscriber::with_default;
    use tracing_subscriber::fmt::{MakeWriter, format};

    use super::*;

    #[test]
    fn times_are_written_with_microseconds() {
        for (micros, text) in [
            (1_800_000_000_000_000, "2027-01-15T08:00:00.000000Z"),
            (1_800_000_000_000_001, "2027-01-15T08:00:00.000001Z"),
            (1_800_000_000_999_999, "2027-01-15T08:00:00.999999Z"),
            (1_800_000_001_120_000, "2027-01-15T08:00:01.120000Z"),
            (0, "1970-01-01T00:00:00.000000Z"),
        ] {
            let mut written = String::new();
            write_time(UNIX_EPOCH + Duration::from_micros(micros), &mut written).unwrap();
            assert_eq!(written, text);
        }
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Sink {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    /// Lines with texts of every kind, in different places.
    fn log() {
        for text in ["plain", "", "a \"b\" \\ c", "line\nbreak", "\u{1b}[31mred", "ä", "~ {}=!"] {
            tracing::info!(text, number = 7, other = text, "a message");
            tracing::info!(text, number = 7);
            tracing::info!(number = 7, text);
            tracing::warn!(missing = None::<&str>, given = Some(text), grant.id = text, shown = %text, "{text}");
            tracing::info!(message = text, text);
            tracing::info!(r#type = text, error = &io::Error::other(text) as &dyn std::error::Error, end = text);
        }
    }

    #[test]
    fn fields_are_written_as_by_default() {
        for is_coloured in [false, true] {
            let (ours, theirs) = (Sink::default(), Sink::default());
            let of =
                |sink: &Sink| tracing_subscriber::fmt().without_time().with_ansi(is_coloured).with_writer(sink.clone());
            with_default(of(&ours).fmt_fields(TextFields).finish(), log);
            with_default(of(&theirs).fmt_fields(format::DefaultFields::new()).finish(), log);
            let text = |sink: &Sink| String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text(&ours), text(&theirs));
            assert!(text(&ours).lines().count() >= 7 * 6);
        }
    }
}
