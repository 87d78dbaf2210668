//! `openapi.json`, generated from the table of routes.

use actix_web::http::header::HeaderName;
use serde_json::{Map, Value, json};

use super::{
    problem::CODES,
    routes::{Kind, Param, Precondition, ROUTES, Route},
    schemas,
};

/// The document, of OpenAPI 3.1.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "token-supervisor",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Keeps OAuth tokens alive and never loses one. Paths are below wherever the API is mounted.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
        },
    })
}

fn operation(route: &Route) -> Value {
    let parameters = path_parameters(route.path)
        .chain(route.query.iter().map(parameter))
        .chain(route.preconditions.iter().map(precondition));
    let mut operation = json!({
        "operationId": operation_id(route),
        "description": route.about,
        "parameters": parameters.collect::<Vec<_>>(),
        "responses": responses(route),
    });
    if !route.scopes.is_empty() {
        let scopes: Vec<_> = route.scopes.iter().map(|scope| scope.as_str()).collect();
        operation["security"] = json!([{"key": []}]);
        operation["x-scopes"] = json!(scopes);
    }
    if !route.body.is_empty() {
        operation["requestBody"] = json!({"required": true, "content": content("application/json", route.body)});
    }
    operation
}

/// Such as `get_grants_idp_user_token`.
fn operation_id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/v1").replace(['{', '}'], "").replace(['/', '.'], "_");
    format!("{}{path}", route.method.as_str().to_lowercase())
}

fn precondition(precondition: &Precondition) -> Value {
    let mut schema = schemas::text();
    if let Some(pattern) = precondition.pattern {
        schema["pattern"] = pattern.into();
    }
    json!({"name": title_case(&precondition.name), "in": "header", "description": precondition.about, "schema": schema})
}

/// As people write the names of headers.
fn title_case(name: &HeaderName) -> String {
    let word = |word: &str| format!("{}{}", word[..1].to_uppercase(), &word[1..]);
    name.as_str().split('-').map(word).collect::<Vec<_>>().join("-")
}

fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let about = |segment: &str| match segment {
        "{idp}" => Some(("idp", "The identity provider, as the configuration names it.")),
        "{user}" => Some((
            "user",
            "Percent-encoded (`/` as `%2F`), or `~` and its bytes in base64url without padding; only so if it begins with `~`.",
        )),
        _ => None,
    };
    path.split('/').filter_map(about).map(|(name, about)| {
        let schema = if name == "idp" { schemas::idp_name() } else { schemas::user_in_path() };
        json!({"name": name, "in": "path", "required": true, "description": about, "schema": schema})
    })
}

fn parameter(param: &Param) -> Value {
    let schema = match param.kind {
        Kind::Flag => json!({"enum": [true, false, ""]}),
        Kind::Number(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Text(schema) => schema(),
    };
    let mut parameter = json!({"name": param.name, "in": "query", "description": param.about, "schema": schema});
    if param.required {
        parameter["required"] = true.into();
    }
    parameter
}

fn responses(route: &Route) -> Value {
    let mut responses = Map::new();
    for (status, schema) in route.answers {
        let mut response = json!({"description": "Granted.", "headers": headers(route, schema)});
        if !schema.is_empty() {
            response["content"] = content(route.content_type, schema);
        }
        responses.insert(status.to_string(), response);
    }
    for (status, codes) in problems(route) {
        let response = json!({
            "description": format!("A problem of code {}.", codes.join(", ")),
            "headers": headers_of_problem(status),
            "content": content("application/problem+json", "Problem"),
        });
        responses.entry(status.to_string()).or_insert(response);
    }
    responses.into()
}

/// Those of a granted request that is answered with this schema.
fn headers(route: &Route, schema: &str) -> Value {
    let mut headers = json!({"X-Request-Id": header("Names the request, for logs and support.")});
    if matches!(schema, "" | "Status" | "Refreshed" | "Token") {
        headers["ETag"] = header("The generation, such as \"g41\".");
    }
    for (name, about) in route.headers {
        headers[name] = header(about);
    }
    headers
}

fn headers_of_problem(status: u16) -> Value {
    let mut headers = json!({"X-Request-Id": header("Names the request, for logs and support.")});
    match status {
        401 | 403 => headers["WWW-Authenticate"] = header("What is wrong with the API key (RFC 6750)."),
        405 => headers["Allow"] = header("The methods that the path takes."),
        429 | 503 => headers["Retry-After"] = header("How many seconds to wait."),
        _ => {}
    }
    headers
}

fn header(about: &str) -> Value {
    json!({"description": about, "schema": schemas::text()})
}

/// The codes of a route's problems, by their status: those that it names, and those that follow from what it takes.
fn problems(route: &Route) -> Vec<(u16, Vec<&'static str>)> {
    let mut codes: Vec<_> = route.problems.to_vec();
    // Of what is wrong with any request, and of the rules of loopback.
    codes.extend(["invalid_request", "forbidden", "internal"]);
    if !route.scopes.is_empty() {
        codes.push("unauthorized");
    }
    if route.path.contains("{idp}") {
        codes.push("unknown_idp");
    }
    let mut problems: Vec<(u16, Vec<&'static str>)> = Vec::new();
    let known = CODES.into_iter().filter(|(code, ..)| codes.contains(code)).map(|(code, status, _)| (status, code));
    let of_bodies: &[u16] = if route.changes() { &[408, 413] } else { &[] };
    let others = of_bodies.iter().chain(&[405]).map(|status| (*status, "invalid_request"));
    for (status, code) in known.chain(others) {
        match problems.iter_mut().find(|(known, _)| *known == status) {
            Some((_, codes)) => codes.push(code),
            None => problems.push((status, vec![code])),
        }
    }
    problems
}

fn content(kind: &str, schema: &str) -> Value {
    json!({ kind: {"schema": {"$ref": format!("#/components/schemas/{schema}")}} })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_is_referred_to_exists_and_what_exists_is_referred_to() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        for target in &found {
            assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
        }
        for name in schemas::all().as_object().unwrap().keys() {
            assert!(found.contains(&format!("#/components/schemas/{name}")), "{name}");
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let mut names: Vec<_> = ROUTES.iter().map(operation_id).collect();
        assert!(
            ["get_grants_idp_user_token", "get_openapi_json"].iter().all(|name| names.contains(&(*name).to_owned()))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROUTES.len());
    }

    #[test]
    fn headers_are_documented() {
        let document = document();
        let token = &document["paths"]["/v1/grants/{idp}/{user}/token"]["get"];
        assert!(token["parameters"].as_array().unwrap().iter().any(|it| it["name"] == "If-None-Match"));
        for (status, name) in [("200", "ETag"), ("304", "ETag"), ("503", "Retry-After"), ("401", "WWW-Authenticate")] {
            assert!(token["responses"][status]["headers"][name].is_object(), "{status} {name}");
        }
        let authorize = &document["paths"]["/v1/authorize/{idp}/{user}"]["get"]["responses"]["204"]["headers"];
        assert!(authorize["Authorization"].is_object() && authorize["X-Token-Generation"].is_object());
    }

    #[test]
    fn codes_that_routes_name_exist() {
        for code in ROUTES.iter().flat_map(|route| route.problems) {
            assert!(CODES.iter().any(|(known, ..)| known == code), "{code}");
        }
    }

    #[test]
    fn routes_of_one_path_stand_together() {
        let mut paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
        paths.dedup();
        let count = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }
}
