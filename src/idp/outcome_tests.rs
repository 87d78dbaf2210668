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
        body: body.as_bytes().to_vec().into(),
    }
}

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
        (Sometimes, 200, JSON, r#"{"refresh_token":"ts-test-secret-r"}"#, "unknown no_access_token"),
        (
            Sometimes,
            200,
            JSON,
            r#"{"refresh_token":"ts-test-secret-r","error":"invalid_grant"}"#,
            "unknown contradictory_answer",
        ),
        (
            Sometimes,
            400,
            JSON,
            r#"{"access_token":"ts-test-secret-a","error":"invalid_grant"}"#,
            "unknown contradictory_answer",
        ),
        (Sometimes, 400, JSON, TOKENS, "unknown http_400"),
        (Sometimes, 200, JSON, "", "unknown unreadable_answer"),
        (Sometimes, 204, JSON, "", "unknown unreadable_answer"),
        (Sometimes, 200, "text/html", "<html>sign in &error=x</html>", "unknown unreadable_answer"),
        // Not spent.
        (Always, 429, JSON, "", "not_spent idp_throttled http_429"),
        (Always, 429, JSON, DEAD, "not_spent idp_throttled http_429"),
        (Always, 400, JSON, r#"{"error":"invalid_request"}"#, "not_spent idp_down invalid_request"),
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
        (Always, 302, JSON, TOKENS, "unknown http_302"),
        (Always, 304, JSON, DEAD, "unknown http_304"),
        (Always, 408, JSON, DEAD, "unknown http_408"),
        (Always, 500, JSON, DEAD, "unknown http_500"),
        (Always, 502, "text/html", "<html>bad gateway</html>", "unknown http_502"),
        (Always, 503, JSON, r#"{"error":"temporarily_unavailable"}"#, "unknown http_503"),
        (Never, 503, JSON, TOKENS, "unknown http_503"),
        (Always, 599, JSON, DEAD, "unknown http_599"),
        (Always, 999, JSON, DEAD, "unknown http_999"),
        (Always, 101, JSON, DEAD, "unknown http_101"),
        (Always, 404, "text/html", "<html></html>", "unknown http_404"),
        (Always, 404, JSON, r#"{"status":404,"error":"Not Found"}"#, "unknown http_404"),
        (Always, 400, JSON, r#"{"error":{"code":"invalid_grant"}}"#, "unknown http_400"),
        (Always, 403, "text/plain", "error code: 1020", "unknown http_403"),
    ] {
        let outcome = classify(&idp(rotation), &response(status, content_type, body));
        assert_eq!(described(&outcome), expected, "{rotation:?} {status} {body}");
        assert!(!format!("{outcome:?}").contains("ts-test-secret"), "{body}");
    }
}

#[test]
fn an_error_code_of_another_provider_is_no_verdict() {
    let body = r#"{"error":"bad_refresh_token"}"#;
    assert_eq!(
        described(&classify(&idp(Rotation::Always), &response(200, JSON, body))),
        "not_spent idp_down bad_refresh_token"
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
            let expected = if status == 400 && body == TOKENS && complete { "unknown http_400" } else { expected };
            let response = RawResponse { complete, framed, ..response(status, content_type, body) };
            assert_eq!(described(&classify(&idp, &response)), expected, "{status} {body}");
        }
    }
    let throttled = RawResponse { complete: false, ..response(429, JSON, "") };
    assert_eq!(described(&classify(&idp, &throttled)), "not_spent idp_throttled http_429");
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
                        let outcome = classify(&idp(rotation), &response);
                        assert!(matches!(outcome, ResponseOutcome::Unknown(_)), "{} {outcome:?}", &body[..end]);
                    }
                }
            }
        }
    }
    // The syntax of JSON shows its end even where the framing is wrong about it.
    for end in 0..TOKENS.len() {
        let outcome = classify(&idp(Rotation::Sometimes), &response(200, FORM, &TOKENS[..end]));
        assert!(matches!(outcome, ResponseOutcome::Unknown(_)), "{outcome:?}");
    }
}

#[test]
fn lifetimes_come_from_the_response_or_are_assumed() {
    let idp = idp(Rotation::Sometimes).access_lifetime(Duration::from_secs(3_600));
    for (field, expected) in [("60", 60), ("0", 3_600), ("null", 3_600)] {
        let body = format!(r#"{{"access_token":"ts-test-secret-a","expires_in":{field}}}"#);
        let ResponseOutcome::Refreshed(tokens) = classify(&idp, &response(200, JSON, &body)) else { panic!("{body}") };
        assert_eq!(tokens.expires_in, Some(Duration::from_secs(expected)));
    }
}

#[test]
fn failures_carry_the_time_to_retry() {
    let wait = Some(Duration::from_secs(9));
    for status in [429, 503, 400] {
        let response = RawResponse { retry_after: wait, ..response(status, JSON, r#"{"error":"slow_down"}"#) };
        let (ResponseOutcome::NotSpent(failure) | ResponseOutcome::Unknown(failure)) =
            classify(&idp(Rotation::Always), &response)
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
        let outcome = classify(&idp(Rotation::Sometimes), &response);
        prop_assert!(!matches!(outcome, ResponseOutcome::Refreshed(_)));
        let shown = format!("{response:?}");
        prop_assert!(!shown.contains("body"));
    }
}
