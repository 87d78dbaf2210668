//! Whatever bytes come: no panic, and no secret in what is said.

use proptest::prelude::*;

use super::{IDP, read, settings};

/// Pieces that documents are made of, so that they get beyond the syntax.
fn piece() -> impl Strategy<Value = String> {
    let keys = settings::paths();
    let value = prop_oneof![
        Just("\"ts-test-secret-value\"".to_owned()),
        Just("ts-test-secret-bare".to_owned()),
        Just("'''ts-test-secret-open".to_owned()),
        Just("{ env = \"ts-test-secret-name\" }".to_owned()),
        Just("{ env = \"SECRET\" }".to_owned()),
        Just("{ file = \"/ts-test-secret-file\" }".to_owned()),
        Just("[\"ts-test-secret-item\", { env = \"SECRET\" }]".to_owned()),
        Just("[{ name = \"ts-test-secret-name\", client_id = \"ts-test-secret-id\" }]".to_owned()),
        Just("\"https://ts-test-secret-user:ts-test-secret-pw@h:99999/?ts-test-secret-q\"".to_owned()),
        Just("\"sqlite:ts-test-secret-path\"".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:?}")),
        "\\PC{0,12}",
    ];
    prop_oneof![
        4 => (prop::sample::select(keys), value).prop_map(|(key, value)| format!("{key} = {value}\n")),
        1 => prop::sample::select(vec!["[server]\n", "[[server.api_key]]\n", "[idp.github]\n", "[refresh]\n", IDP])
            .prop_map(str::to_owned),
        1 => "\\PC{0,20}\n",
    ]
}

/// What is said of a mistake, and what is shown of the settings that are secrets.
fn told(text: &str, environment: &[(&str, &str)]) -> String {
    match read(text, environment) {
        Err(error) => format!("{error:?} {error}"),
        Ok(config) => {
            let secret =
                |path: &str| ["secret", "sha256"].iter().any(|end| path.ends_with(end)) || path.contains("params");
            let secrets = config.show().iter().filter(|shown| secret(&shown.path));
            secrets.map(|shown| format!("{shown:?}")).collect()
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_tell_a_secret(pieces in prop::collection::vec(piece(), 0..12), value in "\\PC{0,20}") {
        let text = pieces.concat();
        let environment = [
            ("SECRET", "ts-test-secret-env"),
            ("TOKEN_SUPERVISOR__IDP__GITHUB__CLIENT_SECRET", "ts-test-secret-over"),
            ("TOKEN_SUPERVISOR__REFRESH__MARGIN_SECONDS", value.as_str()),
        ];
        let told = told(&text, &environment);
        prop_assert!(!told.contains("ts-test-secret-"), "{}", told);
    }
}

#[test]
fn depth_is_no_trouble() {
    let dotted = format!("{} = 1\n", vec!["a"; 100_000].join("."));
    let lists = format!("a = {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    for text in [dotted, lists] {
        assert!(read(&text, &[]).is_err());
    }
    let variable = format!("TOKEN_SUPERVISOR{}", "__A".repeat(30_000));
    assert!(read("", &[(&variable, "x")]).is_err());
}
