//! The JSON Schema of configurations, for editors: it records the settings that are read from a file with every section.

use serde_json::{Map, Value, json};

use super::{Config, node, section::SectionReading, source::Environment};

/// A configuration with every section. Its problems do not matter: the settings are read all the same.
const EVERYTHING: &str = "[[server.api_key]]\n[idp.NAME]\npreset = \"oauth2\"\nclient_id = \"\"\n[[idp.NAME.clients]]\n\
     [[idp.NAME.errors]]\n";
/// Stands for a name that the operator chooses.
pub(super) const ANY: &str = "any";

impl Config {
    /// The JSON Schema (draft 7, which editors of TOML know) of configuration files.
    pub fn schema() -> Value {
        let environment = Environment::new([]);
        let tree = node::parse(&EVERYTHING.replace("NAME", ANY), "".as_ref()).expect("it is TOML");
        let mut reading = SectionReading::new(&environment, "".as_ref());
        reading.settings = Some(Vec::new());
        reading.read(tree, Self::read_all);
        let mut root = table();
        for (path, setting) in reading.settings.into_iter().flatten() {
            add(&mut root, &path, setting);
        }
        let presets: Vec<_> = Self::presets().collect();
        root["properties"]["idp"]["additionalProperties"]["properties"]["preset"] = text(json!({ "enum": presets }));
        root["$schema"] = "http://json-schema.org/draft-07/schema#".into();
        root["title"] = "The configuration of token-supervisor".into();
        root["definitions"] = json!({ "elsewhere": {
            "oneOf": [elsewhere("env", "The environment variable that has it."), elsewhere("file", "The file that has it.")],
        } });
        root
    }
}

/// A text, or a reference to one.
pub(super) fn text(allowed: Value) -> Value {
    json!({ "anyOf": [allowed, { "$ref": "#/definitions/elsewhere" }] })
}

fn elsewhere(kind: &str, description: &str) -> Value {
    json!({
        "type": "object",
        "properties": { kind: { "type": "string", "description": description } },
        "required": [kind],
        "additionalProperties": false,
    })
}

/// A table without keys.
fn table() -> Value {
    json!({ "type": "object", "properties": {}, "additionalProperties": false })
}

/// Adds the setting of this path: names with dots between, `[0]` behind that of a list of tables, [`ANY`] for any name.
fn add(within: &mut Value, path: &str, setting: Value) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let (name, listed) = first.strip_suffix("[0]").map_or((first, false), |name| (name, true));
    let place = if name == ANY {
        &mut within["additionalProperties"]
    } else {
        properties(within).entry(name).or_insert(Value::Bool(false))
    };
    let Some(rest) = rest else {
        *place = setting;
        return;
    };
    if !place.is_object() {
        *place = if listed { json!({ "type": "array", "items": table() }) } else { table() };
    }
    add(if listed { &mut place["items"] } else { place }, rest, setting);
}

fn properties(table: &mut Value) -> &mut Map<String, Value> {
    table["properties"].as_object_mut().expect("tables have properties")
}
