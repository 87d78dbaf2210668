//! The schemas of the bodies, as `openapi.json` says them.

use serde_json::{Value, json};

use super::problem::CODES;

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
        "Rejected": {
            "type": "object",
            "description": "One of the two.",
            "properties": {"generation": number(), "access_token": text()},
            "additionalProperties": false,
        },
        "Reason": {
            "type": "object",
            "properties": {"reason": {"type": "string", "minLength": 1, "maxLength": 255}},
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
        "description": "What the identity provider's token endpoint answered. Anything else that it said goes into extra.",
        "properties": {
            "access_token": text(),
            "refresh_token": text(),
            "token_type": {"type": "string", "default": "Bearer"},
            "scope": text(),
            "expires_in": lifetime(),
            "expires_at": moment(),
            "refresh_token_expires_in": lifetime(),
            "refresh_token_expires_at": moment(),
            "client_id": {"type": "string", "description": "The client it was issued to; the configured one unless given."},
            "subject": {"type": "string", "description": "The user's identifier at the identity provider."},
            "params": {"type": "object", "additionalProperties": text()},
            "extra": {"type": "object", "description": "Kept beside the tokens, sealed with them."},
        },
        "required": ["access_token"],
        "additionalProperties": false,
    })
}

fn status() -> Value {
    json!({
        "type": "object",
        "properties": {
            "idp": text(),
            "user": text(),
            "account": text(),
            "grant_id": text(),
            "state": {"enum": ["absent", "fresh", "due", "refreshing", "backoff", "in_doubt", "reconnect_required", "revoked"]},
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
            "min_ttl": number(),
            "timeout": {"type": "integer", "minimum": 0, "maximum": 60},
            "items": {
                "type": "array",
                "maxItems": 100,
                "items": {
                    "type": "object",
                    "properties": {"idp": text(), "user": text(), "account": text()},
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
            "refreshing": number(),
            "last_error": {"anyOf": [reference("Evidence"), {"type": "null"}]},
            "last_error_at": time(),
        },
        "required": ["idp", "paused", "paused_until", "held", "refreshing", "last_error", "last_error_at"],
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
            "max_ttl": number(),
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

fn text() -> Value {
    json!({"type": "string"})
}

fn number() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn time() -> Value {
    json!({"type": ["string", "null"], "format": "date-time"})
}

/// A time as it may come in.
fn moment() -> Value {
    json!({"type": ["string", "number"], "description": "RFC 3339, or seconds since the epoch."})
}

fn lifetime() -> Value {
    json!({"type": ["number", "string"], "description": "Seconds."})
}

fn expiry() -> Value {
    json!({"enum": ["at", "never", "unknown"]})
}
