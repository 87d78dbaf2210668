//! Each setting: right, of a wrong type, from the environment.

use super::{IDP, load, shown, wrong};

/// Section, key, a value as the file has it, as the environment has it, and as it is shown.
const SETTINGS: &[[&str; 5]] = &[
    ["", "deployment", "\"prod-1\"", "prod-1", "prod-1"],
    [
        "server",
        "bind",
        "[\"[::1]:80\", \"unix:/run/ts.sock\"]",
        "[::1]:80,unix:/run/ts.sock",
        "[::1]:80, unix:/run/ts.sock",
    ],
    ["server", "public_url", "\"https://t.example\"", "https://t.example", "https://t.example"],
    ["server", "max_connections", "100", "100", "100"],
    ["store", "url", "\"sqlite://x.db\"", "sqlite://x.db", "sqlite://x.db"],
    ["store", "migrate", "\"auto\"", "auto", "auto"],
    ["journal", "dir", "\"/var/journal\"", "/var/journal", "/var/journal"],
    ["keyring", "file", "\"/etc/keys\"", "/etc/keys", "/etc/keys"],
    ["refresh", "margin_seconds", "301", "301", "301"],
    ["refresh", "connect_timeout_seconds", "4.5", "4.5", "4.5"],
    ["refresh", "attempt_timeout_seconds", "16", "16", "16"],
    ["refresh", "patience_seconds", "121", "121", "121"],
    ["refresh", "send_window_seconds", "6", "6", "6"],
    ["refresh", "settle_seconds", "31", "31", "31"],
    ["refresh", "lease_seconds", "21", "21", "21"],
    ["refresh", "in_doubt", "\"try\"", "try", "try"],
    ["limits", "waiters_per_grant", "7", "7", "7"],
    ["limits", "requests_in_flight", "8", "8", "8"],
    ["limits", "idle_after_seconds", "9", "9", "9"],
    ["limits", "sweep_every_seconds", "0.5", "0.5", "0.5"],
    ["limits", "served_unheard_seconds", "60", "60", "60"],
    ["retention", "timeline_days", "91", "91", "91"],
    ["retention", "tombstone_days", "31", "31", "31"],
    ["log", "format", "\"json\"", "json", "json"],
    ["log", "user", "\"plain\"", "plain", "plain"],
    ["idp.github", "preset", "\"gitlab\"", "gitlab", "gitlab"],
    ["idp.github", "strategy", "\"refresh_token\"", "refresh_token", "refresh_token"],
    ["idp.github", "client_id", "\"other\"", "other", "other"],
    ["idp.github", "client_secret", "\"ts-test-secret-2\"", "ts-test-secret-2", "***"],
    ["idp.github", "client_auth", "\"basic\"", "basic", "basic"],
    ["idp.github", "token_url", "\"https://i.example/t\"", "https://i.example/t", "https://i.example/t"],
    ["idp.github", "revocation_url", "\"https://i.example/r\"", "https://i.example/r", "https://i.example/r"],
    ["idp.github", "introspection_url", "\"https://i.example/i\"", "https://i.example/i", "https://i.example/i"],
    ["idp.github", "userinfo_url", "\"https://i.example/u\"", "https://i.example/u", "https://i.example/u"],
    ["idp.github", "revocation_hits_user", "true", "true", "true"],
    ["idp.github", "allow_http", "true", "true", "true"],
    ["idp.github", "max_concurrency", "4", "4", "4"],
    ["idp.github", "requests_per_second", "2", "2", "2"],
    ["idp.github", "scope", "\"a b\"", "a b", "a b"],
    ["idp.github", "rotation", "\"sometimes\"", "sometimes", "sometimes"],
    ["idp.github", "reuse_grace_seconds", "300", "300", "300"],
    ["idp.github", "retry_safe", "true", "true", "true"],
    ["idp.github", "rotation_ends_access_token", "false", "false", "false"],
    ["idp.github", "access_lifetime_seconds", "3600", "3600", "3600"],
    ["idp.github", "access_lifetime_override_seconds", "1800", "1800", "1800"],
    ["idp.github", "max_access_lifetime_seconds", "86400", "86400", "86400"],
    ["idp.github", "authorization_scheme", "\"token\"", "token", "token"],
    ["idp.github", "expose", "[\"team\", \"region\"]", "team,region", "team, region"],
    ["idp.github", "refresh_lifetime_seconds", "86400", "86400", "86400"],
    ["idp.github", "margin_seconds", "60", "60", "60"],
    ["idp.github", "connect_timeout_seconds", "3", "3", "3"],
    ["idp.github", "attempt_timeout_seconds", "14", "14", "14"],
    ["idp.github", "patience_seconds", "90", "90", "90"],
    ["idp.github", "send_window_seconds", "4", "4", "4"],
    ["idp.github", "settle_seconds", "20", "20", "20"],
    ["idp.github", "lease_seconds", "15", "15", "15"],
    ["idp.github", "in_doubt", "\"ask\"", "ask", "ask"],
];

/// All of their names.
pub(super) fn paths() -> Vec<String> {
    let own = SETTINGS.iter().map(|[section, key, ..]| path(section, key));
    let listed = ["secret", "sha256", "scopes", "idps", "user_prefix", "clients", "params", "name", "client_secret"];
    own.chain(listed.map(str::to_owned)).collect()
}

/// A configuration with `key = value` on its last line.
fn document(section: &str, key: &str, value: &str) -> String {
    let base = IDP.lines().filter(|line| section != "idp.github" || !line.starts_with(&format!("{key} ")));
    let base: String = base.map(|line| format!("{line}\n")).collect();
    match section {
        "" => format!("{key} = {value}\n{base}"),
        "idp.github" => format!("{base}{key} = {value}\n"),
        section => format!("{base}[{section}]\n{key} = {value}\n"),
    }
}

fn path(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

fn variable(section: &str, key: &str) -> String {
    format!("TOKEN_SUPERVISOR__{}", path(section, key).replace('.', "__").to_uppercase())
}

#[test]
fn every_setting_is_read_and_shown_with_its_place() {
    for [section, key, value, _, expected] in SETTINGS {
        let text = document(section, key, value);
        let config = load(&text, &[]).unwrap_or_else(|error| panic!("{text}{error}"));
        let line = 1 + text.lines().position(|line| line.starts_with(&format!("{key} = {value}"))).unwrap();
        let path = path(section, key);
        assert_eq!(shown(&config, &path), Some((*expected, format!("conf.toml:{line}:1"))), "{path}");
    }
}

#[test]
fn every_setting_of_a_wrong_type_is_refused_with_its_line() {
    for [section, key, ..] in SETTINGS {
        let text = document(section, key, "2026-11-01");
        let line = 1 + text.lines().position(|line| line.starts_with(&format!("{key} = 2026"))).unwrap();
        let wrong = wrong(&text, &[]);
        let start = format!("conf.toml:{line}:1: {}: must be ", path(section, key));
        assert!(wrong.len() == 1 && wrong[0].starts_with(&start), "{start} {wrong:?}");
    }
}

#[test]
fn the_environment_goes_before_the_file_and_is_read_by_the_settings_type() {
    for [section, key, value, text, expected] in SETTINGS {
        let variable = variable(section, key);
        for file in [IDP.to_owned(), document(section, key, value), document(section, key, "2026-11-01")] {
            let config = load(&file, &[(&variable, text)]).unwrap_or_else(|error| panic!("{error}"));
            let from = format!("environment variable {variable}");
            assert_eq!(shown(&config, &path(section, key)), Some((*expected, from)), "{file}");
        }
    }
}

#[test]
fn a_variable_of_a_wrong_type_is_named() {
    for [section, key, file, ..] in SETTINGS.iter().filter(|[_, _, file, ..]| !file.contains('"')) {
        let variable = variable(section, key);
        let wrong = wrong(IDP, &[(&variable, "ts-test-secret-x")]);
        let start = format!("environment variable {variable}: {}: must be ", path(section, key));
        assert!(wrong.len() == 1 && wrong[0].starts_with(&start), "{file}: {start} {wrong:?}");
    }
}

#[test]
fn what_nobody_sets_is_the_default_or_the_presets() {
    let config = load(IDP, &[]).unwrap();
    for (path, value, origin) in [
        ("server.bind", "127.0.0.1:8080", "default"),
        ("store.url", "sqlite://token-supervisor.db", "default"),
        ("journal.dir", "token-supervisor.journal", "default"),
        ("keyring.file", "token-supervisor.keys", "default"),
        ("refresh.margin_seconds", "300", "default"),
        ("limits.waiters_per_grant", "16384", "default"),
        ("limits.idle_after_seconds", "600", "default"),
        ("retention.timeline_days", "90", "default"),
        ("log.user", "hash", "default"),
        ("idp.github.token_url", "https://github.com/login/oauth/access_token", "preset github"),
        ("idp.github.rotation", "always", "preset github"),
        ("idp.github.client_secret", "***", "conf.toml:4:1"),
    ] {
        assert_eq!(shown(&config, path), Some((value, origin.to_owned())), "{path}");
    }
    for path in ["deployment", "server.public_url", "idp.github.scope", "idp.github.margin_seconds"] {
        assert_eq!(shown(&config, path), None);
    }
}

#[test]
fn an_identity_provider_with_a_dash_is_found_by_its_variable() {
    let file = IDP.replace("idp.github", "idp.git-hub");
    let config = load(&file, &[("TOKEN_SUPERVISOR__IDP__GIT_HUB__SCOPE", "x")]).unwrap();
    assert_eq!(config.idps["git-hub"].scope.as_deref(), Some("x"));
}

#[test]
fn parameters_of_a_preset_shape_it_and_others_are_sent() {
    let file = "[idp.sso]\npreset = \"keycloak\"\nclient_id = \"id\"\nclient_secret = \"ts-test-secret-c\"\n\
                params = { base = \"https://sso.example/\", realm = \"app\", audience = \"ts-test-secret-p\" }\n";
    let config = load(file, &[("TOKEN_SUPERVISOR__IDP__SSO__PARAMS__REALM", "other")]).unwrap();
    let idp = &config.idps["sso"];
    let endpoint = idp.token_endpoint(&std::collections::BTreeMap::new()).unwrap();
    assert_eq!(endpoint, "https://sso.example/realms/other/protocol/openid-connect/token");
    assert_eq!(idp.params.iter().collect::<Vec<_>>(), [(&"audience".to_owned(), &"ts-test-secret-p".to_owned())]);
    assert_eq!(shown(&config, "idp.sso.params.audience"), Some(("***", "conf.toml:5:58".to_owned())));
    assert_eq!(shown(&config, "idp.sso.params.base"), Some(("https://sso.example/", "conf.toml:5:12".to_owned())));
}

#[test]
fn several_clients_are_tried_in_their_order() {
    let file = "[idp.acme]\npreset = \"oauth2\"\ntoken_url = \"https://acme.example/t\"\nclients = [\n\
                { client_id = \"new\", client_secret = { env = \"NEW\" } },\n\
                { client_id = \"old\", client_secret = \"ts-test-secret-old\" } ]\n";
    let config = load(file, &[("NEW", "ts-test-secret-new")]).unwrap();
    let clients = config.idps["acme"].clients.iter();
    let clients: Vec<_> = clients.map(|client| (&*client.client_id, client.client_secret.expose_secret())).collect();
    assert_eq!(clients, [("new", "ts-test-secret-new"), ("old", "ts-test-secret-old")]);
    let from = "environment variable NEW".to_owned();
    assert_eq!(shown(&config, "idp.acme.clients[0].client_secret"), Some(("***", from)));
}

#[test]
fn times_of_refresh_hold_where_an_identity_provider_has_none() {
    let file = format!("{IDP}margin_seconds = 60\n[refresh]\nmargin_seconds = 120\nlease_seconds = 25\n");
    let timing = load(&file, &[]).unwrap().idps["github"].timing;
    assert_eq!((timing.margin.unwrap().as_secs(), timing.lease.unwrap().as_secs()), (60, 25));
}

#[test]
fn urls_are_shown_without_passwords_and_queries() {
    let url = "https://i.example/t?key=ts-test-secret-query";
    let config = load(&format!("{IDP}token_url = \"{url}\"\n"), &[]).unwrap();
    assert_eq!(shown(&config, "idp.github.token_url").unwrap().0, "https://i.example/t?***");
    assert_eq!(config.idps["github"].token_url, url);
    let config = load("[store]\nurl = \"sqlite://me:ts-test-secret-pw@h/x.db\"\n", &[]).unwrap();
    assert_eq!(shown(&config, "store.url").unwrap().0, "sqlite://me:***@h/x.db");
}
