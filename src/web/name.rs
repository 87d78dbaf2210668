//! The name of a request, for logs and support: the caller's, if it has a usable one. Bad input is ignored.

use actix_web::http::header::{HeaderMap, HeaderName};

use super::problem::{REQUEST_ID, request_id};

/// How logs, problems and the response name a request.
pub(super) struct RequestName {
    /// The `X-Request-Id` of the request, or a new one.
    pub(super) id: String,
    /// The trace that the request belongs to (W3C Trace Context), as 32 hexadecimal digits.
    pub(super) trace_id: Option<String>,
}

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// A longer `X-Request-Id` is not taken over.
const LONGEST_ID: usize = 128;

impl RequestName {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let id = single(headers, &REQUEST_ID).filter(|id| is_safe(id)).map_or_else(request_id, str::to_owned);
        Self { id, trace_id: single(headers, &TRACEPARENT).and_then(trace_id).map(str::to_owned) }
    }
}

/// Returns the value of a header that is there once. Two say nothing for certain.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name);
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Returns whether the text can stand in a log line and a header as it is.
fn is_safe(id: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(safe)
}

/// Reads the trace ID of a `traceparent`: `VERSION-TRACE-PARENT-FLAGS` in lower-case hexadecimal digits. Later versions may
/// have more behind another hyphen.
fn trace_id(header: &str) -> Option<&str> {
    let mut parts = header.splitn(5, '-');
    let mut part = |length: usize| parts.next().filter(|part| part.len() == length && part.bytes().all(is_digit));
    let (version, trace, parent, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let more = parts.next().is_some();
    let known = version != "ff" && !(version == "00" && more);
    let some = |id: &str| id.bytes().any(|byte| byte != b'0');
    (known && some(trace) && some(parent)).then_some(trace)
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn named(headers: &[(&'static str, &[u8])]) -> RequestName {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        }
        RequestName::of(&map)
    }

    #[test]
    fn a_usable_request_id_is_taken_over_and_any_other_is_replaced() {
        let longest = "x".repeat(LONGEST_ID);
        for id in ["4bf92f35-77b3", "a", "Root=1-67891233-abcdef012345678912345678", "01HZY:a/b+c_d.e", &longest] {
            assert_eq!(named(&[("x-request-id", id.as_bytes())]).id, id);
        }
        let too_long = "x".repeat(LONGEST_ID + 1);
        for id in ["", "a b", "a\"b", "{}", "a,b", "\u{e4}", "a\\", &too_long] {
            assert!(named(&[("x-request-id", id.as_bytes())]).id.starts_with("r_"), "{id}");
        }
        assert!(named(&[("x-request-id", b"\xff")]).id.starts_with("r_"));
        assert!(named(&[("x-request-id", b"a"), ("x-request-id", b"b")]).id.starts_with("r_"), "which of the two?");
        assert!(named(&[]).id.starts_with("r_"));
    }

    #[test]
    fn the_trace_is_read_from_a_valid_traceparent_alone() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (parent, valid) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-ever", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", false),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g", false),
            ("", false),
            ("-", false),
        ] {
            let found = named(&[("traceparent", parent.as_bytes())]).trace_id;
            assert_eq!(found.as_deref(), valid.then_some(TRACE), "{parent}");
        }
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let twice = [("traceparent", parent.as_bytes()), ("traceparent", parent.as_bytes())];
        assert_eq!(named(&twice).trace_id, None);
    }
}
