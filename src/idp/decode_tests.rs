//! Quirks of real responses, and arbitrary values. `crate::fuzz` tests arbitrary bytes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::WallTime;

fn json(body: &str) -> Fields {
    decode(Some("application/json;charset=UTF-8"), body.as_bytes(), &Layout::standard())
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
    assert_eq!(fields.expires, Some(Ends::In(Duration::from_secs(7_200))));
    assert!(fields.refresh_never_expires && fields.refresh_expires.is_empty());
    assert_eq!(fields.scope.as_deref(), Some("email profile"));
    assert_eq!((fields.error, fields.subject), (None, None));
}

#[test]
fn a_form_is_recognised_whatever_the_content_type_says() {
    let body = b"access_token=ts-test-secret-a%2B1&expires_in=28800&refresh_token=ts-test-secret-r&\
        refresh_token_expires_in=15811200&scope=&token_type=bearer\n";
    let types = [Some("application/x-www-form-urlencoded; charset=utf-8"), Some("text/plain"), None];
    for content_type in types.into_iter().chain([Some("application/json")]) {
        let fields = decode(content_type, body, &Layout::standard()).unwrap();
        assert!(!fields.json);
        assert_eq!(exposed(&fields), (Some("ts-test-secret-a+1"), Some("ts-test-secret-r")));
        assert_eq!(fields.expires, Some(Ends::In(Duration::from_secs(28_800))));
        assert_eq!(fields.refresh_expires, [Ends::In(Duration::from_secs(15_811_200))]);
        assert_eq!(fields.scope, None);
    }
    assert!(decode(Some("application/x-www-form-urlencoded"), b"{\"error\":\"x\"}", &Layout::standard()).unwrap().json);
}

#[test]
fn a_body_that_is_neither_json_object_nor_form_is_rejected() {
    let html = b"<a href='?x=1&error=invalid_grant&access_token=x'>sign in</a>";
    let sentence = b"Sorry, no luck &error=invalid_grant";
    let bodies: [&[u8]; 10] =
        [b"", b"  ", b"null", b"[{\"error\":\"x\"}]", b"{\"error\":\"x\"", b"{} {}", b"\"x=1\"", html, sentence, b"ok"];
    for body in bodies {
        assert!(decode(Some("text/html"), body, &Layout::standard()).is_none(), "{}", body.escape_ascii());
        assert!(decode(None, body, &Layout::standard()).is_none(), "{}", body.escape_ascii());
    }
}

#[test]
fn a_lifetime_has_many_names_and_forms() {
    let seconds = |seconds: u64| Some(Ends::In(Duration::from_secs(seconds)));
    let at = Some(Ends::At(WallTime(1_795_946_400_000)));
    for (members, expected, senseless) in [
        (r#""expires_in":3600"#, seconds(3_600), None),
        (r#""expires_in":"3600""#, seconds(3_600), None),
        (r#""expires_in":"3600s""#, seconds(3_600), None),
        (r#""expires_in":3599.0"#, seconds(3_599), None),
        (r#""expires_at":1795946400"#, at, None),
        (r#""expires_at":"2026-11-29T10:00:00Z""#, at, None),
        (r#""expires_on":"1795946400""#, at, None),
        (r#""expires":1795946400000"#, at, None),
        (r#""expires":3600"#, seconds(3_600), Some("expires_at")),
        (r#""expiry":"2026-11-29T10:00:00.000000000Z""#, at, None),
        (r#""expires_in":60,"expires_at":1795946400"#, seconds(60), None),
        (r#""expires_in":null,"expires_at":1795946400"#, at, None),
        (r#""expires_in":0,"expires_on":1795946400"#, at, None),
        (r#""expires_in":"soon","expiry":"2026-11-29T10:00:00Z""#, at, None),
        (r#""expires_in":1795946400"#, at, Some("expires_in")),
        (r#""expires_in":86400000"#, seconds(86_400), Some("expires_in")),
        (r#""expires_in":18446744073709551615"#, seconds(34_560_000), Some("expires_in")),
        (r#""expires_in":1e300"#, seconds(34_560_000), Some("expires_in")),
        (r#""expires_in":0"#, None, None),
        (r#""expires_in":-5"#, None, None),
        (r#""expires_in":"""#, None, None),
        (r#""expires_in":true"#, None, None),
        (r#""expires_in":{"seconds":1}"#, None, None),
        (r#""expires_in":[1]"#, None, None),
        (r#""expiry":"0001-01-01T00:00:00Z""#, None, None),
    ] {
        let fields = json(&format!(r#"{{{members},"access_token":"ts-test-secret-a"}}"#));
        assert_eq!(fields.expires, expected, "{members}");
        assert_eq!(fields.senseless.first().copied(), senseless, "{members}");
        assert!(fields.access_token.is_some(), "{members}");
    }
}

#[test]
fn a_refresh_token_ends_at_the_earliest_of_what_is_said() {
    let seconds = |seconds: u64| Ends::In(Duration::from_secs(seconds));
    for (members, expected, never) in [
        (r#""refresh_expires_in":1800"#, vec![seconds(1_800)], false),
        (r#""refresh_token_expires_in":"1800""#, vec![seconds(1_800)], false),
        (r#""x_refresh_token_expires_in":8640000"#, vec![seconds(8_640_000)], false),
        (r#""refresh_token_timeout":600,"authorization_expires_in":900"#, vec![seconds(600), seconds(900)], false),
        (r#""refresh_token_expires_at":1795946400"#, vec![Ends::At(WallTime(1_795_946_400_000))], false),
        (r#""refresh_expires_in":315360000"#, vec![seconds(315_360_000)], false),
        (r#""refresh_expires_in":0"#, vec![], true),
        (r#""refresh_expires_in":"0""#, vec![], true),
        (r#""refresh_expires_in":-1"#, vec![], false),
        (r#""refresh_expires_in":null"#, vec![], false),
    ] {
        let fields = json(&format!(r#"{{{members},"refresh_token":"ts-test-secret-r"}}"#));
        assert_eq!((fields.refresh_expires, fields.refresh_never_expires), (expected, never), "{members}");
    }
}

#[test]
fn fields_are_found_where_the_settings_say() {
    let own = BTreeMap::from([
        (ResponseField::AccessToken, "body.access_token".to_owned()),
        (ResponseField::RefreshToken, "body.tokens.1.value".to_owned()),
        (ResponseField::ExpiresIn, "body.ext".to_owned()),
        (ResponseField::Error, "status".to_owned()),
    ]);
    let success = ["0".to_owned(), "ok".to_owned()];
    let layout = Layout { success: &success, ..Layout::new(&own) };
    let read = |body: &str| decode(None, body.as_bytes(), &layout).unwrap();
    let body = r#"{"access_token":"ts-test-secret-a","tokens":[{"value":"x"},{"value":"ts-test-secret-r"}],"ext":60}"#;
    for status in ["0", "\"0\"", "\"ok\""] {
        let fields = read(&format!(r#"{{"status":{status},"body":{body}}}"#));
        assert_eq!(exposed(&fields), (Some("ts-test-secret-a"), Some("ts-test-secret-r")), "{status}");
        assert_eq!((fields.expires, fields.error), (Some(Ends::In(Duration::from_secs(60))), None), "{status}");
    }
    for (body, expected) in [
        (r#"{"status":40101,"body":null}"#, Some("40101")),
        (r#"{"status":"token_dead"}"#, Some("token_dead")),
        (r#"{"status":"no such token, sorry"}"#, None),
        (r#"{"error":"invalid_grant"}"#, Some("invalid_grant")),
        (r#"{"status":0,"error":"invalid_grant"}"#, None),
    ] {
        let fields = read(body);
        assert_eq!((fields.error.as_deref(), exposed(&fields)), (expected, (None, None)), "{body}");
    }
    let plain = read(r#"{"access_token":"ts-test-secret-a","refresh_token":7}"#);
    assert_eq!(exposed(&plain), (Some("ts-test-secret-a"), Some("7")), "otherwise as RFC 6749 has them");
}

#[test]
fn only_the_named_members_are_exposed() {
    let expose = ["instance_url", "team", "absent"].map(str::to_owned);
    let layout = Layout { expose: &expose, ..Layout::standard() };
    let body = br#"{"access_token":"ts-test-secret-a","instance_url":"https://eu1.example","team":{"id":"T1"},
        "absent":null,"other":1}"#;
    let fields = decode(None, body, &layout).unwrap();
    let shown = serde_json::to_string(&fields.exposed).unwrap();
    assert_eq!(shown, r#"{"instance_url":"https://eu1.example","team":{"id":"T1"}}"#);
    assert!(!format!("{fields:?}").contains("eu1.example"));
}

#[test]
fn a_token_with_anything_but_printable_ascii_is_none() {
    for bad in [r"a\r\nX-Injected: 1", "a b", r"a\n", r"\u0000", "\u{e9}", r"a\t"] {
        let fields = json(&format!(r#"{{"access_token":"{bad}","refresh_token":"ts-test-secret-r"}}"#));
        assert_eq!((exposed(&fields), fields.bad_refresh_token), ((None, Some("ts-test-secret-r")), false), "{bad}");
        let fields = json(&format!(r#"{{"access_token":"ts-test-secret-a","refresh_token":"{bad}"}}"#));
        assert_eq!((exposed(&fields), fields.bad_refresh_token), ((Some("ts-test-secret-a"), None), true), "{bad}");
    }
}

#[test]
fn a_body_with_flaws_is_read_if_it_has_tokens_or_was_meant_as_json() {
    let read = |content_type: &str, body: &[u8]| decode_tolerantly(Some(content_type), body, &Layout::standard());
    let tokens = r#"{"access_token":"ts-test-secret-a","refresh_token":"ts-test-secret-r"}"#;
    let dead = r#"{"error":"invalid_grant"}"#;
    for (content_type, body, expected) in [
        ("text/html", format!("<b>Notice</b>: x\n{tokens}"), Some(Flaw::TextAround)),
        ("application/json", format!("{tokens}\0"), Some(Flaw::NotJson)),
        ("application/json", format!("<b>Notice</b>: x\n{dead}"), Some(Flaw::TextAround)),
        ("application/problem+json; charset=utf-8", format!("x {dead}"), Some(Flaw::TextAround)),
        ("text/html", format!("<script>x = {dead}</script>"), None),
        ("text/plain", dead.replace('}', ",\"x\":NaN}"), Some(Flaw::NotJson)),
        ("text/html", format!("{tokens}{}", tokens.replace("-r", "-s")), None),
        ("text/html", "<html></html>".to_owned(), None),
    ] {
        let flaw = read(content_type, body.as_bytes()).and_then(|fields| fields.flaw);
        assert_eq!(flaw, expected, "{content_type} {body}");
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
    let _ = decode(None, format!(r#"{{"scope":{deep}}}"#).as_bytes(), &Layout::standard());
    let _ = decode(None, "{\"scope\":".repeat(100_000).as_bytes(), &Layout::standard());
}

#[test]
fn fields_of_error_rules_are_found_by_their_path() {
    let layout = Layout { more: vec!["codes", "errors.errorType", "a.b.c", "flag", "text"], ..Layout::standard() };
    let read = |body: &str| decode(None, body.as_bytes(), &layout).unwrap_or_else(|| panic!("not decoded: {body}"));
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
        name in prop::sample::select(Layout::standard().wanted()),
        value in "[\\[\\]{}\",:0-9eE+.a-z\\\\-]{0,40}",
    ) {
        let token = "ts-test-secret-a";
        let bodies = [
            format!(r#"{{"access_token":"{token}","refresh_token":"{token}","{name}":{value}}}"#),
            format!("access_token={token}&refresh_token={token}&id_token={token}&{name}={value}"),
        ];
        for body in bodies {
            let fields = decode(content_type, body.as_bytes(), &Layout::standard());
            let shown = format!("{fields:?}");
            prop_assert!(!shown.contains("ts-test-secret"));
        }
    }
}
