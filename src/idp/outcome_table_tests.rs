//! The errors that providers really send, one a line: status, body, and the expected outcome. The sources are in the
//! presets. For providers without a preset, the tests set the rules that a user would set.

use super::*;
use crate::idp::preset;

const SECRET: &str = "ts-test-secret-client";

fn response(status: u16, body: &str) -> RawResponse {
    RawResponse { content_type: None, correlation: None, ..tests::response(status, "", body) }
}

/// Describes an outcome by its kind, and a failure by who can resolve it, its code, and its detail if there is one.
fn described(outcome: &ResponseOutcome) -> String {
    let (kind, Some(failure)) = (tests::kind(outcome), outcome.failure()) else {
        return tests::kind(outcome).to_owned();
    };
    let Evidence { code, detail, .. } = &failure.evidence;
    let who = match failure.meaning {
        Meaning::UserMustReconnect => "user",
        Meaning::OperatorFault => "operator",
        Meaning::Throttled => "throttled",
        Meaning::Race => "race",
        Meaning::Transient => "transient",
    };
    [kind, who, code].into_iter().chain(detail.as_deref()).collect::<Vec<_>>().join(" ")
}

fn rows(table: &str) -> impl Iterator<Item = (u16, &str, &str)> {
    table.trim().lines().map(|line| {
        let (status, row) = line.split_once(' ').unwrap();
        let (body, expected) = row.rsplit_once(" => ").unwrap();
        (status.parse().unwrap(), body, expected)
    })
}

/// Checks each row as written, and then where it is no verdict: with another status, or cut off.
fn check(idp: &Idp, table: &str) {
    idp.validate().unwrap();
    for (status, body, expected) in rows(table) {
        let outcome = classify(idp, &response(status, body), tests::SENT);
        assert_eq!(described(&outcome), expected, "{status} {body}");
        assert!(!format!("{outcome:?}").contains("ts-test-secret"), "{body}");
        for broken in [500, 502, 503] {
            let expected = format!("unknown transient http_{broken}");
            assert_eq!(described(&classify(idp, &response(broken, body), tests::SENT)), expected, "{body}");
        }
        assert_eq!(
            described(&classify(idp, &response(429, body), tests::SENT)),
            "not_spent throttled http_429",
            "{body}"
        );
        let cut = RawResponse { complete: false, ..response(status, body) };
        let expected =
            if status == 429 { "not_spent throttled http_429" } else { "unknown transient incomplete_answer" };
        assert_eq!(described(&classify(idp, &cut, tests::SENT)), expected, "{body}");
    }
}

#[test]
fn github() {
    let table = r#"
200 {"error":"bad_refresh_token","error_description":"The refresh token passed is incorrect or expired.","error_uri":"https://docs.github.com"} => invalid_grant user bad_refresh_token
200 error=bad_refresh_token&error_description=The+refresh+token+passed+is+incorrect+or+expired. => invalid_grant user bad_refresh_token
200 {"error":"incorrect_client_credentials","error_description":"The client_id and/or client_secret passed are incorrect."} => not_spent operator incorrect_client_credentials
200 error=incorrect_client_credentials&error_uri=x => not_spent operator incorrect_client_credentials
200 {"error":"unauthorized_client"} => not_spent operator unauthorized_client
404 {"error":"Not Found"} => unknown transient http_404
200 {"access_token":"ts-test-secret-a","expires_in":28800} => unknown transient no_refresh_token
"#;
    let github = preset::github("id", SECRET);
    check(&github, table.trim());
    let tokens = "access_token=ts-test-secret-a&refresh_token=ts-test-secret-r&expires_in=28800";
    assert_eq!(described(&classify(&github, &response(200, tokens), tests::SENT)), "refreshed new");
}

#[test]
fn gitlab() {
    let table = r#"
400 {"error":"invalid_grant","error_description":"The provided authorization grant is invalid, expired, revoked"} => invalid_grant user invalid_grant
401 {"error":"invalid_client","error_description":"Client authentication failed due to unknown client"} => not_spent operator invalid_client
"#;
    let gitlab = preset::gitlab("id", SECRET);
    check(&gitlab, table);
    assert_eq!(
        described(&classify(&gitlab, &response(429, "Retry later\n"), tests::SENT)),
        "not_spent throttled http_429"
    );
}

#[test]
fn bitbucket() {
    let table = r#"
400 {"error_description":"Invalid refresh_token","error":"invalid_grant"} => invalid_grant user invalid_grant
400 {"error_description":"Invalid OAuth client credentials","error":"unauthorized_client"} => not_spent operator unauthorized_client
"#;
    check(&preset::bitbucket("id", SECRET), table);
    let data_center = Idp::oauth2("https://git.example/rest/oauth2/latest/token", "id", SECRET);
    check(&data_center, r#"400 {"error":"invalid_grant"} => invalid_grant user invalid_grant"#);
}

#[test]
fn keycloak() {
    let table = r#"
400 {"error":"invalid_grant","error_description":"Maximum allowed refresh token reuse exceeded"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"Session doesn't have required client"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"Invalid refresh token"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"Session not active"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"Offline user session not found"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"User disabled"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"Token is not active"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"Stale token"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"Code not valid"} => invalid_grant user invalid_grant
401 {"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"} => not_spent operator unauthorized_client
401 {"error":"invalid_client","error_description":"Invalid client or Invalid client credentials"} => not_spent operator invalid_client
400 {"error":"authorization_pending","error_description":"The authorization request is still pending"} => not_spent transient authorization_pending
400 {"error":"slow_down","error_description":"Slow down"} => not_spent throttled slow_down
400 {"error":"unknown_error"} => not_spent transient unknown_error
"#;
    check(&preset::keycloak("https://sso.example", "app", "id", SECRET), table);
}

#[test]
fn google() {
    let table = r#"
400 {"error":"invalid_grant","error_description":"Token has been expired or revoked."} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"Bad Request"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"reauth related error (invalid_rapt)","error_uri":"https://support.google.com/a/answer/9368756","error_subtype":"invalid_rapt"} => invalid_grant user invalid_grant invalid_rapt
401 {"error":"invalid_client","error_description":"The OAuth client was not found."} => not_spent operator invalid_client
401 {"error":"unauthorized_client","error_description":"Unauthorized"} => not_spent operator unauthorized_client
400 {"error":"invalid_request","error_description":"Missing required parameter: refresh_token"} => not_spent transient invalid_request
"#;
    check(&preset::google("id", SECRET), table);
}

#[test]
fn entra() {
    let table = r#"
400 {"error":"invalid_grant","error_description":"AADSTS700082: The refresh token has expired due to inactivity.","error_codes":[700082],"timestamp":"2026-11-01 10:00:00Z","trace_id":"t","correlation_id":"c","error_uri":"https://login.microsoftonline.com/error?code=700082"} => invalid_grant user invalid_grant 700082
400 {"error":"invalid_grant","error_description":"AADSTS50173: The provided grant has expired due to it being revoked.","error_codes":[50173],"suberror":"bad_token"} => invalid_grant user invalid_grant 50173
400 {"error":"invalid_grant","error_description":"AADSTS70043: The refresh token has expired or is invalid due to sign-in frequency checks.","error_codes":[70043],"suberror":"token_expired"} => invalid_grant user invalid_grant 70043
400 {"error":"invalid_grant","error_description":"AADSTS700084: The refresh token was issued to a single page app.","error_codes":[700084]} => invalid_grant user invalid_grant 700084
400 {"error":"invalid_grant","error_description":"AADSTS65001: The user has not consented.","error_codes":[65001],"suberror":"consent_required"} => invalid_grant user invalid_grant 65001
400 {"error":"invalid_grant","error_description":"AADSTS50076: You must use multi-factor authentication.","error_codes":[50076],"suberror":"basic_action","claims":"{}"} => invalid_grant user invalid_grant 50076
400 {"error":"interaction_required","error_description":"AADSTS50079: The user must enroll.","error_codes":[50079],"claims":"{\"access_token\":{}}"} => invalid_grant user interaction_required 50079
400 {"error":"invalid_grant","error_description":"AADSTS50196: The server terminated an operation because it encountered a client request loop.","error_codes":[50196]} => not_spent throttled invalid_grant 50196
401 {"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.","error_codes":[7000215]} => not_spent operator invalid_client 7000215
401 {"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys are expired.","error_codes":[7000222]} => not_spent operator invalid_client 7000222
400 {"error":"unauthorized_client","error_description":"AADSTS700016: Application was not found in the directory.","error_codes":[700016]} => not_spent operator unauthorized_client 700016
400 {"error":"temporarily_unavailable","error_description":"AADSTS90033: A transient error has occurred.","error_codes":[90033]} => not_spent transient temporarily_unavailable 90033
400 {"error":"invalid_grant","error_codes":["ts-test-secret with blanks",{"x":1},50173]} => invalid_grant user invalid_grant 50173
"#;
    check(&preset::entra("organizations", "id", SECRET), table);
}

#[test]
fn slack() {
    let table = r#"
200 {"ok":false,"error":"invalid_refresh_token"} => invalid_grant user invalid_refresh_token
200 {"ok":false,"error":"token_revoked"} => invalid_grant user token_revoked
200 {"ok":false,"error":"token_expired"} => invalid_grant user token_expired
200 {"ok":false,"error":"account_inactive"} => invalid_grant user account_inactive
400 {"error":"invalid_grant","error_description":"Token has been expired or revoked."} => invalid_grant user invalid_grant
200 {"ok":false,"error":"bad_client_secret"} => not_spent operator bad_client_secret
200 {"ok":false,"error":"invalid_client_id"} => not_spent operator invalid_client_id
200 {"ok":false,"error":"ratelimited"} => not_spent throttled ratelimited
200 {"ok":false,"error":"internal_error"} => unknown transient internal_error
200 {"ok":false,"error":"fatal_error"} => unknown transient fatal_error
200 {"ok":false,"error":"team_added_to_org"} => not_spent transient team_added_to_org
200 {"ok":false} => unknown transient no_access_token
"#;
    let slack = preset::slack("id", SECRET);
    check(&slack, table);
    let tokens =
        r#"{"ok":true,"access_token":"ts-test-secret-a","refresh_token":"ts-test-secret-r","token_type":"bot"}"#;
    assert_eq!(described(&classify(&slack, &response(200, tokens), tests::SENT)), "refreshed new");
}

#[test]
fn atlassian() {
    let table = r#"
403 {"error":"invalid_grant","error_description":"Unknown or invalid refresh token."} => invalid_grant user invalid_grant
403 {"error":"unauthorized_client","error_description":"refresh_token is invalid"} => invalid_grant user unauthorized_client
401 {"error":"unauthorized_client","error_description":"refresh_token is invalid"} => not_spent operator unauthorized_client
403 {"error":"unauthorized_client","error_description":"The refresh_token is invalid"} => not_spent operator unauthorized_client
403 {"error":"unauthorized_client"} => not_spent operator unauthorized_client
401 {"error":"access_denied","error_description":"Unauthorized"} => not_spent operator access_denied
403 {"message":"Forbidden"} => unknown transient http_403
"#;
    check(&preset::atlassian("id", SECRET), table);
}

#[test]
fn okta() {
    let table = r#"
400 {"error":"invalid_grant","error_description":"The refresh token is invalid or expired."} => invalid_grant user invalid_grant
401 {"error":"invalid_client","error_description":"The client secret supplied for a confidential client is invalid."} => not_spent operator invalid_client
400 {"error":"invalid_scope","error_description":"The requested scope is invalid."} => not_spent operator invalid_scope
429 {"errorCode":"E0000047","errorSummary":"API call exceeded rate limit due to too many requests."} => not_spent throttled http_429
"#;
    check(&preset::okta("https://acme.okta.com/oauth2/default", "id", SECRET), table);
}

#[test]
fn salesforce() {
    let table = r#"
400 {"error":"invalid_grant","error_description":"token request is already being processed"} => not_spent race invalid_grant
400 {"error":"invalid_grant","error_description":"Token request is already being processed"} => not_spent race invalid_grant
400 {"error":"invalid_grant","error_description":"the token request is already being processed"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"your request is already being processed"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"expired access/refresh token"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"inactive user"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"ip restricted"} => invalid_grant user invalid_grant
400 {"error":"invalid_client","error_description":"invalid client credentials"} => not_spent operator invalid_client
400 {"error":"invalid_client_id","error_description":"client identifier invalid"} => not_spent operator invalid_client_id
"#;
    let salesforce = preset::salesforce("id", SECRET);
    check(&salesforce, table);
    let tokens =
        r#"{"access_token":"ts-test-secret-a","id":"https://login.salesforce.com/id/00D/005","issued_at":"1"}"#;
    let ResponseOutcome::Refreshed(tokens) = classify(&salesforce, &response(200, tokens), tests::SENT) else {
        panic!("no tokens")
    };
    assert_eq!(tokens.subject.as_deref(), Some("https://login.salesforce.com/id/00D/005"));
    assert_eq!((tokens.expires_in, salesforce.access_lifetime), (None, Some(Duration::from_secs(7_200))));
}

#[test]
fn hubspot() {
    let table = r#"
400 {"status":"BAD_REFRESH_TOKEN","message":"missing or invalid refresh token","correlationId":"aeb5f871-7f07-4993-9211-075dc63e7cbf"} => invalid_grant user BAD_REFRESH_TOKEN
400 {"status":"BAD_CLIENT_ID","message":"missing or unknown client id","correlationId":"x"} => not_spent operator BAD_CLIENT_ID
400 {"status":"BAD_CLIENT_SECRET","message":"missing or invalid client secret","correlationId":"x"} => not_spent operator BAD_CLIENT_SECRET
400 {"error":"invalid_grant","error_description":"refresh token is invalid, expired or revoked"} => invalid_grant user invalid_grant
401 {"status":"error","message":"Any of the listed authentication credentials are missing","correlationId":"x"} => unknown transient http_401
400 {"message":"BAD_REFRESH_TOKEN"} => unknown transient http_400
"#;
    check(&preset::hubspot("id", SECRET), table);
}

#[test]
fn box_discord_and_zoom() {
    let table = r#"
400 {"error":"invalid_grant","error_description":"Refresh token has expired"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"Invalid refresh token"} => invalid_grant user invalid_grant
400 {"error":"invalid_client","error_description":"The client credentials are invalid"} => not_spent operator invalid_client
"#;
    check(&preset::box_com("id", SECRET), table);
    let table = r#"
400 {"error": "invalid_grant"} => invalid_grant user invalid_grant
400 {"error": "invalid_grant", "error_description": "Invalid \"refresh_token\" in request."} => invalid_grant user invalid_grant
401 {"error": "invalid_client"} => not_spent operator invalid_client
429 {"message": "You are being rate limited.", "retry_after": 64.57, "global": false} => not_spent throttled http_429
401 {"message": "401: Unauthorized", "code": 0} => unknown transient http_401 0
"#;
    check(&preset::discord("id", SECRET), table);
    let table = r#"
400 {"reason":"Invalid Token!","error":"invalid_grant"} => invalid_grant user invalid_grant
401 {"reason":"Invalid Token!","error":"invalid_request"} => invalid_grant user invalid_request
401 {"reason":"Invalid Token!"} => invalid_grant user http_401
400 {"reason":"Invalid client_id or client_secret","error":"invalid_client"} => not_spent operator invalid_client
400 {"reason":"unsupported grant type","error":"unsupported_grant_type"} => not_spent operator unsupported_grant_type
400 {"reason":"Invalid Token! Or so","error":"invalid_request"} => not_spent transient invalid_request
"#;
    check(&preset::zoom("id", SECRET), table);
}

/// Auth0, QuickBooks, Notion, Dropbox, Spotify and Linear; Xero, Stripe, LinkedIn and Cognito respond alike.
#[test]
fn providers_without_a_preset_that_follow_rfc_6749() {
    let table = r#"
403 {"error":"invalid_grant","error_description":"Unknown or invalid refresh token."} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"Incorrect Token type or clientID"} => invalid_grant user invalid_grant
401 {"error":"invalid_grant"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"refresh token is invalid or revoked"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"Refresh token revoked"} => invalid_grant user invalid_grant
400 {"error":"invalid_grant","error_description":"This refresh token has already been used"} => invalid_grant user invalid_grant
"#;
    check(&Idp::oauth2("https://idp.example/token", "id", SECRET), table);
}

#[test]
fn providers_without_a_preset_that_deviate_from_rfc_6749() {
    let user = |error: &str| ErrorRule::new(error, Meaning::UserMustReconnect);
    let x = Idp::oauth2("https://api.x.com/2/oauth2/token", "id", SECRET)
        .error(user("invalid_request").and("error_description", "Value passed for the token was invalid."));
    let table = r#"
400 {"error":"invalid_request","error_description":"Value passed for the token was invalid."} => invalid_grant user invalid_request
400 {"error":"invalid_request","error_description":"Value passed for the token was invalid. Perhaps."} => not_spent transient invalid_request
400 {"error":"invalid_request","error_description":"Missing required parameter [client_id]."} => not_spent transient invalid_request
"#;
    check(&x, table);
    let fitbit = Idp::oauth2("https://api.fitbit.com/oauth2/token", "id", SECRET)
        .error(user("invalid_grant").field("errors.errorType"))
        .error(ErrorRule::new("invalid_client", Meaning::OperatorFault).field("errors.errorType"));
    let table = r#"
400 {"errors":[{"errorType":"invalid_grant","message":"Refresh token invalid: ts-test-secret-r."}],"success":false} => invalid_grant user invalid_grant
401 {"errors":[{"errorType":"other"},{"errorType":"invalid_client","message":"Invalid authorization header"}],"success":false} => not_spent operator invalid_client
400 {"errors":[{"message":"invalid_grant"}],"success":false} => unknown transient http_400
"#;
    check(&fitbit, table);
    let zoho = Idp::oauth2("https://accounts.zoho.eu/oauth/v2/token", "id", SECRET)
        .error(user("invalid_code"))
        .error(ErrorRule::new("Access Denied", Meaning::Throttled));
    let table = r#"
200 {"error":"invalid_code"} => invalid_grant user invalid_code
200 {"error":"invalid_client"} => not_spent operator invalid_client
400 {"error":"Access Denied","error_description":"You have made too many requests continuously. Please try again after some time.","status":"failure"} => not_spent throttled http_400
400 {"error":"access denied"} => unknown transient http_400
"#;
    check(&zoho, table);
}

#[test]
fn throttled_responses_take_the_time_to_retry_from_header_body_or_reset() {
    let seconds = Duration::from_secs_f64;
    let okta = preset::okta("https://acme.okta.com/oauth2", "id", SECRET);
    let slow = r#"{"error":"slow_down","retry_after":5}"#;
    for (status, header, reset, body, expected) in [
        (429, None, None, r#"{"message":"x","retry_after":64.57,"global":false}"#, Some(64.57)),
        (429, None, None, r#"{"retry_after":"2"}"#, Some(2.0)),
        (429, Some(65.0), Some(9.0), r#"{"retry_after":64.57}"#, Some(65.0)),
        (429, None, Some(9.0), r#"{"errorCode":"E0000047"}"#, Some(9.0)),
        (429, None, Some(9_000.0), "", Some(3_600.0)),
        (429, None, None, r#"{"retry_after":1e300}"#, Some(3_600.0)),
        (429, None, None, r#"{"retry_after":-1}"#, None),
        (429, None, None, r#"{"retry_after":"soon"}"#, None),
        (429, None, None, "retry_after", None),
        (400, None, None, slow, Some(5.0)),
        // Without throttling only Retry-After counts: the other values are in every response, or mean something else.
        (400, Some(3.0), None, r#"{"error":"invalid_request","retry_after":5}"#, Some(3.0)),
        (400, None, Some(9.0), r#"{"error":"invalid_request","retry_after":5}"#, None),
        (503, Some(3.0), Some(9.0), slow, Some(3.0)),
        (503, None, Some(9.0), slow, None),
    ] {
        let (retry_after, rate_limit_reset) = (header.map(seconds), reset.map(seconds));
        let outcome =
            classify(&okta, &RawResponse { retry_after, rate_limit_reset, ..response(status, body) }, tests::SENT);
        let (ResponseOutcome::NotSpent(failure) | ResponseOutcome::Unknown(failure)) = outcome else {
            panic!("{status} {body}")
        };
        assert_eq!(failure.retry_after, expected.map(seconds), "{status} {header:?} {reset:?} {body}");
    }
}

#[test]
fn the_last_matching_rule_decides() {
    let idp = Idp::oauth2("https://idp.example/token", "id", SECRET)
        .error(ErrorRule::new("invalid_grant", Meaning::Transient))
        .error(ErrorRule::new("invalid_grant", Meaning::OperatorFault).status(401))
        .error(ErrorRule::new("gone", Meaning::UserMustReconnect).field("a.b").and("errors", "7"));
    let table = r#"
400 {"error":"invalid_grant"} => not_spent transient invalid_grant
401 {"error":"invalid_grant"} => not_spent operator invalid_grant
400 {"error":"x","a":{"b":"gone"},"errors":[6,7]} => invalid_grant user x 7
400 {"error":"x","a":[{"b":"gone"}],"errors":"7"} => invalid_grant user x 7
400 {"a":{"b":"gone"},"errors":7} => invalid_grant user gone 7
400 {"error":"x","a":{"b":"gone"},"errors":[8]} => not_spent transient x
400 {"error":"x","a":"gone","errors":[7]} => not_spent transient x
400 {"error":"x","a":{"c":{"b":"gone"}},"errors":[7]} => not_spent transient x
400 {"error":"x","a":{"b":"gone"},"errors":[[7]]} => not_spent transient x
"#;
    check(&idp, table);
}
