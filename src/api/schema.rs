//! The schemas of the bodies in `openapi.json`: derived from the types, with what the types do not say.

use schemars::{
    JsonSchema, Schema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
    json_schema,
    transform::{Transform, transform_subschemas},
};
use serde_json::{Map, Value, json};

use super::{
    AdoptedBody, BatchBody, GrantBody, HealthBody, IdpBody, IdpsBody, KeysBody, OffboardedBody, PageBody, ProblemBody,
    ReasonBody, RefreshedBody, RejectedBody, ReplicasBody, ResealBody, ResealedBody, RetriedBody, StatusBody,
    TokenBody, TokensBody, Whole, requests::LARGEST, time::TimeInput,
};
use crate::{Code, Freshness, State, Unchanged, Warning};

/// Returns all schemas of bodies, by their names.
pub(crate) fn all() -> Map<String, Value> {
    let generator = |sent| {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
            settings.contract = if sent { Contract::Serialize } else { Contract::Deserialize };
        });
        settings.with_transform(Tidy { sent }).into_generator()
    };
    let mut sent = generator(true);
    sent.subschema_for::<StatusBody>();
    sent.subschema_for::<RefreshedBody>();
    sent.subschema_for::<TokenBody>();
    sent.subschema_for::<TokensBody>();
    sent.subschema_for::<IdpBody>();
    sent.subschema_for::<IdpsBody>();
    sent.subschema_for::<RetriedBody>();
    sent.subschema_for::<AdoptedBody>();
    sent.subschema_for::<ReplicasBody>();
    sent.subschema_for::<KeysBody>();
    sent.subschema_for::<ResealedBody>();
    sent.subschema_for::<PageBody>();
    sent.subschema_for::<OffboardedBody>();
    sent.subschema_for::<HealthBody>();
    sent.subschema_for::<ProblemBody>();
    let mut received = generator(false);
    received.subschema_for::<GrantBody<'_>>();
    received.subschema_for::<RejectedBody>();
    received.subschema_for::<ReasonBody>();
    received.subschema_for::<BatchBody>();
    received.subschema_for::<ResealBody>();
    let mut all = sent.take_definitions(true);
    all.extend(received.take_definitions(true));
    all.insert("Document".to_owned(), any_object());
    all.insert("Metrics".to_owned(), text());
    all
}

/// Brings derived schemas into the form of this API.
#[derive(Clone, Debug)]
struct Tidy {
    /// Whether the server writes the bodies: it omits a member that has no value.
    sent: bool,
}

impl Transform for Tidy {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        schema.remove("default");
        // No counter exceeds what a JSON number holds exactly. OpenAPI knows no unsigned numbers.
        if schema.get("format").is_some_and(|format| format.as_str().is_some_and(|format| format.starts_with("uint"))) {
            schema.insert("format".to_owned(), "int64".into());
            schema.insert("maximum".to_owned(), LARGEST.into());
        }
        if self.sent {
            // Responses may get further members.
            if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
                schema.remove("additionalProperties");
            }
            let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
            let members = schema.get_mut("properties").and_then(Value::as_object_mut);
            let members = members.into_iter().flatten();
            for (_, member) in members.filter(|(name, _)| !required.iter().any(|known| known == *name)) {
                never_null(member);
            }
        }
    }
}

/// Removes null from the types of a member that is omitted instead.
fn never_null(member: &mut Value) {
    let null = json!("null");
    if let Some(types) = member.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|name| *name != null);
        if let [only] = types.as_slice() {
            member["type"] = only.clone();
        }
    }
    let Some(choices) = member.get_mut("anyOf").and_then(Value::as_array_mut) else { return };
    choices.retain(|choice| choice.get("type") != Some(&null));
    if let [Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        if let Some(member) = member.as_object_mut() {
            member.remove("anyOf");
            member.extend(only);
        }
    }
}

pub(crate) fn text() -> Value {
    json!({"type": "string"})
}

/// The name of an identity provider.
pub(crate) fn idp_name() -> Value {
    json!({"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"})
}

/// Control characters, in a class of a regular expression.
const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";

/// The pattern of a text without control characters.
fn without_control() -> String {
    format!("^[^{CONTROL}]*$")
}

/// A user: at most 255 bytes.
pub(crate) fn user() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": without_control()})
}

/// A user as a segment of a path: a name that starts with `~` is encoded.
pub(crate) fn user_in_path() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": format!("^[^~{CONTROL}][^{CONTROL}]*$")})
}

/// An account: at most 255 bytes.
pub(crate) fn account() -> Value {
    json!({"type": "string", "maxLength": 255, "pattern": without_control()})
}

/// Several states, separated by commas.
pub(crate) fn states() -> Value {
    let one = State::ALL.map(State::as_str).join("|");
    json!({"type": "string", "pattern": format!("^({one})(,({one}))*$")})
}

/// A time in a query: RFC 3339, or seconds since the epoch.
pub(crate) fn moment() -> Value {
    let rfc3339 = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})";
    let seconds = r"[0-9]{1,11}(\.[0-9]+)?";
    json!({"type": "string", "pattern": format!("^({rfc3339}|{seconds})$")})
}

pub(super) fn name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": without_control()})
}

pub(super) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": ["string", "null"], "format": "date-time"})
}

pub(super) fn some_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

pub(super) fn timeout(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": ["integer", "null"], "minimum": 0, "maximum": 60})
}

/// One of these words. Without the type, generators do not know that they are words.
fn one_of(words: &[&str]) -> Schema {
    json_schema!({"type": "string", "enum": words})
}

pub(super) fn expiry(_: &mut SchemaGenerator) -> Schema {
    one_of(&["at", "never", "unknown"])
}

pub(super) fn health(_: &mut SchemaGenerator) -> Schema {
    one_of(&["ok", "degraded", "draining"])
}

pub(super) fn key_state(_: &mut SchemaGenerator) -> Schema {
    one_of(&["active", "staged", "retired", "missing"])
}

pub(super) fn state(_: &mut SchemaGenerator) -> Schema {
    let states: Vec<_> = [State::Absent].into_iter().chain(State::ALL).map(State::as_str).collect();
    one_of(&states)
}

pub(super) fn code(_: &mut SchemaGenerator) -> Schema {
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    one_of(&codes)
}

pub(super) fn freshness(_: &mut SchemaGenerator) -> Schema {
    let all = [Freshness::Fresh, Freshness::Ageing, Freshness::LastGood];
    one_of(&all.map(Freshness::as_str))
}

pub(super) fn warning(_: &mut SchemaGenerator) -> Schema {
    let all = [Warning::RefreshFailing, Warning::InDoubt, Warning::ReconnectRequired, Warning::Rejected];
    one_of(&all.map(Warning::as_str))
}

pub(super) fn unchanged(_: &mut SchemaGenerator) -> Schema {
    let all = [Unchanged::AlreadyConnected, Unchanged::TokenAlreadySpent, Unchanged::RefreshInFlight];
    one_of(&all.map(Unchanged::as_str))
}

/// A token, or a word like one.
fn secret() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 65_536, "pattern": "^[!-~]*$"})
}

/// A text of at most 16 KiB.
fn plain(least: u64) -> Value {
    json!({"type": "string", "minLength": least, "maxLength": 16_384, "pattern": without_control()})
}

fn text_or_null(mut schema: Value) -> Schema {
    schema["type"] = json!(["string", "null"]);
    Schema::try_from(schema).expect("a schema is an object")
}

pub(super) fn secret_or_null(_: &mut SchemaGenerator) -> Schema {
    text_or_null(secret())
}

pub(super) fn word_or_null(_: &mut SchemaGenerator) -> Schema {
    text_or_null(plain(1))
}

pub(super) fn moment_or_null(generator: &mut SchemaGenerator) -> Schema {
    let moment = generator.subschema_for::<TimeInput>();
    json_schema!({"anyOf": [moment, {"type": "null"}]})
}

/// A lifetime as some provider writes it.
pub(super) fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"description": "Usually a number of seconds."})
}

pub(super) fn params(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "additionalProperties": plain(0), "propertyNames": plain(0)})
}

pub(super) fn object(_: &mut SchemaGenerator) -> Schema {
    Schema::try_from(any_object()).expect("a schema is an object")
}

/// An object with any members. Generators take one that says nothing of its members for an empty one.
fn any_object() -> Value {
    json!({"type": "object", "additionalProperties": true})
}

/// Which members a grant needs: one of its tokens. Generators make an alternative of `anyOf` a type of its own, and ignore
/// `if`. A provider's settings may say that the tokens stand elsewhere.
pub(super) fn grant(schema: &mut Schema) {
    let with = |token: &str| json!({"required": [token], "properties": {token: secret()}});
    schema.remove("required");
    schema.insert("if".to_owned(), with("access_token"));
    schema.insert("else".to_owned(), with("refresh_token"));
    schema.insert("additionalProperties".to_owned(), true.into());
}

/// One result of many: its members exclude each other.
pub(super) fn result(schema: &mut Schema) {
    let choices = schema.remove("oneOf");
    let members = |choice: &Value| choice.get("properties").and_then(Value::as_object).cloned();
    let choices = choices.as_ref().and_then(Value::as_array).into_iter().flatten();
    let members: Map<_, _> = choices.filter_map(members).flatten().collect();
    schema.insert("type".to_owned(), "object".into());
    schema.insert("properties".to_owned(), members.into());
}

/// A refreshed grant is a status with one more member.
pub(super) fn refreshed(schema: &mut Schema) {
    let (about, member) = (schema.get("description").cloned(), schema.pointer("/properties/refreshed").cloned());
    let more = json!({"type": "object", "properties": {"refreshed": member}, "required": ["refreshed"]});
    *schema = json_schema!({"description": about, "allOf": [{"$ref": "#/components/schemas/Status"}, more]});
}

impl JsonSchema for Whole {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Whole".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "format": "int64", "minimum": 0, "maximum": LARGEST})
    }
}

impl JsonSchema for TimeInput {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "RFC 3339, or seconds since the epoch.",
            "anyOf": [moment(), {"type": "number", "minimum": 0, "exclusiveMaximum": 100_000_000_000_u64}],
        })
    }
}

impl JsonSchema for RejectedBody {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rejected".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut generation = Whole::json_schema(generator).to_value();
        generation["type"] = json!(["integer", "null"]);
        let absent = |member: &str| json!({"properties": {member: {"type": "null"}}});
        let given = |member: &str, kind: &str| json!({"required": [member], "properties": {member: {"type": kind}}});
        json_schema!({
            "description": "Which token a resource server refused: its generation, or the token itself, not both.",
            "type": "object",
            "properties": {"generation": generation, "access_token": {"type": ["string", "null"]}},
            "additionalProperties": false,
            // As in `grant`.
            "if": given("generation", "integer"),
            "then": absent("access_token"),
            "else": given("access_token", "string"),
        })
    }
}
