//! Quirks of real responses, and arbitrary values. `crate::fuzz` tests arbitrary bytes.

use proptest::prelude::*;

use super::*;

fn json(body: &str) -> Fields {
    decode(Some("application/json;charset=UTF-8"), body.as_bytes(), &[])
        .unwrap_or_else(|| panic!("not decoded: {body}"))
}

fn exposed(fields: &Fields) -> (Option<&str>, Option<&str>) {
    let access = fields.access_token.as_ref().map(AccessToken::expose_secret);
    (access, fields.refresh_token.as_ref().map(RefreshToken::expose_secret))
}

#[test]
fn a_response_of_keycloak_and_gitlab() {
    let fields = json(
        r#"{"access_token":"ts-test-secret-a","expires_in":7200,"refresh_expires_in":0,
            "refresh_token":"ts-test-secret-r","token_type":"Bearer","not-before-policy":0,
            "session_state":"x","scope":"email profile","created_at":1607635748}"#,
    );
    assert!(fields.json);
    assert_eq!(exposed(&fields), (Some("ts-test-secret-a"), Some("ts-test-secret-r")));
    assert_eq!(fields.token_type.as_deref(), Some("Bearer"));
    assert_eq!(fields.expires_in, Some(Duration::from_secs(7_200)));
    assert_eq!(fields.refresh_expires, Some(RefreshLifetime::Never));
    assert_eq!(fields.created_at, Some(WallTime(1_607_635_748_000)));
    assert_eq!(fields.scope.as_deref(), Some("email profile"));
    assert_eq!((fields.error, fields.subject), (None, None));
}

#[test]
fn a_form_is_recognised_whatever_the_content_type_says() {
    let body = b"access_token=ts-test-secret-a%2B1&expires_in=28800&refresh_token=ts-test-secret-r&\
        refresh_token_expires_in=15811200&scope=&token_type=bearer\n";
    let types = [Some("application/x-www-form-urlencoded; charset=utf-8"), Some("text/plain"), None];
    for content_type in types.into_iter().chain([Some("application/json")]) {
        let fields = decode(content_type, body, &[]).unwrap();
        assert!(!fields.json);
        assert_eq!(exposed(&fields), (Some("ts-test-secret-a+1"), Some("ts-test-secret-r")));
        assert_eq!(fields.expires_in, Some(Duration::from_secs(28_800)));
        assert_eq!(fields.refresh_expires, Some(RefreshLifetime::In(Duration::from_secs(15_811_200))));
        assert_eq!(fields.scope, None);
    }
    assert!(decode(Some("application/x-www-form-urlencoded"), b"{\"error\":\"x\"}", &[]).unwrap().json);
}

#[test]
fn a_body_that_is_neither_json_object_nor_form_is_rejected() {
    let html = b"<a href='?x=1&error=invalid_grant&access_token=x'>sign in</a>";
    let sentence = b"Sorry, no luck &error=invalid_grant";
    let bodies: [&[u8]; 10] =
        [b"", b"  ", b"null", b"[{\"error\":\"x\"}]", b"{\"error\":\"x\"", b"{} {}", b"\"x=1\"", html, sentence, b"ok"];
    for body in bodies {
        assert!(decode(Some("text/html"), body, &[]).is_none(), "{}", body.escape_ascii());
        assert!(decode(None, body, &[]).is_none(), "{}", body.escape_ascii());
    }
}

#[test]
fn numbers_come_in_many_forms() {
    for (value, expected) in [
        ("3600", Some(3_600.0)),
        ("\"3600\"", Some(3_600.0)),
        ("\" 3600 \"", Some(3_600.0)),
        ("3599.5", Some(3_599.5)),
        ("0", None),
        ("\"0\"", None),
        ("-5", None),
        ("18446744073709551615", Some(3_155_760_000.0)),
        ("1e300", Some(3_155_760_000.0)),
        ("null", None),
        ("\"\"", None),
        ("\"soon\"", None),
        ("\"inf\"", None),
        ("\"NaN\"", None),
        ("true", None),
        ("{\"seconds\":1}", None),
        ("[1]", None),
    ] {
        let fields = json(&format!(r#"{{"expires_in":{value},"access_token":"ts-test-secret-a"}}"#));
        assert_eq!(fields.expires_in.map(|life| life.as_secs_f64()), expected, "{value}");
        assert!(fields.access_token.is_some(), "{value}");
    }
}

#[test]
fn null_empty_and_meaningless_values_are_absent() {
    let fields = json(
        r#"{"access_token":null,"refresh_token":"","token_type":{},"error":{"code":"invalid_grant"},
            "refresh_expires_in":-1,"created_at":"2026-11-01T00:00:00Z","scope":[],"sub":null,"x":[[[{}]]]}"#,
    );
    let rest = Fields { json: true, ..Fields::default() };
    assert_eq!(format!("{fields:?}"), format!("{rest:?}"));
    for error in [r#""Not Found""#, r#""""#, "5", r#"["invalid_grant"]"#, r#""a\nb""#, &format!("{:?}", "x".repeat(65))]
    {
        assert_eq!(json(&format!(r#"{{"error":{error}}}"#)).error, None, "{error}");
    }
    assert_eq!(json("\u{feff}{\"error\":\"invalid_grant\"}").error.as_deref(), Some("invalid_grant"));
}

#[test]
fn scope_may_be_a_list_or_plural() {
    for (body, expected) in [
        (r#"{"scope":["a","b"]}"#, "a b"),
        (r#"{"scopes":"account repository"}"#, "account repository"),
        (r#"{"scopes":["a",[["x"]],{"y":1},null,"b"]}"#, "a b"),
        (r#"{"scope":"","scopes":"c"}"#, "c"),
    ] {
        assert_eq!(json(body).scope.as_deref(), Some(expected), "{body}");
    }
}

#[test]
fn the_subject_comes_from_sub_or_from_the_id_token() {
    let id_token = |payload: &str| format!("e30.{}.ts-test-secret-signature", URL_SAFE_NO_PAD.encode(payload));
    let with = |token: &str| json(&format!(r#"{{"id_token":"{token}"}}"#)).subject;
    assert_eq!(with(&id_token(r#"{"sub":"alice","aud":["x"]}"#)).as_deref(), Some("alice"));
    for broken in
        ["", "a", "a.b.c", "..", &id_token("{}"), &id_token(r#"{"sub":7}"#), &id_token(r#"{"sub":"a\u0000"}"#)]
    {
        assert_eq!(with(broken), None, "{broken}");
    }
    let both = format!(r#"{{"id_token":"{}","sub":42}}"#, id_token(r#"{"sub":"alice"}"#));
    assert_eq!(json(&both).subject.as_deref(), Some("42"));
}

#[test]
fn deep_nesting_neither_overflows_nor_hides_other_fields() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert!(json(&format!(r#"{{"x":{deep},"access_token":"ts-test-secret-a"}}"#)).access_token.is_some());
    let _ = decode(None, format!(r#"{{"scope":{deep}}}"#).as_bytes(), &[]);
    let _ = decode(None, "{\"scope\":".repeat(100_000).as_bytes(), &[]);
}

#[test]
fn fields_of_error_rules_are_found_by_their_path() {
    let more = ["codes", "errors.errorType", "a.b.c", "flag", "text"];
    let read = |body: &str| decode(None, body.as_bytes(), &more).unwrap_or_else(|| panic!("not decoded: {body}"));
    for (body, path, value, expected) in [
        (r#"{"codes":[50173,"x"]}"#, "codes", "50173", true),
        (r#"{"codes":[50173,"x"]}"#, "codes", "x", true),
        (r#"{"codes":50173}"#, "codes", "50173", true),
        (r#"{"codes":[[50173]]}"#, "codes", "50173", false),
        (r#"{"codes":[150173]}"#, "codes", "50173", false),
        (r#"{"codes":[1],"codes":[2]}"#, "codes", "1", false),
        (r#"{"codes":[1],"codes":null}"#, "codes", "1", true),
        (r#"{"errors":[{"errorType":"a"},{"errorType":"b","x":{"errorType":"c"}}]}"#, "errors.errorType", "b", true),
        (r#"{"errors":[{"errorType":"a"},{"errorType":"b","x":{"errorType":"c"}}]}"#, "errors.errorType", "c", false),
        (r#"{"errors":{"errorType":"a"}}"#, "errors.errorType", "a", true),
        (r#"{"errors":{"errorType":"a"},"errors":{"errorType":"b"}}"#, "errors.errorType", "a", false),
        (r#"{"errorType":"a"}"#, "errors.errorType", "a", false),
        (r#"{"a":{"b":{"c":-1.5}}}"#, "a.b.c", "-1.5", true),
        (r#"{"a":{"c":"x"},"b":{"c":"x"}}"#, "a.b.c", "x", false),
        (r#"{"flag":false}"#, "flag", "false", true),
        (r#"{"ok":false}"#, "ok", "false", true),
        (r#"{"ok":"true"}"#, "ok", "false", false),
        (r#"{"text":"Access Denied"}"#, "text", "Access Denied", true),
        (r#"{"text":"Access Denied."}"#, "text", "Access Denied", false),
        (r#"{"unasked":"x"}"#, "unasked", "x", false),
        ("text=Access+Denied&codes=1&codes=2", "text", "Access Denied", true),
        ("text=Access+Denied&codes=1&codes=2", "codes", "1", false),
        ("text=x&errors.errorType=a", "errors.errorType", "a", true),
    ] {
        assert_eq!(read(body).has(path, value), expected, "{body} {path} {value}");
    }
    assert_eq!(read(r#"{"codes":["no code",{"x":1},"code","other"]}"#).code("codes"), Some("code"));
    let long = format!(r#"{{"codes":[{}1],"text":"x"}}"#, "0,".repeat(100_000));
    assert!(read(&long).has("codes", "0") && !read(&long).has("codes", "1") && read(&long).has("text", "x"));
    assert!(!format!("{:?}", read(r#"{"text":"ts-test-secret-x","error":"ts-test secret-x"}"#)).contains("ts-test"));
}

fn any_content_type() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, Some("application/json"), Some("application/x-www-form-urlencoded"), Some("x")])
}

proptest! {
    #[test]
    fn arbitrary_values_never_panic_and_debug_shows_no_secret(
        content_type in any_content_type(),
        name in prop::sample::select(NAMES.to_vec()),
        value in "[\\[\\]{}\",:0-9eE+.a-z\\\\-]{0,40}",
    ) {
        let token = "ts-test-secret-a";
        let bodies = [
            format!(r#"{{"access_token":"{token}","refresh_token":"{token}","{name}":{value}}}"#),
            format!("access_token={token}&refresh_token={token}&id_token={token}&{name}={value}"),
        ];
        for body in bodies {
            let fields = decode(content_type, body.as_bytes(), &[]);
            let shown = format!("{fields:?}");
            prop_assert!(!shown.contains("ts-test-secret"));
        }
    }
}
