//! The schemas of the bodies, as `openapi.json` says them.

use serde_json::{Value, json};

use super::{problem::CODES, wire::LARGEST};

/// Each under its name.
pub(super) fn all() -> Value {
    json!({
        "Grant": grant(),
        "Status": status(),
        "Refreshed": {
            "allOf": [reference("Status")],
            "properties": {"refreshed": {"type": "boolean"}},
            "required": ["refreshed"],
        },
        "Token": token(),
        "Rejected": rejected(),
        "Reason": {
            "type": "object",
            "properties": {"reason": name()},
            "required": ["reason"],
            "additionalProperties": false,
        },
        "Batch": batch(),
        "Tokens": items(&json!({
            "type": "object",
            "description": "One of the two.",
            "properties": {"token": reference("Token"), "problem": reference("Problem")},
        })),
        "Idp": idp(),
        "Idps": items(&reference("Idp")),
        "Page": {
            "allOf": [items(&reference("Status"))],
            "properties": {"next": {"type": ["string", "null"]}},
            "required": ["next"],
        },
        "Offboarded": items(&json!({
            "type": "object",
            "description": "With a status or a problem.",
            "properties": {
                "idp": text(),
                "user": text(),
                "account": text(),
                "status": reference("Status"),
                "problem": reference("Problem"),
            },
            "required": ["idp", "user", "account"],
        })),
        "Evidence": evidence(),
        "Health": {
            "type": "object",
            "properties": {
                "status": {"enum": ["ok", "degraded", "draining"]},
                "degraded": {"type": "array", "items": text()},
            },
            "required": ["status", "degraded"],
        },
        "Document": {"type": "object"},
        "Metrics": text(),
        "Problem": problem(),
    })
}

fn grant() -> Value {
    json!({
        "type": "object",
        "description": "What the identity provider's token endpoint answered. Anything else that it said goes into extra. \
            Without access_token it is refreshed at once, and nothing is served before.",
        "properties": {
            "access_token": or_null(secret()),
            "refresh_token": or_null(secret()),
            "token_type": or_null(secret()),
            "scope": or_null(plain(0)),
            "expires_in": or_null(lifetime(MILLISECOND)),
            "expires_at": or_null(moment()),
            "refresh_token_expires_in": or_null(lifetime(0.0)),
            "refresh_token_expires_at": or_null(moment()),
            "client_id": described(or_null(plain(1)), "The client it was issued to; the configured one unless given."),
            "subject": described(or_null(plain(1)), "The user's identifier at the identity provider."),
            "params": {"type": "object", "additionalProperties": plain(0), "propertyNames": plain(0)},
            "extra": {"type": "object", "description": "Kept beside the tokens, sealed with them; at most 64 KiB."},
        },
    "allOf": [
            not_both("expires_in", "expires_at"),
            not_both("refresh_token_expires_in", "refresh_token_expires_at"),
        ],
        "anyOf": [
            {"required": ["access_token"], "properties": {"access_token": secret()}},
            {"required": ["refresh_token"], "properties": {"refresh_token": secret()}},
        ],
        "additionalProperties": false,
    })
}

/// A lifetime shorter than this is none.
const MILLISECOND: f64 = 0.001;

fn not_both(one: &str, other: &str) -> Value {
    json!({"anyOf": [{"properties": {one: {"type": "null"}}}, {"properties": {other: {"type": "null"}}}]})
}

fn rejected() -> Value {
    let one = |given: &str, schema: Value, other: &str| {
        json!({
            "type": "object",
            "properties": {given: schema, other: {"type": "null"}},
            "required": [given],
            "additionalProperties": false,
        })
    };
    json!({
        "description": "Which token it was: by its generation, or the token itself.",
        "oneOf": [one("generation", number(), "access_token"), one("access_token", text(), "generation")],
    })
}

fn status() -> Value {
    let states: Vec<_> = ["absent"].iter().chain(&STATES).collect();
    json!({
        "type": "object",
        "properties": {
            "idp": text(),
            "user": text(),
            "account": text(),
            "grant_id": text(),
            "state": {"enum": states},
            "held": {"type": "boolean"},
            "held_reason": text(),
            "generation": number(),
            "expiry": expiry(),
            "expires_at": time(),
            "refresh_token_expires_at": time(),
            "next_refresh_at": time(),
            "last_error": text(),
            "reason": text(),
            "evidence": reference("Evidence"),
            "failing_since": time(),
            "since": time(),
            "unchanged": {"enum": ["already_connected", "token_already_spent", "refresh_in_flight"]},
        },
        "required": [
            "idp", "user", "account", "grant_id", "state", "held", "generation", "expiry", "expires_at",
            "refresh_token_expires_at", "next_refresh_at", "since",
        ],
    })
}

fn token() -> Value {
    json!({
        "type": "object",
        "properties": {
            "access_token": text(),
            "token_type": text(),
            "expiry": expiry(),
            "expires_at": time(),
            "expires_in": {"type": ["integer", "null"]},
            "scope": text(),
            "generation": number(),
            "freshness": {"enum": ["fresh", "ageing", "last_good"]},
            "warning": {"enum": ["refresh_failing", "in_doubt", "reconnect_required", "rejected"]},
        },
        "required": [
            "access_token", "token_type", "expiry", "expires_at", "expires_in", "scope", "generation", "freshness",
        ],
    })
}

fn batch() -> Value {
    json!({
        "type": "object",
        "properties": {
            "min_ttl": or_null(number()),
            "timeout": or_null(json!({"type": "integer", "minimum": 0, "maximum": 60})),
            "items": {
                "type": "array",
                "maxItems": 100,
                "items": {
                    "type": "object",
                    "properties": {"idp": text(), "user": text(), "account": or_null(text())},
                    "required": ["idp", "user"],
                    "additionalProperties": false,
                },
            },
        },
        "required": ["items"],
        "additionalProperties": false,
    })
}

fn idp() -> Value {
    json!({
        "type": "object",
        "properties": {
            "idp": text(),
            "paused": {"type": ["string", "null"], "description": "Why nothing is sent to it for now."},
            "paused_until": time(),
            "held": {"type": "boolean"},
            "held_reason": text(),
            "revokes": {"type": "boolean", "description": "Whether tokens can be revoked there."},
            "refreshing": number(),
            "last_error": {"anyOf": [reference("Evidence"), {"type": "null"}]},
            "last_error_at": time(),
        },
        "required": ["idp", "paused", "paused_until", "held", "revokes", "refreshing", "last_error", "last_error_at"],
    })
}

fn evidence() -> Value {
    json!({
        "type": "object",
        "description": "What an identity provider said when it gave no token.",
        "properties": {"code": text(), "detail": text(), "status": number(), "request_id": text()},
        "required": ["code"],
    })
}

fn problem() -> Value {
    let codes: Vec<_> = CODES.iter().map(|(code, ..)| code).collect();
    json!({
        "type": "object",
        "description": "RFC 9457.",
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": text(),
            "status": number(),
            "detail": text(),
            "code": {"enum": codes},
            "reason": text(),
            "since": time(),
            "retry_after": number(),
            "generation": number(),
            "valid_until": {
                "type": "string",
                "format": "date-time",
                "description": "Until then the grant has a valid token nonetheless.",
            },
            "max_ttl": number(),
            "grant_id": text(),
            "request_id": text(),
        },
        "required": ["type", "title", "status", "detail", "code", "request_id"],
    })
}

fn items(of: &Value) -> Value {
    json!({"type": "object", "properties": {"items": {"type": "array", "items": of}}, "required": ["items"]})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

pub(super) fn text() -> Value {
    json!({"type": "string"})
}

fn number() -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": LARGEST})
}

fn time() -> Value {
    json!({"type": ["string", "null"], "format": "date-time"})
}

/// An identity provider.
pub(super) fn idp_name() -> Value {
    json!({"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"})
}

/// No control characters.
const PLAIN: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// A user, or why somebody does something: at most 255 bytes.
pub(super) fn name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": PLAIN})
}

/// A user as a segment of a path: what begins with `~` is encoded.
pub(super) fn user_in_path() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": PLAIN.replacen('^', "^(?!~)", 1)})
}

/// An account: at most 255 bytes.
pub(super) fn account() -> Value {
    json!({"type": "string", "maxLength": 255, "pattern": PLAIN})
}

/// Several, with commas between them.
pub(super) fn states() -> Value {
    let one = STATES.join("|");
    json!({"type": "string", "pattern": format!("^({one})(,({one}))*$")})
}

const STATES: [&str; 7] = ["fresh", "due", "refreshing", "backoff", "in_doubt", "reconnect_required", "revoked"];

/// A time as it may come in.
pub(super) fn moment() -> Value {
    json!({
        "description": "RFC 3339, or seconds since the epoch.",
        "anyOf": [
            {"type": "string", "format": "date-time"},
            {"type": "number", "minimum": 0, "exclusiveMaximum": 100_000_000_000_u64},
            {"type": "string", "pattern": r"^[0-9]{1,11}(\.[0-9]+)?$"},
        ],
    })
}

/// A lifetime as it may come in.
fn lifetime(least: f64) -> Value {
    let first = if least > 0.0 { "[1-9]" } else { "[0-9]" };
    json!({
        "description": "Seconds.",
        "anyOf": [
            {"type": "number", "minimum": least, "maximum": 100_000_000_000_u64},
            {"type": "string", "pattern": format!(r"^{first}[0-9]{{0,10}}$")},
        ],
    })
}

/// A token, or a word like one.
fn secret() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 65_536, "pattern": "^[!-~]*$"})
}

/// A text of at most 16 KiB.
fn plain(least: u64) -> Value {
    json!({"type": "string", "minLength": least, "maxLength": 16_384, "pattern": PLAIN})
}

fn or_null(schema: Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

fn described(schema: Value, description: &str) -> Value {
    let mut schema = schema;
    schema["description"] = description.into();
    schema
}

fn expiry() -> Value {
    json!({"enum": ["at", "never", "unknown"]})
}
