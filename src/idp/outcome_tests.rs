//! The table of outcomes, row by row.

use proptest::prelude::*;

use super::*;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
const TOKENS: &str = r#"{"access_token":"ts-test-secret-a","refresh_token":"ts-test-secret-r","expires_in":60}"#;
const NO_REFRESH: &str = r#"{"access_token":"ts-test-secret-a","expires_in":60}"#;
const FORM_TOKENS: &str = "access_token=ts-test-secret-a&refresh_token=ts-test-secret-r&expires_in=60";
const DEAD: &str = r#"{"error":"invalid_grant","error_description":"ts-test-secret-x"}"#;

pub(super) fn response(status: u16, content_type: &str, body: &str) -> RawResponse {
    RawResponse {
        status,
        complete: true,
        framed: true,
        content_type: Some(content_type.to_owned()),
        retry_after: None,
        rate_limit_reset: None,
        correlation: Some("91B2:77AC".to_owned()),
        now: WallTime(1_800_000_000_000),
        body: body.as_bytes().to_vec().into(),
    }
}

/// The refresh token of the request.
pub(super) const SENT: &str = "ts-test-secret-sent";

fn idp(rotation: Rotation) -> Idp {
    Idp::oauth2("https://idp.example/token", "id", "ts-test-secret-client").rotation(rotation)
}

/// Returns the kind of an outcome.
pub(super) fn kind(outcome: &ResponseOutcome) -> &'static str {
    match outcome {
        ResponseOutcome::Refreshed(tokens) if tokens.refresh_token.is_some() => "refreshed new",
        ResponseOutcome::Refreshed(_) => "refreshed keep",
        ResponseOutcome::NotSpent(_) => "not_spent",
        ResponseOutcome::InvalidGrant(_) => "invalid_grant",
        ResponseOutcome::Unknown(_) => "unknown",
    }
}

/// Describes an outcome by its kind, and a failure by its cause (of an unknown outcome always `idp_down`) and code.
fn described(outcome: &ResponseOutcome) -> String {
    let (kind, Some(failure)) = (kind(outcome), outcome.failure()) else { return kind(outcome).to_owned() };
    assert_eq!(failure.evidence.request_id.as_deref(), Some("91B2:77AC"));
    match outcome {
        ResponseOutcome::Unknown(_) if failure.cause() == Cause::IdpDown => format!("{kind} {}", failure.evidence.code),
        _ => format!("{kind} {} {}", failure.cause(), failure.evidence.code),
    }
}

#[test]
fn every_row_of_the_table() {
    use Rotation::{Always, Never, Sometimes};
    for (rotation, status, content_type, body, expected) in [
        // Refreshed.
        (Always, 200, JSON, TOKENS, "refreshed new"),
        (Always, 201, JSON, TOKENS, "refreshed new"),
        (Never, 200, JSON, TOKENS, "refreshed new"),
        (Sometimes, 200, JSON, NO_REFRESH, "refreshed keep"),
        (Never, 200, JSON, NO_REFRESH, "refreshed keep"),
        (Always, 200, FORM, FORM_TOKENS, "refreshed new"),
        (Always, 200, "text/html", TOKENS, "refreshed new"),
        (
            Always,
            200,
            JSON,
            r#"{"access_token":"ts-test-secret-a","refresh_token":"ts-test-secret-r","error":"warning","expires_in":{}}"#,
            "refreshed new",
        ),
        // Complete, but without a required token.
        (Always, 200, JSON, NO_REFRESH, "unknown no_refresh_token"),
        (Always, 200, JSON, r#"{"access_token":"ts-test-secret-a","error":"x"}"#, "unknown no_refresh_token"),
        (Sometimes, 200, JSON, "{}", "unknown no_access_token"),
        (Sometimes, 200, JSON, r#"{"refresh_token":"ts-test-secret-sent"}"#, "unknown no_access_token"),
        (
            Sometimes,
            400,
            JSON,
            r#"{"refresh_token":"ts-test-secret-sent","error":"invalid_grant"}"#,
            "invalid_grant idp_down invalid_grant",
        ),
        (
            Sometimes,
            400,
            JSON,
            r#"{"access_token":"ts-test-secret-a","error":"invalid_grant"}"#,
            "unknown contradictory_answer",
        ),
        (Sometimes, 200, JSON, "", "unknown unreadable_answer"),
        (Sometimes, 204, JSON, "", "unknown unreadable_answer"),
        (Sometimes, 200, "text/html", "<html>sign in &error=x</html>", "unknown unreadable_answer"),
        // Not spent.
        (Always, 429, JSON, "", "not_spent idp_throttled http_429"),
        (Always, 429, JSON, DEAD, "not_spent idp_throttled http_429"),
        (Always, 400, JSON, r#"{"error":"invalid_request"}"#, "not_spent unknown_error invalid_request"),
        (Always, 400, JSON, r#"{"error":"slow_down"}"#, "not_spent idp_throttled slow_down"),
        (Always, 401, JSON, r#"{"error":"invalid_client"}"#, "not_spent client_refused invalid_client"),
        (Always, 200, JSON, r#"{"error":"invalid_client"}"#, "not_spent client_refused invalid_client"),
        (Always, 400, JSON, r#"{"error":"unauthorized_client"}"#, "not_spent client_refused unauthorized_client"),
        (Always, 400, JSON, r#"{"error":"invalid_scope"}"#, "not_spent client_refused invalid_scope"),
        // Invalid grant, on any complete 2xx or 4xx.
        (Always, 400, JSON, DEAD, "invalid_grant idp_down invalid_grant"),
        (Always, 401, JSON, DEAD, "invalid_grant idp_down invalid_grant"),
        (Always, 403, JSON, DEAD, "invalid_grant idp_down invalid_grant"),
        (Always, 200, JSON, DEAD, "invalid_grant idp_down invalid_grant"),
        (Never, 400, FORM, "error=invalid_grant", "invalid_grant idp_down invalid_grant"),
        // Unknown.
        (Always, 302, JSON, NO_REFRESH, "unknown http_302"),
        (Always, 304, JSON, DEAD, "unknown http_304"),
        (Always, 408, JSON, DEAD, "unknown http_408"),
        (Always, 500, JSON, DEAD, "unknown http_500"),
        (Always, 502, "text/html", "<html>bad gateway</html>", "unknown http_502"),
        (Always, 503, JSON, r#"{"error":"temporarily_unavailable"}"#, "unknown http_503"),
        (Always, 599, JSON, DEAD, "unknown http_599"),
        (Always, 999, JSON, DEAD, "unknown http_999"),
        (Always, 101, JSON, DEAD, "unknown http_101"),
        (Always, 404, "text/html", "<html></html>", "unknown http_404"),
        (Always, 404, JSON, r#"{"status":404,"error":"Not Found"}"#, "unknown http_404"),
        (Always, 400, JSON, r#"{"error":{"code":"invalid_grant"}}"#, "unknown unknown_error http_400"),
        (Always, 403, "text/plain", "error code: 1020", "unknown http_403"),
    ] {
        let outcome = classify(&idp(rotation), &response(status, content_type, body), SENT);
        assert_eq!(described(&outcome), expected, "{rotation:?} {status} {body}");
        assert!(!format!("{outcome:?}").contains("ts-test-secret"), "{body}");
    }
}

#[test]
fn a_new_refresh_token_is_kept_whatever_else_is_wrong_with_the_response() {
    let php = format!("<br />\n<b>Notice</b>: Undefined index: x in <b>/srv/a.php</b>\n{TOKENS}");
    let latin = TOKENS.replace('}', ",\"name\":\"Andr\u{fffd}\"}").into_bytes();
    let latin: Vec<u8> = latin.into_iter().filter(|byte| *byte != 0xbf).map(|byte| byte.min(0xef)).collect();
    for (status, body, expected) in [
        (200, r#"{"refresh_token":"ts-test-secret-r"}"#.as_bytes(), "refreshed new idp_down no_access_token"),
        (200, br#"{"id_token":"x","refresh_token":"ts-test-secret-r"}"#, "refreshed new idp_down no_access_token"),
        (
            200,
            br#"{"access_token":"a b","refresh_token":"ts-test-secret-r"}"#,
            "refreshed new idp_down no_access_token",
        ),
        (200, br#"{"access_token":"","refresh_token":"ts-test-secret-r"}"#, "refreshed new idp_down no_access_token"),
        (
            200,
            br#"{"refresh_token":"ts-test-secret-r","error":"temporarily_unavailable"}"#,
            "refreshed new idp_down temporarily_unavailable",
        ),
        (
            400,
            br#"{"refresh_token":"ts-test-secret-r","error":"invalid_grant"}"#,
            "refreshed new idp_down invalid_grant",
        ),
        (
            200,
            br#"{"ok":false,"access_token":"ts-test-secret-a","refresh_token":"ts-test-secret-r"}"#,
            "refreshed new idp_down contradictory_answer",
        ),
        (302, TOKENS.as_bytes(), "refreshed new idp_down http_302"),
        (400, TOKENS.as_bytes(), "refreshed new idp_down http_400"),
        (408, TOKENS.as_bytes(), "refreshed new idp_down http_408"),
        (429, TOKENS.as_bytes(), "refreshed new idp_down http_429"),
        (503, TOKENS.as_bytes(), "refreshed new idp_down http_503"),
        (200, php.as_bytes(), "refreshed new"),
        (200, &latin, "refreshed new"),
        (200, b"{\"access_token\":\"ts-test-secret-a\",\"refresh_token\":\"ts-test-secret-r\"}\0", "refreshed new"),
        (
            200,
            b"{\"x\":NaN,\"access_token\":\"ts-test-secret-a\",\"refresh_token\":\"ts-test-secret-r\"}",
            "refreshed new",
        ),
        (200, b"access_token=&refresh_token=ts-test-secret-r", "refreshed new idp_down no_access_token"),
        // A refresh token that cannot be read for certain leaves a doubt.
        (200, br#"{"access_token":"ts-test-secret-a","refresh_token":"a b"}"#, "unknown bad_refresh_token_value"),
        (200, b"{\"refresh_token\":\"r\xe9\"}", "unknown bad_refresh_token_value"),
        (200, b"{\"refresh_token\":\"r1\"} {\"refresh_token\":\"r2\"}", "unknown unreadable_answer"),
    ] {
        let response = RawResponse { body: body.to_vec().into(), ..response(status, JSON, "") };
        for rotation in [Rotation::Always, Rotation::Sometimes] {
            let outcome = classify(&idp(rotation), &response, SENT);
            assert_eq!(described(&outcome), expected, "{status} {}", body.escape_ascii());
            assert!(!format!("{outcome:?}").contains("ts-test-secret"), "{}", body.escape_ascii());
        }
        // Half a token is worse than none.
        for (complete, framed) in [(false, true), (true, false)] {
            let body = &body[..body.len() - 4];
            let cut = RawResponse { complete, framed, body: body.to_vec().into(), ..self::response(status, JSON, "") };
            let outcome = classify(&idp(Rotation::Sometimes), &cut, SENT);
            assert!(!matches!(outcome, ResponseOutcome::Refreshed(_)), "{outcome:?}");
        }
    }
}

#[test]
fn what_is_odd_about_a_response_is_told() {
    let idp = idp(Rotation::Sometimes).max_access_lifetime(Duration::from_secs(86_400));
    let day = Some(Duration::from_secs(86_400));
    for (members, expires_in, senseless) in [
        (r#""expires_in":3600"#, Some(Duration::from_secs(3_600)), None),
        (r#""expires_in":86400"#, day, None),
        (r#""expires_in":3600000"#, day, Some("expires_in")),
        (r#""expires_in":36000000"#, Some(Duration::from_secs(36_000)), Some("expires_in")),
        (r#""expires_in":1800003600"#, Some(Duration::from_secs(3_600)), Some("expires_in")),
        (r#""expires_at":1800003600"#, Some(Duration::from_secs(3_600)), None),
        (r#""expires_at":"2020-01-01T00:00:00Z""#, Some(Duration::ZERO), None),
        (r#""expires_at":"2999-01-01T00:00:00Z""#, day, Some("expires_at")),
        (r#""expires_in":999999999"#, day, Some("expires_in")),
        (r#""scope":"api""#, None, None),
    ] {
        let body = format!(r#"{{"access_token":"ts-test-secret-a",{members}}}"#);
        let ResponseOutcome::Refreshed(tokens) = classify(&idp, &response(200, JSON, &body), SENT) else {
            panic!("{body}")
        };
        assert_eq!((tokens.expires_in, tokens.oddities.senseless.first().copied()), (expires_in, senseless), "{body}");
        let overruled = idp.clone().access_lifetime_override(Duration::from_secs(600));
        let ResponseOutcome::Refreshed(tokens) = classify(&overruled, &response(200, JSON, &body), SENT) else {
            panic!("{body}")
        };
        assert_eq!(tokens.expires_in, Some(Duration::from_secs(600)), "{body}");
    }
}

#[test]
fn an_error_code_of_another_provider_is_no_verdict() {
    let body = r#"{"error":"bad_refresh_token"}"#;
    assert_eq!(
        described(&classify(&idp(Rotation::Always), &response(200, JSON, body), SENT)),
        "not_spent unknown_error bad_refresh_token"
    );
}

#[test]
fn incomplete_responses_are_in_doubt() {
    let idp = idp(Rotation::Sometimes);
    for (complete, framed, content_type, body, expected) in [
        (false, true, JSON, TOKENS, "unknown incomplete_answer"),
        (false, true, JSON, DEAD, "unknown incomplete_answer"),
        (true, false, FORM, FORM_TOKENS, "unknown incomplete_answer"),
        (true, false, FORM, "error=invalid_grant", "unknown incomplete_answer"),
        (true, false, JSON, TOKENS, "refreshed new"),
        (true, false, JSON, DEAD, "invalid_grant idp_down invalid_grant"),
    ] {
        for status in [200, 400] {
            let expected =
                if status == 400 && body == TOKENS && complete { "refreshed new idp_down http_400" } else { expected };
            let response = RawResponse { complete, framed, ..response(status, content_type, body) };
            assert_eq!(described(&classify(&idp, &response, SENT)), expected, "{status} {body}");
        }
    }
    let throttled = RawResponse { complete: false, ..response(429, JSON, "") };
    assert_eq!(described(&classify(&idp, &throttled, SENT)), "not_spent idp_throttled http_429");
}

#[test]
fn a_response_cut_at_any_byte_is_in_doubt() {
    for body in [TOKENS, NO_REFRESH, FORM_TOKENS, DEAD, "error=invalid_grant"] {
        for end in 0..body.len() {
            for (complete, framed) in [(true, false), (false, true), (false, false)] {
                for (status, rotation) in [(200, Rotation::Sometimes), (200, Rotation::Never), (400, Rotation::Always)]
                {
                    for content_type in [JSON, FORM, "text/plain"] {
                        let response = RawResponse { complete, framed, ..response(status, content_type, &body[..end]) };
                        let outcome = classify(&idp(rotation), &response, SENT);
                        assert!(matches!(outcome, ResponseOutcome::Unknown(_)), "{} {outcome:?}", &body[..end]);
                    }
                }
            }
        }
    }
    // The syntax of JSON shows its end even where the framing is wrong about it.
    for end in 0..TOKENS.len() {
        let outcome = classify(&idp(Rotation::Sometimes), &response(200, FORM, &TOKENS[..end]), SENT);
        assert!(matches!(outcome, ResponseOutcome::Unknown(_)), "{outcome:?}");
    }
}

#[test]
fn failures_carry_the_time_to_retry() {
    let wait = Some(Duration::from_secs(9));
    for status in [429, 503, 400] {
        let response = RawResponse { retry_after: wait, ..response(status, JSON, r#"{"error":"slow_down"}"#) };
        let (ResponseOutcome::NotSpent(failure) | ResponseOutcome::Unknown(failure)) =
            classify(&idp(Rotation::Always), &response, SENT)
        else {
            panic!("{status}")
        };
        assert_eq!((failure.retry_after, failure.evidence.status), (wait, Some(status)));
    }
}

proptest! {
    #[test]
    fn arbitrary_bodies_are_never_tokens_and_never_shown(
        status in 100u16..1000, complete: bool, framed: bool, body in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let response = RawResponse { complete, framed, body: body.into(), ..response(status, JSON, "") };
        let outcome = classify(&idp(Rotation::Sometimes), &response, SENT);
        prop_assert!(!matches!(outcome, ResponseOutcome::Refreshed(_)));
        let shown = format!("{response:?}");
        prop_assert!(!shown.contains("body"));
    }
}

#[test]
fn a_description_is_shown_and_decides_nothing() {
    for (status, body, expected) in [
        (400, r#"{"error":"invalid_grant","error_description":"Token has been\nrevoked"}"#, "Token has been revoked"),
        (400, "error=invalid_grant&error_description=Token+revoked", "Token revoked"),
        (500, r#"{"error":{"code":500,"message":"invalid_grant"}}"#, "invalid_grant"),
        (403, r#"{"message":"error: invalid_grant"}"#, "error: invalid_grant"),
        (404, r#"{"status":404,"error":"Not Found"}"#, "Not Found"),
        (429, r#"{"error_description":"slow down"}"#, "slow down"),
    ] {
        let with = classify(&idp(Rotation::Always), &response(status, FORM, body), SENT);
        assert_eq!(with.failure().unwrap().evidence.description.as_deref(), Some(expected), "{body}");
    }
    // It is no field by which a page is taken for a response.
    let page = classify(&idp(Rotation::Always), &response(200, FORM, "message=hello"), SENT);
    assert_eq!(described(&page), "unknown no_access_token");
    // A rule may read the field.
    let rule = ErrorRule::new("invalid_grant", Meaning::Race).and("error_description", "in progress");
    let body = r#"{"error":"invalid_grant","error_description":"in progress"}"#;
    let raced = classify(&idp(Rotation::Always).error(rule), &response(400, JSON, body), SENT);
    assert_eq!(raced.failure().unwrap().meaning, Meaning::Race);
    assert_eq!(raced.failure().unwrap().evidence.description.as_deref(), Some("in progress"));
}

#[test]
fn no_secret_of_request_or_response_is_repeated() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let idp = idp(Rotation::Sometimes).error_detail("sub_code").error(ErrorRule::new("own-code", Meaning::Race));
    let basic = STANDARD.encode("id:ts-test-secret-client");
    for secret in ["ts-test-secret-client", SENT, "ts-test-own-access", "ts-test-own-refresh", "ts-test-own-id", &basic]
    {
        let body = format!(
            r#"{{"error":"x.{secret}","sub_code":"{secret}","error_description":"not {secret} again",
            "access_token":null,"id_token":"ts-test-own-id","refresh_token":["ts-test-own-refresh","ts-test-own-access"]}}"#
        );
        let response = RawResponse { correlation: Some(secret.to_owned()), ..response(400, JSON, &body) };
        let outcome = classify(&idp, &response, SENT);
        let evidence = &outcome.failure().unwrap().evidence;
        assert_eq!(
            (&*evidence.code, &evidence.detail, evidence.description.as_deref(), &evidence.request_id),
            ("invalid_error_code", &None, Some("not [redacted] again"), &None),
            "{secret}"
        );
        let refused = classify_revocation(&idp, &response, SENT).unwrap_err();
        assert_eq!((&*refused.evidence.code, &refused.evidence.request_id), ("invalid_error_code", &None), "{secret}");
    }
    // Beside tokens: callers get the access token, and nothing else that is secret.
    let body = format!(
        r#"{{"access_token":"ts-test-own-access","refresh_token":"ts-test-own-refresh","token_type":"{SENT}",
        "scope":"read {basic} write","team":{{"id":"ts-test-own-refresh"}},"url":"https://eu.idp.example"}}"#
    );
    let outcome = classify(&idp.expose("team").expose("url"), &response(200, JSON, &body), SENT);
    let ResponseOutcome::Refreshed(tokens) = outcome else { panic!("tokens") };
    assert_eq!((tokens.token_type, tokens.scope.as_deref()), (None, Some("read write")));
    assert_eq!(tokens.exposed.0.keys().collect::<Vec<_>>(), ["url"]);
}

#[test]
fn a_code_of_the_settings_is_shown_even_if_a_secret_resembles_it() {
    let idp = Idp::oauth2("https://idp.example/token", "id", "invalid_client_secret");
    let outcome = classify(&idp, &response(401, JSON, r#"{"error":"invalid_client"}"#), SENT);
    assert_eq!(described(&outcome), "not_spent client_refused invalid_client");
}
