use serde_json::Value;

use super::*;
use crate::api::schema;

fn document_of_all() -> Value {
    openapi::document(endpoints())
}

fn endpoints() -> impl Iterator<Item = &'static Endpoint> {
    ROUTES.iter().map(|route| &route.endpoint)
}

/// Every `$ref` below.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| match value {
            Value::String(target) if name == "$ref" => found.push(target.clone()),
            value => references(value, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_schema_is_referenced_and_every_reference_exists() {
    let document = document_of_all();
    let mut found = Vec::new();
    references(&document, &mut found);
    for target in &found {
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
    }
    for name in schema::all().keys() {
        assert!(found.contains(&format!("#/components/schemas/{name}")), "{name}");
    }
}

#[test]
fn operations_have_unique_names() {
    let mut names: Vec<_> = endpoints().map(|endpoint| endpoint.name).collect();
    assert!(names.iter().all(|name| !name.is_empty()));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ROUTES.len());
}

#[test]
fn headers_are_documented() {
    let document = document_of_all();
    let token = &document["paths"]["/v1/grants/{idp}/{user}/token"]["get"];
    assert!(token["parameters"].as_array().unwrap().iter().any(|it| it["name"] == "If-None-Match"));
    for (status, name) in [("200", "ETag"), ("304", "ETag"), ("503", "Retry-After"), ("401", "WWW-Authenticate")] {
        assert!(token["responses"][status]["headers"][name].is_object(), "{status} {name}");
    }
    let authorize = &document["paths"]["/v1/authorize/{idp}/{user}"]["get"]["responses"]["204"]["headers"];
    assert!(authorize["Authorization"].is_object() && authorize["X-Token-Generation"].is_object());
}

#[test]
fn routes_of_one_path_are_adjacent() {
    let mut paths: Vec<_> = ROUTES.iter().map(|route| route.endpoint.path).collect();
    paths.dedup();
    let count = paths.len();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), count);
}
