//! `openapi.json`, generated from the endpoints and the types of the bodies.

use actix_web::http::header::HeaderName;
use serde_json::{Map, Value, json};

use super::{
    endpoint::{Endpoint, Precondition},
    parameters::{ParameterKind, QueryParameter},
};
use crate::{api::schema, code::Code};

/// The document, of OpenAPI 3.1.
pub(super) fn document<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Value {
    let mut paths = Map::new();
    for endpoint in endpoints {
        let path = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        path[endpoint.method.as_str().to_lowercase()] = operation(endpoint);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "token-supervisor",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Keeps OAuth tokens valid, through crashes and outages. All paths are relative to where the API is mounted.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schema::all(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
        },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let parameters = path_parameters(endpoint.path)
        .chain(endpoint.query.iter().map(parameter))
        .chain(endpoint.preconditions.iter().map(precondition));
    let mut operation = json!({
        "operationId": endpoint.name,
        "tags": [tag(endpoint.path)],
        "description": endpoint.about,
        "parameters": parameters.collect::<Vec<_>>(),
        "responses": responses(endpoint),
    });
    if !endpoint.scopes.is_empty() {
        let scopes: Vec<_> = endpoint.scopes.iter().map(|scope| scope.as_str()).collect();
        operation["security"] = json!([{"key": []}]);
        operation["x-scopes"] = json!(scopes);
    }
    if !endpoint.body.is_empty() {
        operation["requestBody"] = json!({"required": true, "content": content("application/json", endpoint.body)});
    }
    operation
}

/// The group of an operation, such as `grants`.
fn tag(path: &str) -> &str {
    path.strip_prefix("/v1/").and_then(|path| path.split('/').next()).unwrap_or("server")
}

fn precondition(precondition: &Precondition) -> Value {
    let mut schema = schema::text();
    if let Some(pattern) = precondition.pattern {
        schema["pattern"] = pattern.into();
    }
    json!({"name": title_case(&precondition.name), "in": "header", "description": precondition.about, "schema": schema})
}

/// The name of a header in the usual spelling, such as `If-None-Match`.
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
        let schema = if name == "idp" { schema::idp_name() } else { schema::user_in_path() };
        json!({"name": name, "in": "path", "required": true, "description": about, "schema": schema})
    })
}

fn parameter(param: &QueryParameter) -> Value {
    let schema = match param.kind {
        ParameterKind::Flag => json!({"type": "boolean"}),
        // A bound that no number of the languages of generated clients can hold is none.
        ParameterKind::Number(least, u64::MAX) => json!({"type": "integer", "format": "int64", "minimum": least}),
        ParameterKind::Number(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        ParameterKind::Text(schema) => schema(),
    };
    let mut parameter = json!({"name": param.name, "in": "query", "description": param.about, "schema": schema});
    if let ParameterKind::Flag = param.kind {
        parameter["allowEmptyValue"] = true.into();
    }
    if param.required {
        parameter["required"] = true.into();
    }
    parameter
}

fn responses(endpoint: &Endpoint) -> Value {
    let mut responses = Map::new();
    for (status, schema) in endpoint.responses {
        let mut response = json!({"description": "Granted.", "headers": headers(endpoint, schema)});
        if !schema.is_empty() {
            // Without parameters such as a version, by which generated clients would not know it.
            let (kind, _) = endpoint.content_type.split_once(';').unwrap_or((endpoint.content_type, ""));
            response["content"] = content(kind, schema);
        }
        responses.insert(status.to_string(), response);
    }
    for (status, codes) in problems(endpoint) {
        let response = json!({
            "description": format!("A problem of code {}.", codes.join(", ")),
            "headers": headers_of_problem(status),
            "content": content("application/problem+json", "Problem"),
        });
        responses.entry(status.to_string()).or_insert(response);
    }
    responses.into()
}

const REQUEST_ID_ABOUT: &str = "Names the request, for logs and support: the X-Request-Id of the request, if it has one of at most \
                                128 safe characters.";

/// The headers of a granted response with this schema.
fn headers(endpoint: &Endpoint, schema: &str) -> Value {
    let mut headers = json!({"X-Request-Id": header(REQUEST_ID_ABOUT)});
    if matches!(schema, "" | "Status" | "Refreshed" | "Token") {
        headers["ETag"] = header("The generation, such as \"g41\".");
    }
    for (name, about) in endpoint.headers {
        headers[name] = header(about);
    }
    headers
}

fn headers_of_problem(status: u16) -> Value {
    let mut headers = json!({"X-Request-Id": header(REQUEST_ID_ABOUT)});
    match status {
        401 | 403 => headers["WWW-Authenticate"] = header("What is wrong with the API key (RFC 6750)."),
        405 => headers["Allow"] = header("The methods that the path takes."),
        429 | 503 => headers["Retry-After"] = header("How many seconds to wait."),
        _ => {}
    }
    headers
}

fn header(about: &str) -> Value {
    json!({"description": about, "schema": schema::text()})
}

/// The codes of an endpoint's problems, by status: the codes that it names, and those that follow from what it takes.
fn problems(endpoint: &Endpoint) -> Vec<(u16, Vec<&'static str>)> {
    let mut codes: Vec<_> = endpoint.problems.to_vec();
    // Any request may be wrong, or break the rules of loopback.
    codes.extend([Code::InvalidRequest, Code::Forbidden, Code::Internal]);
    if !endpoint.scopes.is_empty() {
        codes.extend([Code::Unauthorized, Code::Busy]);
    }
    if endpoint.path.contains("{idp}") {
        codes.push(Code::UnknownIdp);
    }
    let mut problems: Vec<(u16, Vec<&'static str>)> = Vec::new();
    let known = Code::ALL.iter().filter(|code| codes.contains(code)).map(|code| (code.status(), *code));
    let of_bodies: &[u16] = if endpoint.changes() { &[408, 413] } else { &[] };
    let others = of_bodies.iter().chain(&[405]).map(|status| (*status, Code::InvalidRequest));
    for (status, code) in known.chain(others) {
        let code = code.as_str();
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
