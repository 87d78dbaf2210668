//! The JSON Schema says what the reader knows, and how.

use serde_json::{Value, json};

use crate::config::{Config, node};

#[test]
fn settings_have_their_types_and_defaults() {
    let schema = Config::schema();
    let at = |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
    let seconds = json!({ "type": "number", "minimum": 0, "maximum": 3_162_240_000_u64, "default": 300 });
    assert_eq!(*at("/properties/refresh/properties/margin_seconds"), seconds);
    assert_eq!(at("/properties/limits/properties/waiters_per_grant")["minimum"], 1);
    assert_eq!(at("/properties/log/properties/format/anyOf/0")["enum"], json!(["text", "json"]));
    assert_eq!(*at("/properties/server/properties/bind/default"), "127.0.0.1:8080");
    assert_eq!(
        *at("/properties/server/properties/api_key/items/properties/secret/anyOf/1/$ref"),
        "#/definitions/elsewhere"
    );
    let idp = at("/properties/idp/additionalProperties");
    let own = &idp["properties"];
    assert_eq!(own["margin_seconds"].get("default"), None, "a preset may have its own");
    assert!(own["preset"]["anyOf"][0]["enum"].as_array().unwrap().contains(&"okta".into()));
    assert!(own["clients"]["items"]["properties"]["client_id"].is_object() && own["client_id"].is_object());
    assert_eq!(own["params"]["additionalProperties"]["anyOf"][0]["type"], "string");
    assert_eq!(idp["additionalProperties"], false);
    assert!(!schema.to_string().contains("***"));
}

/// Of every preset, with all that is commented out.
#[test]
fn every_key_of_the_template_is_known() {
    let schema = Config::schema();
    for preset in Config::presets() {
        let template = Config::template(Some(preset)).unwrap();
        let setting = |line: &str| line.starts_with('[') || line.split(' ').nth(1) == Some("=");
        let line = |line| str::strip_prefix(line, "# ").filter(|rest| setting(rest)).unwrap_or(line).to_owned() + "\n";
        let text: String = template.lines().map(line).collect();
        let table = node::parse(&text, "".as_ref()).unwrap_or_else(|error| panic!("{error}: {text}"));
        let known = table.into_iter().map(|(key, node)| known(&schema, &key, node.value)).sum::<usize>();
        assert!(known > 15, "{preset}: {known}");
    }
}

/// How many settings are in there.
fn known(schema: &Value, key: &str, value: node::Value) -> usize {
    let here = schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
    assert!(here.is_object(), "not in the schema: {key}");
    match value {
        node::Value::Table(table) if here["type"] == "object" => {
            table.into_iter().map(|(key, node)| known(here, &key, node.value)).sum()
        }
        node::Value::List(items) if here["items"]["type"] == "object" => {
            let tables = items.into_iter().filter_map(|item| match item.value {
                node::Value::Table(table) => Some(table),
                _ => None,
            });
            tables.flatten().map(|(key, node)| known(&here["items"], &key, node.value)).sum()
        }
        _ => 1,
    }
}
