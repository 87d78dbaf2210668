//! What must fit together, and the file that one starts with.

use super::{Config, IDP, load, wrong};
use crate::config::{Bind, Scope, preset::PRESETS};

const DIGEST: &str = "7bdbff1fbcd23e6385f70af513e082ce902ab18f9d7bb2c7f521806cd6f58e8b"; // of SECRET
const SECRET: &str = "ts-test-secret-of-32-bytes-or-so";

fn key(rest: &str) -> String {
    format!("{IDP}[[server.api_key]]\nname = \"a\"\nscopes = [\"token\"]\n{rest}\n")
}

#[test]
fn what_cannot_work_is_refused_with_its_line() {
    let oauth2 = |rest: &str| {
        format!("[idp.x]\npreset = \"oauth2\"\nclient_id = \"id\"\nclient_secret = \"ts-test-secret-c\"\n{rest}\n")
    };
    let digest = format!("sha256 = \"{DIGEST}\"");
    for (text, expected) in [
        ("[server]\nbind = \"localhost\"".to_owned(), "2:1: server.bind: must be ADDRESS:PORT"),
        ("[server]\nbind = [\"127.0.0.1:1\", \"unix:x\"]".to_owned(), "2:1: server.bind: must be ADDRESS:PORT"),
        ("[server]\nbind = []".to_owned(), "2:1: server.bind: must have at least one address"),
        ("[server]\npublic_url = \"http://x.example\"".to_owned(), "2:1: server.public_url: must be https"),
        ("[server]\npublic_url = \"https://a:b@x.example\"".to_owned(), "2:1: server.public_url: must have no user"),
        ("[server]\npublic_url = \"x\"".to_owned(), "2:1: server.public_url: must be a URL"),
        ("server = 1".to_owned(), "1:1: server: must be a section: write [server]"),
        ("[server]\napi_key = 1".to_owned(), "2:1: server.api_key: must be a list of sections"),
        ("[server]\napi_key = [1]".to_owned(), "2:12: server.api_key[0]: must be a section"),
        (key(""), "5:1: server.api_key[0].sha256: set either `sha256` or `secret`"),
        (key(&format!("{digest}\nsecret = \"ts-test-secret-k\"")), "8:1: server.api_key[0].sha256: set either"),
        (key("sha256 = \"ts-test-secret-k\""), "8:1: server.api_key[0].sha256: must be 64 hexadecimal digits"),
        (key("secret = \"\""), "8:1: server.api_key[0].secret: must not be empty"),
        (key(&format!("secret = \"{}\"", &SECRET[1..])), "8:1: server.api_key[0].secret: must have at least 32 bytes"),
        (key(&format!("{digest}\nexpires_at = \"soon\"")), "9:1: server.api_key[0].expires_at: must be a time"),
        (key(&format!("{digest}\nexpires_at = 2027-01-15")), "9:1: server.api_key[0].expires_at: must be a time"),
        (key(&format!("{digest}\nexpires_at = 1.5")), "9:1: server.api_key[0].expires_at: must be a string"),
        (
            key(&format!("{digest}\nuser_prefix = \"acme/\"")).replace("\"token\"", "\"token\", \"metrics\""),
            "7:1: server.api_key[0].scopes: must not have metrics beside idps or user_prefix: metrics cover all",
        ),
        (
            key(&format!("{digest}\nidps = [\"github\"]")).replace("token", "metrics"),
            "7:1: server.api_key[0].scopes: must not have metrics beside idps or user_prefix: metrics cover all",
        ),
        (key(&format!("{digest}\nidps = [\"gitlab\"]")), "9:1: server.api_key[0].idps: names an identity provider"),
        (key(&format!("{digest}\nuser_prefix = \"acme\"")), "9:1: server.api_key[0].user_prefix: must end in \"/\""),
        (key(&format!("{digest}\nuser_prefix = \"/\"")), "9:1: server.api_key[0].user_prefix: must end in \"/\""),
        (
            key(&format!("{digest}\nrequests_per_second = 0")),
            "9:1: server.api_key[0].requests_per_second: must be a whole",
        ),
        (key(&digest).replace("token", "tokens"), "7:1: server.api_key[0].scopes: must be of: token, grant"),
        (key(&digest).replace("\"token\"", ""), "7:1: server.api_key[0].scopes: must have at least one of"),
        (key(&digest).replace("name = \"a\"", ""), "5:1: server.api_key[0].name: must be set"),
        ("[store]\nurl = \"mysql://ts-test-secret-x\"".to_owned(), "2:1: store.url: must be sqlite://PATH"),
        ("[store]\nurl = \"sqlite://\"".to_owned(), "2:1: store.url: must be sqlite://PATH"),
        ("[keyring]\nfile = \"\"".to_owned(), "2:1: keyring.file: must be a path"),
        ("[limits]\nwaiters_per_grant = 0".to_owned(), "2:1: limits.waiters_per_grant: must be a whole number"),
        ("[limits]\nsweep_every_seconds = 0".to_owned(), "2:1: limits.sweep_every_seconds: must be longer than 0"),
        ("[refresh]\nmargin_seconds = -1".to_owned(), "2:1: refresh.margin_seconds: must be a number of seconds"),
        ("[refresh]\nmargin_seconds = nan".to_owned(), "2:1: refresh.margin_seconds: must be a number of seconds"),
        (
            "[refresh]\nmargin_seconds = 1e300".to_owned(),
            "2:1: refresh.margin_seconds: must be a number of seconds, at least 0 and at most 3162240000",
        ),
        (format!("[refresh]\nlease_seconds = 0\n{IDP}"), "2:1: refresh.lease_seconds: must be longer than 0"),
        (format!("{IDP}reuse_grace_seconds = 30"), "1:6: idp.github: lease + send_window + settle + attempt_timeout"),
        (oauth2(""), "1:6: idp.x.token_url: must be set"),
        (oauth2("token_url = \"http://x.example\""), "5:1: idp.x.token_url: must be https"),
        (
            oauth2("token_url = \"https://x.example\"\nrequests_per_second = 0"),
            "6:1: idp.x.requests_per_second: must be",
        ),
        (oauth2("token_url = \"https://x.example\"\nparams.client_id = \"a\""), "6:1: idp.x.params: must not contain"),
        ("[idp.x]\npreset = \"github\"\nclient_id = \"a\"".to_owned(), "1:6: idp.x.client_secret: must be set, or"),
        (
            "[idp.x]\npreset = \"github\"\nclient_secret = \"ts-test-secret-c\"".to_owned(),
            "1:6: idp.x.client_id: must be",
        ),
        ("[idp.x]".to_owned(), "1:6: idp.x.preset: must be one of: "),
        ("[idp]\nx = 1".to_owned(), "2:1: idp: must be a section: write [idp.NAME]"),
        ("[idp.\"ts-test-secret-N\"]".to_owned(), "1:6: idp: the name of an identity provider must match"),
        (format!("{IDP}clients = []"), "5:1: idp.github.clients: set either"),
        ("[idp.x]\npreset = \"github\"\nclients = []".to_owned(), "3:1: idp.x.clients: must have at least one client"),
        (
            "[idp.x]\npreset = \"keycloak\"\nclient_id = \"a\"\nclient_secret = \"ts-test-secret-c\"".to_owned(),
            "1:6: idp.x.params: preset keycloak needs base: write params = { base = \"https://sso.example.com\" }",
        ),
    ] {
        let wrong = wrong(&text, &[]);
        let expected = format!("conf.toml:{expected}");
        assert!(wrong.len() == 1 && wrong[0].starts_with(&expected), "{text}\n{expected}\n{wrong:#?}");
    }
}

#[test]
fn a_list_of_sections_is_for_the_file() {
    let wrong = wrong("", &[("TOKEN_SUPERVISOR__SERVER__API_KEY", "ts-test-secret-x")]);
    assert!(wrong.len() == 1 && wrong[0].contains("server.api_key: a list of sections cannot be set by a variable"));
}

#[test]
fn api_keys_are_kept_as_digests_and_may_overlap() {
    let text = format!(
        "{}idps = [\"github\"]\nuser_prefix = \"acme/\"\n[[server.api_key]]\nname = \"a\"\nscopes = [\"admin\", \"metrics\"]\nsecret = \"another-{SECRET}\"\nexpires_at = 2027-01-15T08:00:00Z\n",
        key(&format!("sha256 = \"{}\"", DIGEST.to_uppercase()))
    );
    let config = load(&text, &[]).unwrap();
    let [first, second] = &config.server().api_keys[..] else { panic!("{config:?}") };
    assert_eq!((first.sha256[0], first.sha256[31]), (0x7b, 0x8b));
    assert_eq!((first.idps.as_deref(), &*first.user_prefix), (Some(&["github".to_owned()][..]), "acme/"));
    assert_eq!((&*second.name, &second.scopes[..], &second.idps), ("a", &[Scope::Admin, Scope::Metrics][..], &None));
    let end = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
    assert_eq!([first.expiry(), second.expiry()], [None, Some(end)]);
    let twice = format!(
        "{}[[server.api_key]]\nname = \"b\"\nscopes = [\"token\"]\nsecret = \"{SECRET}\"\n",
        key(&format!("sha256 = \"{DIGEST}\""))
    );
    let wrong = wrong(&twice, &[]);
    assert_eq!(wrong, ["conf.toml:9:1: server.api_key[1]: is the same key as one before it: remove one of them"]);
}

#[test]
fn a_key_ring_that_cannot_be_read_is_found_at_its_setting() {
    let config = load("[keyring]\nfile = \"/nowhere/x.keys\"\n", &[]).unwrap();
    let error = config.check().unwrap_err().to_string();
    assert!(error.starts_with("conf.toml:2:1: keyring.file: cannot read key file /nowhere/x.keys"), "{error}");
    assert!(config.builder().is_err());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.keys");
    crate::Keyring::generate().write_new(&path).unwrap();
    let config = load(&format!("[keyring]\nfile = '{}'\n", path.display()), &[]).unwrap();
    config.check().unwrap();
    assert!(config.builder().is_ok());
}

#[test]
fn a_time_that_must_not_be_zero_is_told_where_it_stands() {
    for key in ["lease_seconds", "attempt_timeout_seconds", "send_window_seconds"] {
        let variable = format!("TOKEN_SUPERVISOR__REFRESH__{}", key.to_uppercase());
        let expected = format!("environment variable {variable}: refresh.{key}: must be longer than 0");
        assert_eq!(wrong(IDP, &[(&variable, "0")]), [expected]);
        let expected = format!("conf.toml:5:1: idp.github.{key}: must be longer than 0");
        assert_eq!(wrong(&format!("{IDP}{key} = 0\n"), &[]), [expected]);
    }
}

#[test]
fn the_template_loads_for_every_preset() {
    for preset in PRESETS {
        let text = Config::template(Some(preset.name)).unwrap();
        let variable = preset.name.to_uppercase();
        let (id, secret) = (format!("{variable}_CLIENT_ID"), format!("{variable}_CLIENT_SECRET"));
        let config =
            load(&text, &[(&id, "id"), (&secret, "ts-test-secret-c")]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.idps().map(|(name, _)| name).collect::<Vec<_>>(), [preset.name]);
    }
    assert!(load(&Config::template(None).unwrap(), &[]).is_ok());
    assert_eq!(Config::template(Some("nothing")), None);
}

#[test]
fn what_the_template_calls_the_default_is_the_default() {
    let text = Config::template(None).unwrap();
    let said: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.contains(" = ") && !setting.starts_with("Any") => setting,
            _ => line,
        })
        .filter(|line| {
            ![
                "public_url",
                "name",
                "sha256",
                "scopes",
                "idps",
                "user_prefix",
                "expires_at",
                "requests_per_second",
                "preset",
                "client",
                "TOKEN",
            ]
            .iter()
            .any(|own| line.starts_with(own))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let (said, unsaid) = (load(&said, &[]).unwrap(), load("", &[]).unwrap());
    assert!(said.show().iter().filter(|shown| shown.origin != crate::config::Origin::Default).count() > 10);
    for shown in unsaid.show() {
        assert!(
            said.show().iter().any(|other| (&other.path, &other.value) == (&shown.path, &shown.value)),
            "{shown:?}"
        );
    }
    assert!(matches!(unsaid.server().bind[..], [Bind::Tcp(_)]));
}
