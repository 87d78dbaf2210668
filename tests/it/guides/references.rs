//! The reference pages list everything that the program has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tempfile::TempDir;
use token_supervisor::Why;

use super::{page::Page, program, root, text};
use crate::http::stage::Stage;

fn page(name: &str) -> Page {
    Page::read(&root().join("docs").join(name))
}

/// Returns the page without its blocks.
fn prose(page: &Page) -> String {
    page.prose.iter().map(|(_, line)| format!("{line}\n")).collect()
}

/// Returns whether the text contains `code` in backticks.
fn has(text: &str, code: &str) -> bool {
    text.contains(&format!("`{code}`"))
}

fn run(args: &[&str]) -> String {
    text(program(TempDir::new().unwrap().path(), args).output().unwrap())
}

/// Returns the commands that `--help` lists.
fn commands(of: &[&str]) -> Vec<String> {
    let help = run(&[of, &["--help"]].concat());
    let Some((_, listed)) = help.split_once("Commands:\n") else { return Vec::new() };
    let names = listed.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_and_option_is_in_its_section() {
    let page = page("command-line.md");
    let shared = page.section("## Options of many commands").unwrap();
    let mut all = Vec::new();
    for command in commands(&[]) {
        let within = commands(&[&command]);
        all.extend(within.iter().map(|name| format!("{command} {name}")));
        all.extend(within.is_empty().then_some(command));
    }
    assert!(all.len() > 18, "{all:?}");
    for command in all {
        let section = page.section(&format!("## {command}")).unwrap_or_else(|| panic!("no heading: {command}"));
        let help = run(&[command.split(' ').collect(), vec!["--help"]].concat());
        for option in help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2) {
            let option = option.trim_end_matches(|char: char| !char.is_ascii_alphanumeric());
            assert!(has(&section, option) || has(&shared, option), "{command} {option}");
        }
    }
}

/// Returns the known keys of each section, from the errors for unknown keys.
fn settings() -> BTreeMap<&'static str, Vec<String>> {
    const EACH: &str = "q = 1\n[server]\nq = 1\n[[server.api_key]]\nq = 1\n[store]\nq = 1\n[journal]\nq = 1\n[keyring]\nq = 1\n\
        [refresh]\nq = 1\n[limits]\nq = 1\n[retention]\nq = 1\n[log]\nq = 1\n[idp.NAME]\nq = 1\n[[idp.NAME.clients]]\nq = 1\n\
        [[idp.NAME.errors]]\nq = 1\n[idp.NAME.response]\nq = 1\n";
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("token-supervisor.toml"), EACH.replace("NAME", "x")).unwrap();
    let printed = text(program(folder.path(), &["config", "check"]).output().unwrap());
    let known = printed.lines().filter_map(|line| line.split_once("known here are ")).map(|(_, names)| names);
    let known = known.map(|names| names.split(", ").map(str::to_owned).collect::<Vec<_>>());
    let sections = EACH.lines().filter(|line| line.starts_with('['));
    let all: BTreeMap<_, _> = std::iter::once("").chain(sections).zip(known).collect();
    assert_eq!(all.len(), 14, "{printed}");
    all
}

#[test]
fn every_setting_is_in_its_section() {
    let page = page("configuration.md");
    for (section, keys) in settings() {
        let heading = if section.is_empty() { "## The file".to_owned() } else { format!("## `{section}`") };
        let place = page.section(&heading).unwrap_or_else(|| panic!("no heading: {heading}"));
        // An identity provider also has the keys of [refresh].
        let more = if section == "[idp.NAME]" { page.section("## `[refresh]`").unwrap() } else { String::new() };
        for key in keys {
            assert!(has(&place, &key) || has(&more, &key), "{section} {key}");
        }
    }
}

#[test]
fn every_default_is_in_effect() {
    let page = page("configuration.md");
    let folder = TempDir::new().unwrap();
    let idp =
        "[idp.x]\npreset = \"oauth2\"\ntoken_url = \"https://x.example/t\"\nclient_id = \"x\"\nclient_secret = \"x\"\n";
    std::fs::write(folder.path().join("token-supervisor.toml"), idp).unwrap();
    let shown = program(folder.path(), &["config", "show", "--origin", "--json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let mut compared = 0;
    for setting in shown["settings"].as_array().unwrap() {
        let [name, value, origin] = ["name", "value", "origin"].map(|part| setting[part].as_str().unwrap());
        if !["default", "preset oauth2"].contains(&origin) {
            continue;
        }
        let (section, key) = name.rsplit_once('.').unwrap();
        let section = section.replace("idp.x", "idp.NAME");
        let rows = page.section(&format!("## `[{section}]`")).unwrap();
        assert!(rows.contains(&format!("| `{key}` | `{value}` |")), "[{section}] {key} is {value}");
        compared += 1;
    }
    assert!(compared > 20, "{shown}");
}

#[tokio::test]
async fn every_route_field_code_and_metric_is_documented() {
    let stage = Stage::new().await;
    let document = stage.ask("GET /openapi.json", &[], None).await.granted(200);
    let metrics = String::from_utf8(stage.ask("GET /metrics", &[], None).await.body).unwrap();
    stage.stop().await;
    let api = prose(&page("http-api.md"));
    let mut names = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, route) in methods.as_object().unwrap() {
            let scopes = route["x-scopes"].as_array().into_iter().flatten().map(|scope| scope.as_str().unwrap());
            let scopes = scopes.collect::<Vec<_>>().join(", ");
            let row = format!(
                "| `{} {path}` | {} |",
                method.to_uppercase(),
                if scopes.is_empty() { "none" } else { &scopes }
            );
            assert!(api.contains(&row), "{row}");
            let params = route["parameters"].as_array().unwrap().iter().map(|param| param["name"].as_str().unwrap());
            names.extend(params.map(str::to_owned));
        }
    }
    let schemas = &document["components"]["schemas"];
    properties(schemas, &mut names);
    assert!(names.len() > 50, "{names:?}");
    for name in names {
        assert!(has(&api, &name), "{name}");
    }
    let codes = schemas["Problem"]["properties"]["code"]["enum"].as_array().unwrap();
    for code in codes.iter().map(|code| code.as_str().unwrap()) {
        assert!(api.contains(&format!("\n| `{code}` | ")), "{code}");
    }
    let operating = prose(&page("operating.md"));
    for name in metrics.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()) {
        assert!(has(&operating, name), "{name}");
    }
}

/// Collects the names of all fields, at any depth.
fn properties(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            let fields = members.get("properties").and_then(Value::as_object);
            names.extend(fields.into_iter().flat_map(|fields| fields.keys().cloned()));
            members.values().for_each(|member| properties(member, names));
        }
        Value::Array(items) => items.iter().for_each(|item| properties(item, names)),
        _ => {}
    }
}

#[test]
fn every_code_is_documented() {
    let printed = prose(&page("http-api.md")) + &prose(&page("operating.md"));
    for Why { code, .. } in Why::all() {
        assert!(has(&printed, code), "{code}");
    }
}

/// A new column must be sealed, or said to be in plain text.
#[test]
fn every_column_of_the_database_is_in_the_threat_model() {
    let rows = page("threat-model.md").section("### What the database shows").unwrap();
    let schema = std::fs::read_to_string(root().join("src/store/schema.rs")).unwrap();
    let columns: Vec<_> = schema.lines().filter_map(|line| line.split_once(" -> ")).collect();
    assert!(columns.len() > 35, "{columns:?}");
    for (column, _) in columns {
        assert!(has(&rows, column.trim()), "{column}");
    }
}
