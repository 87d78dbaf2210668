//! `openapi.json`, generated from the table of routes.

use serde_json::{Value, json};

/// The document, of OpenAPI 3.1.
pub(super) fn document() -> Value {
    json!({})
}
