//! Decodes names in paths and queries. By hand: a name may contain `/`, and a proxy may have decoded some of it already.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Decodes a percent-encoded name.
///
/// # Errors
/// What the name must be.
pub(super) fn decode(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    if !raw.contains('%') {
        return Ok(raw.into());
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes().iter();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
        bytes.push(match byte {
            b'%' => match (digit(rest.next()), digit(rest.next())) {
                (Some(high), Some(low)) => u8::try_from(high << 4 | low).unwrap_or_default(),
                _ => return Err("a % must be followed by two hexadecimal digits"),
            },
            byte => *byte,
        });
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| "names must be UTF-8")
}

/// Decodes the user in a path: percent-encoded, or `~` and its bytes in base64url. A user whose name starts with `~` needs
/// the second form: `%7E` and `~` are equivalent to every proxy (RFC 3986, section 2.3).
///
/// # Errors
/// What the name must be.
pub(super) fn user(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    const FORM: &str = "a user that starts with ~ must be base64url without padding, of UTF-8";
    let decoded = decode(raw)?;
    let Some(encoded) = decoded.strip_prefix('~') else { return Ok(decoded) };
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| FORM)?).map(Cow::Owned).map_err(|_| FORM)
}

/// Decodes the parameters of a query, in their order.
///
/// # Errors
/// What they must be.
pub(super) fn parameters(query: &str) -> Result<Vec<(String, String)>, &'static str> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let pair = pair.replace('+', " ");
            let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
            Ok((decode(name)?.into_owned(), decode(value)?.into_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_written_in_two_ways() {
        for (raw, text) in [
            ("alice", "alice"),
            ("acme%2Fal%20ice", "acme/al ice"),
            ("%C3%A4+b", "ä+b"),
            ("~YWNtZS9hbGljZQ", "acme/alice"),
            ("%7EYWNtZS9hbGljZQ", "acme/alice"),
            ("~fmJvYg", "~bob"),
            ("%2e%2E", ".."),
        ] {
            assert_eq!(user(raw).as_deref(), Ok(text), "{raw}");
        }
        for raw in ["%", "%4", "%zz", "%+1", "%FF", "~bob!", "~YQ==", "~_w"] {
            assert!(user(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn parameters_are_decoded_and_keep_their_order() {
        let read = parameters("a=1&b=x%26y+z&&c&a=2").unwrap();
        let read: Vec<_> = read.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(read, [("a", "1"), ("b", "x&y z"), ("c", ""), ("a", "2")]);
        assert!(parameters("a=%FF").is_err() && parameters("%=1").is_err());
    }
}
