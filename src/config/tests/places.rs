//! What is unknown, missing, not text, or not here yet; and where files are looked for.

use std::path::Path;

use super::{Environment, IDP, Source, load, shown, wrong};

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_name() {
    for (text, expected) in [
        ("[sever]\n", "conf.toml:1:2: unknown key: did you mean `server`?"),
        ("\n[server]\n bidn = 1\n", "conf.toml:3:2: server: unknown key: did you mean `bind`?"),
        ("refresh.margin = 3\n", "conf.toml:1:9: refresh: unknown key: did you mean `margin_seconds`?"),
        ("[log]\nts-test-secret-key = 1\n", "conf.toml:2:1: log: unknown key: known here are format, user"),
        (
            "[[server.api_key]]\nname = \"x\"\nsha265 = \"\"\nsecret = \"ts-test-secret-of-32-bytes-or-so\"\nscopes = [\"token\"]\n",
            "conf.toml:3:1: server.api_key[0]: unknown key: did you mean `sha256`?",
        ),
    ] {
        assert_eq!(wrong(text, &[]), [expected], "{text}");
    }
    let text = format!("{IDP}client_secrte = \"ts-test-secret-typo\"\n");
    assert_eq!(wrong(&text, &[]), ["conf.toml:5:1: idp.github: unknown key: did you mean `client_secret`?"]);
    let variable = ("TOKEN_SUPERVISOR__SERVER__BNID", "ts-test-secret-x");
    let expected = "environment variable TOKEN_SUPERVISOR__SERVER__BNID: server: unknown key: did you mean `bind`?";
    assert_eq!(wrong("", &[variable]), [expected]);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text =
        "deploy = 1\n[log]\nformat = 2\nuser = \"ts-test-secret-user\"\n[idp.x]\npreset = \"nothing\"\nscoep = 1\n";
    let expected = [
        "conf.toml:1:1: unknown key: did you mean `deployment`?",
        "conf.toml:3:1: log.format: must be a string, { env = \"NAME\" } or { file = \"PATH\" }",
        "conf.toml:4:1: log.user: must be one of: hash, plain",
        "conf.toml:6:1: idp.x.preset: must be one of: ",
        "conf.toml:7:1: idp.x: unknown key: did you mean `scope`?",
        "environment variable TOKEN_SUPERVISOR__SERVER__BIND: server.bind: must be ADDRESS:PORT",
    ];
    let wrong = wrong(text, &[("TOKEN_SUPERVISOR__SERVER__BIND", "ts-test-secret-x")]);
    assert_eq!(wrong.len(), expected.len(), "{wrong:?}");
    assert!(wrong.iter().zip(expected).all(|(wrong, expected)| wrong.starts_with(expected)), "{wrong:?}");
}

#[test]
fn what_is_not_toml_is_refused_with_its_line_and_not_shown() {
    for text in [
        "[log]\nformat = ts-test-secret-bare\n",
        "[log]\nformat = \"ts-test-secret-open\n",
        "[log]\nts-test-secret-a = 1\nts-test-secret-a = 2\n",
        "[log]\n[log\n",
    ] {
        let wrong = wrong(text, &[]);
        assert!(
            wrong.len() == 1 && wrong[0].starts_with("conf.toml:") && wrong[0].contains(": not TOML: "),
            "{wrong:?}"
        );
        assert!(!wrong[0].starts_with("conf.toml:1:"), "{wrong:?}");
    }
}

#[test]
fn a_later_versions_settings_are_refused_rather_than_passed_over() {
    for (text, path) in [
        ("[[server.jwt]]\nissuer = \"x\"\n", "server.jwt"),
        ("[connect]\nreturn_to = []\n", "connect"),
        ("[webhook.crm]\nurl = \"x\"\n", "webhook"),
    ] {
        let wrong = wrong(text, &[]);
        let expected = format!(": {path}: this version does not support this setting yet: remove it");
        assert!(wrong.len() == 1 && wrong[0].ends_with(&expected), "{wrong:?}");
    }
    for key in ["proxy", "tls_root_certificate"] {
        let expected =
            format!("conf.toml:5:1: idp.github.{key}: this version does not support this setting yet: remove it");
        assert_eq!(wrong(&format!("{IDP}{key} = \"https://x.example\"\n"), &[]), [expected]);
    }
    for (text, expected) in [
        (
            format!("{IDP}strategy = \"token_exchange\"\n"),
            "idp.github.strategy: this version does not support that yet",
        ),
        (format!("{IDP}client_auth = \"private_key_jwt\"\n"), "idp.github.client_auth: this version does not support"),
    ] {
        let wrong = wrong(&text, &[]);
        assert!(wrong.len() == 1 && wrong[0].contains(expected), "{wrong:?}");
    }
}

#[test]
fn a_string_may_stand_in_a_variable_or_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let text = |value: &str| format!("[idp.x]\npreset = \"github\"\nclient_id = \"id\"\nclient_secret = {value}\n");
    let in_file = text(&format!("{{ file = '{}' }}", file.display()));
    for (written, expected) in [
        ("ts-test-secret-a", "ts-test-secret-a"),
        ("ts-test-secret-a\n", "ts-test-secret-a"),
        ("ts-test-secret-b\r\n", "ts-test-secret-b"),
        ("ts-test-secret-c\n\n\n", "ts-test-secret-c"),
        ("ts-test-secret-d \t\r\n", "ts-test-secret-d"),
        ("\u{feff}ts-test-secret-e\n", "ts-test-secret-e"),
        (" f g\n", " f g"),
    ] {
        std::fs::write(&file, written).unwrap();
        let config = load(&in_file, &[]).unwrap();
        assert_eq!(config.idps["x"].clients[0].client_secret.expose_secret(), expected);
        let origin = format!("file {}", file.display());
        assert_eq!(shown(&config, "idp.x.client_secret"), Some(("***", origin)));
    }
    std::fs::write(&file, "ts-test-secret-a\nts-test-secret-b").unwrap();
    let two_lines = wrong(&in_file, &[]);
    assert!(two_lines.len() == 1 && two_lines[0].contains("control characters"), "{two_lines:?}");
    std::fs::write(&file, [0xff]).unwrap();
    let wrong_with = |text: &str| {
        let wrong = wrong(text, &[]);
        assert!(wrong.len() == 1 && wrong[0].starts_with("conf.toml:4:1: idp.x.client_secret: "), "{wrong:?}");
        wrong[0]["conf.toml:4:1: idp.x.client_secret: ".len()..].to_owned()
    };
    assert!(wrong_with(&in_file).starts_with("cannot read the file that it names"));
    let absent = text("{ file = \"/nowhere/ts-test-secret-path\" }");
    assert!(wrong_with(&absent).starts_with("cannot read the file that it names"));
    let unset = text("{ env = \"ts-test-secret-name\" }");
    assert_eq!(wrong_with(&unset), "the environment variable that it names is not set: set it");
    assert_eq!(wrong_with(&text("{ env = 1 }")), "`env` must be a string");
    assert_eq!(
        wrong_with(&text("{ env = \"A\", file = \"b\" }")),
        "must have either `env` or `file`, and nothing else"
    );
    assert!(wrong_with(&text("{ evn = \"A\" }")).starts_with("must be a string, { env"));
}

#[test]
fn strings_in_lists_may_stand_elsewhere_too() {
    let config = load("[server]\nbind = [\"127.0.0.1:1\", { env = \"AT\" }]\n", &[("AT", "127.0.0.1:2")]).unwrap();
    assert_eq!(config.server().bind[1].to_string(), "127.0.0.1:2");
    assert_eq!(shown(&config, "server.bind").unwrap().0, "***");
}

#[test]
fn a_file_is_found_where_it_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["said", "variable", "etc"] {
        std::fs::write(path(name), name).unwrap();
    }
    let (here, etc, absent) = (path("here"), path("etc"), path("absent"));
    let find = |said: Option<&str>, variables: &[(&str, &str)], places: &[&str]| {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let found = Source::find(said.map(Path::new), Environment::new(variables), places);
        found.map(|source| source.text.to_string()).map_err(|error| error.to_string())
    };
    let variable = path("variable");
    let variables = [("TOKEN_SUPERVISOR_CONFIG", variable.as_str())];
    assert_eq!(find(Some(&path("said")), &variables, &[&here, &etc]).unwrap(), "said");
    assert_eq!(find(None, &variables, &[&here, &etc]).unwrap(), "variable");
    assert_eq!(find(None, &[("TOKEN_SUPERVISOR_CONFIG", "")], &[&here, &etc]).unwrap(), "etc");
    std::fs::write(&here, "here").unwrap();
    assert_eq!(find(None, &[], &[&here, &etc]).unwrap(), "here");
    // One that is said to be there must be.
    let error = find(Some(&absent), &variables, &[&here]).unwrap_err();
    assert!(error.starts_with(&format!("cannot read the configuration file {absent}: ")), "{error}");
    // Without any the environment says everything, or nothing does.
    assert_eq!(find(None, &[("TOKEN_SUPERVISOR__DEPLOYMENT", "x")], &[&absent]).unwrap(), "");
    let error = find(None, &[], &[&absent]).unwrap_err();
    assert!(error.starts_with(&format!("no configuration at {absent}, ")) && error.contains("init"), "{error}");
}
