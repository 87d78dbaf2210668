//! Responses as providers really send them: what was delivered is kept, whatever else is wrong.

use std::{io::Write as _, time::Duration};

use flate2::{Compression, write};
use token_supervisor::{
    Acquire, Cause, ClientAuth, Error, ErrorRule, EventKind, Expiry, Grant, Idp, Meaning, ResponseField, Revoke, State,
    Status, TokenKey, TokenSupervisor, presets,
    testing::{Fault, Kind, Oddity, Profile, Standing},
};

use crate::{
    raw::{RawIdp, json, with_head},
    support::{LIFE, World, eventually, pass, stop, within},
};

const TOKENS: &str = r#"{"access_token":"ts-test-secret-a1","refresh_token":"ts-test-secret-r1","expires_in":3600}"#;

fn grant() -> Grant {
    Grant::new("ts-test-secret-a0").refresh_token("ts-test-secret-r0").expires_in(LIFE)
}

fn idp(raw: &RawIdp) -> Idp {
    Idp::oauth2(raw.url(), "client", "ts-test-secret-client")
}

async fn stored(supervisor: &TokenSupervisor, key: &TokenKey) -> String {
    let token = supervisor.testing().stored_refresh_token(key).await.unwrap().unwrap();
    token.expose_secret().to_owned()
}

/// Connects alice at a provider that answers her first refresh so, and every later one with good tokens.
async fn refreshed(world: &World, answer: Vec<u8>, settings: fn(Idp) -> Idp) -> (RawIdp, TokenSupervisor, TokenKey) {
    let answer = move |number| match number {
        0 => answer.clone(),
        _ => json(200, &TOKENS.replace("-a1", &format!("-a{number}x")).replace("-r1", &format!("-r{number}x"))),
    };
    asked_once(world, answer, settings).await
}

/// Connects alice at a provider that answers the refreshes by their numbers, and refreshes once.
async fn asked_once(
    world: &World,
    answer: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static,
    settings: fn(Idp) -> Idp,
) -> (RawIdp, TokenSupervisor, TokenKey) {
    let raw = RawIdp::start(move |number, _| answer(number)).await;
    let supervisor = world.bare_builder().idp("idp", settings(idp(&raw))).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, grant())).await.unwrap();
    within(supervisor.refresh_now(&key)).await.ok();
    (raw, supervisor, key)
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = write::GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_delivered_pair_is_stored_and_served_whatever_is_wrong_beside_it() {
    let plain = TOKENS.as_bytes();
    let many: String = (0..200).map(|number| format!("X-Trace-{number}: {number}\r\n")).collect();
    let chunked = format!("{:x}\r\n{TOKENS}\r\n0\r\n\r\n", TOKENS.len());
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}").into_bytes();
    let latin = [b"{\"name\":\"Andr\xe9\",", &plain[1..]].concat();
    for (what, answer) in [
        ("gzip", with_head(200, "Content-Encoding: gzip\r\n", &gzip(plain))),
        ("x-gzip", with_head(200, "Content-Encoding: x-gzip\r\n", &gzip(plain))),
        ("deflate", with_head(200, "Content-Encoding: deflate\r\n", &zlib(plain))),
        ("gzip that no header names", with_head(200, "", &gzip(plain))),
        ("a header of a coding that was undone", with_head(200, "Content-Encoding: gzip\r\n", plain)),
        ("chunks", chunked),
        ("a space before the colon", with_head(200, "X-Served-By : a\r\n", plain)),
        ("a line that is no header", with_head(200, "this is no header\r\n", plain)),
        ("a folded value", with_head(200, "X-Note: a\r\n\tb\r\n", plain)),
        ("200 headers", with_head(200, &many, plain)),
        ("a notice of PHP", with_head(200, "", format!("<b>Notice</b>: x in <b>/a.php</b>\n{TOKENS}").as_bytes())),
        ("a comment after it", with_head(200, "", format!("{TOKENS}\n<!-- 3 ms -->").as_bytes())),
        ("a NUL after it", with_head(200, "", format!("{TOKENS}\0").as_bytes())),
        ("a byte order mark", with_head(200, "", format!("\u{feff}{TOKENS}").as_bytes())),
        ("Latin-1", with_head(200, "", &latin)),
        ("a control character", with_head(200, "", TOKENS.replace('{', "{\"x\":\"a\tb\",").as_bytes())),
        ("NaN", with_head(200, "", TOKENS.replace('{', "{\"x\":NaN,").as_bytes())),
    ] {
        let world = World::new(Profile::github());
        let (raw, supervisor, key) = refreshed(&world, answer, |idp| idp).await;
        let token = within(supervisor.token(&key)).await.unwrap();
        assert_eq!(token.access_token().expose_secret(), "ts-test-secret-a1", "{what}");
        assert_eq!((stored(&supervisor, &key).await.as_str(), raw.log().len()), ("ts-test-secret-r1", 1), "{what}");
        stop(supervisor).await;
    }
}

#[tokio::test]
async fn a_new_refresh_token_alone_is_spent_next_and_the_old_access_token_served_meanwhile() {
    let alone = r#"{"id_token":"x","refresh_token":"ts-test-secret-r1"}"#;
    for (what, answer) in [
        ("Azure AD B2C", json(200, alone)),
        ("an access token with a line break", json(200, &TOKENS.replace("-a1", r"-a1\r\nX-Injected: 1"))),
        ("an error beside it", json(400, &TOKENS.replace('{', r#"{"error":"invalid_grant","#))),
        ("a status of 500", json(500, TOKENS)),
        ("an access token of 2020", json(200, &TOKENS.replace("\"expires_in\":3600", "\"expires_at\":1577836800"))),
    ] {
        let world = World::new(Profile::github());
        let (raw, supervisor, key) = refreshed(&world, answer, |idp| idp).await;
        assert_eq!(stored(&supervisor, &key).await, "ts-test-secret-r1", "{what}");
        let token = within(supervisor.token(&key)).await.unwrap();
        assert_eq!(token.access_token().expose_secret(), "ts-test-secret-a0", "{what}");
        let status = within(supervisor.status(&key)).await.unwrap();
        assert_eq!(status.state, State::Backoff, "{what}: {status:?}");
        pass(&world, &supervisor, Duration::from_secs(3), Duration::from_millis(500)).await;
        assert_eq!(stored(&supervisor, &key).await, "ts-test-secret-r1x", "{what}");
        let sent: Vec<_> = raw.log().iter().map(|request| request.field("refresh_token").unwrap().to_owned()).collect();
        assert_eq!(sent, ["ts-test-secret-r0", "ts-test-secret-r1"], "{what}");
        stop(supervisor).await;
    }
}

#[tokio::test]
async fn half_a_token_is_worse_than_none() {
    let cut = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{body}").into_bytes();
    let unframed = |body: &str| format!("HTTP/1.1 200 OK\r\n\r\n{body}").into_bytes();
    for (what, answer) in [
        ("shorter than its length", cut(TOKENS)),
        ("cut within the token", json(200, r#"{"refresh_token":"ts-test-secret-r1"#)),
        ("a form of unknown length", unframed("refresh_token=ts-test-secret-r1")),
        ("flawed JSON of unknown length", unframed(&format!("{TOKENS}\0"))),
        ("two different tokens", json(200, &format!("{TOKENS} {}", TOKENS.replace("-r1", "-r2")))),
        ("a token in Latin-1", with_head(200, "", b"{\"refresh_token\":\"r\xe9\"}")),
        ("gzip that is cut off", with_head(200, "Content-Encoding: gzip\r\n", &gzip(TOKENS.as_bytes())[..40])),
    ] {
        let world = World::new(Profile::github());
        let (_raw, supervisor, key) = refreshed(&world, answer, |idp| idp).await;
        assert_eq!(stored(&supervisor, &key).await, "ts-test-secret-r0", "{what}");
        let status = within(supervisor.status(&key)).await.unwrap();
        assert_eq!(status.state, State::InDoubt, "{what}: {status:?}");
        stop(supervisor).await;
    }
}

#[tokio::test]
async fn a_compressed_refusal_is_a_refusal() {
    let dead = br#"{"error":"invalid_grant"}"#;
    for lines in ["Content-Encoding: gzip\r\n", "Content-Encoding: x-gzip\r\n", ""] {
        let world = World::new(Profile::github());
        let (_raw, supervisor, key) = refreshed(&world, with_head(400, lines, &gzip(dead)), |idp| idp).await;
        assert_eq!(within(supervisor.status(&key)).await.unwrap().state, State::ReconnectRequired);
        stop(supervisor).await;
    }
}

#[tokio::test]
async fn wrapped_responses_are_read_where_the_settings_say() {
    let wrapped = |idp: Idp| {
        idp.response_field(ResponseField::AccessToken, "/body/access_token")
            .response_field(ResponseField::RefreshToken, "/body/refresh_token")
            .response_field(ResponseField::ExpiresIn, "/body/expires_in")
            .response_field(ResponseField::Error, "/status")
            .success_value("0")
            .error(ErrorRule::new("40101", Meaning::UserMustReconnect))
    };
    let world = World::new(Profile::github());
    let answer = json(200, &format!(r#"{{"status":0,"body":{TOKENS}}}"#));
    let (_raw, supervisor, key) = refreshed(&world, answer, wrapped).await;
    assert_eq!(stored(&supervisor, &key).await, "ts-test-secret-r1");
    let read = supervisor.grant_from_response("idp", format!(r#"{{"status":0,"body":{TOKENS}}}"#).as_bytes()).unwrap();
    let bob = TokenKey::at("idp").user("bob");
    let refused = within(supervisor.connect(&bob, read)).await.unwrap_err();
    assert_eq!(refused, Error::DuplicateGrant, "it is the token that alice has");
    stop(supervisor).await;

    let world = World::new(Profile::github());
    let (_raw, supervisor, key) = refreshed(&world, json(200, r#"{"status":40101,"body":null}"#), wrapped).await;
    let status = within(supervisor.status(&key)).await.unwrap();
    assert_eq!((status.state, status.reason.as_deref()), (State::ReconnectRequired, Some("40101")));
    stop(supervisor).await;
}

/// How long the access token lives that came with this response, in seconds; `None` if it never expires.
fn lifetime(world: &World, status: &Status) -> Option<u64> {
    match status.expiry {
        Expiry::At(end) => Some(end.duration_since(world.clock.now()).unwrap_or_default().as_secs()),
        _ => None,
    }
}

#[tokio::test]
async fn a_lifetime_is_read_as_what_it_plainly_is_or_assumed() {
    let now = 1_800_000_000_u64;
    for (members, expected) in [
        (r#""expires_in":"7200s""#.to_owned(), 7_200),
        (r#""expires_in":"2h""#.to_owned(), 7_200),
        (format!(r#""expires_at":{}"#, now + 7_200), 7_200),
        (format!(r#""expires_on":"{}""#, now + 7_200), 7_200),
        (r#""expiry":"2027-01-15T10:00:00.000000001Z""#.to_owned(), 7_200),
        (format!(r#""expires_in":{}"#, now + 7_200), 7_200),
        (format!(r#""expires_in":{}000"#, now + 7_200), 7_200),
        (r#""expires_in":604800000"#.to_owned(), 604_800),
        (r#""expires_in":99999999999"#.to_owned(), 400 * 86_400),
        // As this grant was told last.
        (r#""scope":"api""#.to_owned(), 3_600),
        (r#""expires_in":null"#.to_owned(), 3_600),
        (r#""expires_in":0"#.to_owned(), 3_600),
        (r#""expires_in":"soon""#.to_owned(), 3_600),
    ] {
        let world = World::new(Profile::github());
        let body = format!(r#"{{"access_token":"ts-test-secret-a1","refresh_token":"ts-test-secret-r1",{members}}}"#);
        let (_raw, supervisor, key) = refreshed(&world, json(200, &body), |idp| idp).await;
        let status = within(supervisor.status(&key)).await.unwrap();
        assert_eq!(lifetime(&world, &status), Some(expected), "{members}");
        stop(supervisor).await;
    }
}

#[tokio::test]
async fn a_lifetime_that_nobody_tells_is_the_usual_one_of_the_provider_or_an_hour() {
    let silent = |number: usize| {
        json(
            200,
            &format!(r#"{{"access_token":"ts-test-secret-{number}","refresh_token":"ts-test-secret-n{number}"}}"#),
        )
    };
    let world = World::new(Profile::github());
    let raw = RawIdp::start(move |number, _| match number {
        1 => json(200, &TOKENS.replace("3600", "900")),
        _ => silent(number),
    })
    .await;
    let supervisor = world.bare_builder().idp("idp", idp(&raw)).start().await.unwrap();
    let keys = ["alice", "bob", "carol"].map(|user| TokenKey::at("idp").user(user));
    let mut lifetimes = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let token = format!("ts-test-secret-c{number}");
        within(supervisor.connect(key, Grant::from_refresh_token(token.as_str()))).await.unwrap();
        within(supervisor.token(key)).await.unwrap();
        lifetimes.push(lifetime(&world, &within(supervisor.status(key)).await.unwrap()));
    }
    assert_eq!(lifetimes, [Some(3_600), Some(900), Some(900)], "an hour; told; as another grant was told");
    stop(supervisor).await;

    // The settings overrule what is assumed, and what is told.
    for (settings, expected) in [
        ((|idp| idp.access_lifetime(Duration::from_secs(60))) as fn(Idp) -> Idp, 3_600),
        (|idp| idp.access_lifetime_override(Duration::from_secs(60)), 60),
        (|idp| idp.max_access_lifetime(Duration::from_secs(600)), 600),
    ] {
        let world = World::new(Profile::github());
        let (_raw, supervisor, key) = refreshed(&world, json(200, TOKENS), settings).await;
        assert_eq!(lifetime(&world, &within(supervisor.status(&key)).await.unwrap()), Some(expected));
        stop(supervisor).await;
    }
}

#[tokio::test]
async fn a_lifetime_that_makes_no_sense_is_told() {
    let world = World::new(Profile::github());
    let raw = RawIdp::start(|_, _| json(200, &TOKENS.replace("3600", "99999999999"))).await;
    let supervisor = world.bare_builder().idp("idp", idp(&raw)).start().await.unwrap();
    let mut events = supervisor.events();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, grant())).await.unwrap();
    within(supervisor.refresh_now(&key)).await.unwrap();
    let drift = async {
        loop {
            if let EventKind::ResponseDrift { field } = events.recv().await.unwrap().unwrap().kind {
                return field;
            }
        }
    };
    assert_eq!(within(drift).await, "expires_in");
    let metrics = format!("{:?}", within(supervisor.metrics()).await);
    assert!(metrics.contains("preset_drift_total"), "{metrics}");
    stop(supervisor).await;
}

#[tokio::test]
async fn tokens_of_a_second_are_refreshed_at_most_twice_a_second() {
    let world = World::new(Profile::github());
    let short = |number| {
        let tokens =
            TOKENS.replace("3600", "1").replace("-a1", &format!("-a{number}")).replace("-r1", &format!("-r{number}n"));
        json(200, &tokens)
    };
    let (raw, supervisor, key) = asked_once(&world, short, |idp| idp).await;
    let before = raw.log().len();
    for _ in 0..100 {
        drop(tokio::spawn(supervisor.call(Acquire::new(&key))));
        pass(&world, &supervisor, Duration::from_millis(100), Duration::from_millis(100)).await;
    }
    let sent = raw.log().len() - before;
    assert!((5..=20).contains(&sent), "{sent} requests in ten seconds");
    stop(supervisor).await;
}

#[tokio::test]
async fn a_refresh_is_due_before_the_refresh_token_ends() {
    let world = World::new(Profile::github());
    let six_seconds = |number| {
        let tokens = TOKENS.replace('}', r#","refresh_expires_in":6}"#).replace("-r1", &format!("-r{number}n"));
        json(200, &tokens)
    };
    let (raw, supervisor, _) = asked_once(&world, six_seconds, |idp| idp).await;
    pass(&world, &supervisor, Duration::from_secs(5), Duration::from_millis(500)).await;
    eventually("it is refreshed before six seconds are over", || raw.log().len() == 2).await;
    stop(supervisor).await;
}

#[tokio::test]
async fn a_token_of_2020_is_not_fresh() {
    let world = World::new(Profile::github());
    let raw = RawIdp::start(|_, _| json(200, TOKENS)).await;
    let supervisor = world.bare_builder().idp("idp", idp(&raw)).start().await.unwrap();
    for (number, member) in [
        r#""expires_at":1577836800"#,
        r#""expires_at":"2020-01-01T00:00:00Z""#,
        r#""expires_on":"1577836800""#,
        r#""expires":1577836800000"#,
        r#""expiry":"2020-01-01T01:00:00.5+01:00""#,
        r#""expires_in":1577836800"#,
    ]
    .into_iter()
    .enumerate()
    {
        let response =
            format!(r#"{{"access_token":"ts-test-secret-old","refresh_token":"ts-test-secret-{number}",{member}}}"#);
        let grant = Grant::from_token_response(response.as_bytes()).unwrap();
        let key = TokenKey::at("idp").user(format!("user-{number}"));
        let status = within(supervisor.connect(&key, grant)).await.unwrap();
        assert!(matches!(status.state, State::Due | State::Refreshing), "{member}: {status:?}");
        assert_eq!(within(supervisor.token(&key)).await.unwrap().access_token().expose_secret(), "ts-test-secret-a1");
    }
    stop(supervisor).await;
}

#[tokio::test]
async fn dead_grants_do_not_close_the_provider_for_others() {
    for dead in [
        json(401, r#"{"error":{"code":"token_expired"}}"#),
        json(503, r#"{"message":"no such session"}"#),
        json(200, r#"{"status":"expired"}"#),
        with_head(404, "Content-Type: text/html\r\n", b"<html>no such user</html>"),
        json(400, r#"{"error":"E17"}"#),
        b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n".to_vec(),
    ] {
        let world = World::new(Profile::github());
        let raw = RawIdp::start(move |number, request| {
            let is_dead = request.field("refresh_token").unwrap().contains("dead");
            let tokens = TOKENS.replace("-r1", &format!("-r{number}n"));
            if is_dead { dead.clone() } else { json(200, &tokens) }
        })
        .await;
        let supervisor = world.bare_builder().idp("idp", idp(&raw)).start().await.unwrap();
        for number in 0..3 {
            let key = TokenKey::at("idp").user(format!("dead-{number}"));
            let token = format!("ts-test-secret-dead-{number}");
            within(supervisor.connect(&key, Grant::from_refresh_token(token.as_str()))).await.unwrap();
        }
        pass(&world, &supervisor, Duration::from_secs(120), Duration::from_secs(5)).await;
        assert!(raw.log().len() >= 6, "the dead ones are tried again and again: {}", raw.log().len());
        let alice = TokenKey::at("idp").user("alice");
        within(supervisor.connect(&alice, Grant::from_refresh_token("ts-test-secret-r0"))).await.unwrap();
        within(supervisor.call(Acquire::new(&alice).timeout(Duration::ZERO))).await.unwrap_err();
        within(supervisor.token(&alice)).await.unwrap();
        assert_eq!(supervisor.idps()[0].paused, None);
        stop(supervisor).await;
    }
}

#[tokio::test]
async fn a_code_that_nobody_knows_is_told_after_a_while() {
    let world = World::new(Profile::oauth2(Kind::Strict));
    let (supervisor, key) = world.connected().await;
    world.sim.always(Some(Fault::error(400, "E17")));
    world.clock.advance(LIFE);
    pass(&world, &supervisor, Duration::from_secs(60), Duration::from_secs(5)).await;
    let cause = async || {
        loop {
            match within(supervisor.call(Acquire::new(&key).timeout(Duration::ZERO))).await {
                Err(Error::Unavailable { cause, .. }) => return cause,
                // A refresh is under way.
                Err(Error::Timeout) => pass(&world, &supervisor, Duration::from_secs(1), Duration::from_secs(1)).await,
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(cause().await, Cause::IdpDown);
    pass(&world, &supervisor, Duration::from_secs(1_800), Duration::from_secs(20)).await;
    assert_eq!(cause().await, Cause::UnknownError);
    assert_eq!(within(supervisor.status(&key)).await.unwrap().evidence.unwrap().code, "E17");
    // A rule says what it means.
    let rule = ErrorRule::new("E17", Meaning::UserMustReconnect);
    supervisor.set_idp("idp", world.sim.idp().error(rule)).unwrap();
    pass(&world, &supervisor, Duration::from_secs(400), Duration::from_secs(20)).await;
    assert_eq!(within(supervisor.status(&key)).await.unwrap().state, State::ReconnectRequired);
    stop(supervisor).await;
}

/// Connects so many grants, and refreshes each once.
async fn many(world: &World, supervisor: &TokenSupervisor, grants: usize) -> Vec<TokenKey> {
    let keys: Vec<_> = (0..grants).map(|number| TokenKey::at("idp").user(format!("user-{number}"))).collect();
    for key in &keys {
        within(supervisor.connect(key, world.sim.consent(key.user()))).await.unwrap();
    }
    keys
}

async fn states(supervisor: &TokenSupervisor, keys: &[TokenKey], state: State) -> usize {
    let mut count = 0;
    for key in keys {
        count += usize::from(within(supervisor.status(key)).await.unwrap().state == state);
    }
    count
}

#[tokio::test]
async fn a_provider_that_refuses_everybody_is_paused_and_nobody_is_lost() {
    let world = World::new(Profile::oauth2(Kind::Strict));
    let supervisor = world.start().await;
    let keys = many(&world, &supervisor, 20).await;
    world.sim.always(Some(Fault::error(400, "invalid_grant")));
    for key in &keys {
        within(supervisor.refresh_now(key)).await.unwrap_err();
    }
    let refused = states(&supervisor, &keys, State::ReconnectRequired).await;
    assert_eq!((refused, supervisor.idps()[0].paused), (5, Some(Cause::RefusalSurge)));
    let error = within(supervisor.refresh_now(&keys[19])).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { cause: Cause::RefusalSurge, .. }), "{error}");
    // While it lasts, canaries cost few others.
    pass(&world, &supervisor, Duration::from_secs(900), Duration::from_secs(5)).await;
    let refused = states(&supervisor, &keys, State::ReconnectRequired).await;
    assert!(refused <= 8, "{refused}");
    // The provider has come back: a canary succeeds, and all the others follow.
    world.sim.always(None);
    for _ in 0..40 {
        pass(&world, &supervisor, Duration::from_secs(30), Duration::from_secs(5)).await;
        if states(&supervisor, &keys, State::ReconnectRequired).await == 0 {
            break;
        }
    }
    assert_eq!(states(&supervisor, &keys, State::ReconnectRequired).await, 0);
    assert_eq!((supervisor.idps()[0].paused, world.sim.duplicate_spends()), (None, 0));
    for key in &keys {
        let token = supervisor.testing().stored_refresh_token(key).await.unwrap().unwrap();
        assert_eq!(world.sim.standing(&token), Standing::Current);
    }
    stop(supervisor).await;
}

#[tokio::test]
async fn people_release_a_provider_that_refuses_rightly() {
    let world = World::new(Profile::oauth2(Kind::Strict));
    let supervisor = world.start().await;
    let keys = many(&world, &supervisor, 8).await;
    for key in &keys[..6] {
        world.sim.end_family(key.user());
    }
    for key in &keys[..6] {
        within(supervisor.refresh_now(key)).await.unwrap_err();
    }
    assert_eq!(supervisor.idps()[0].paused, Some(Cause::RefusalSurge));
    within(supervisor.release_idp("idp")).await.unwrap();
    within(supervisor.refresh_now(&keys[7])).await.unwrap();
    let before = world.sim.requests();
    pass(&world, &supervisor, Duration::from_secs(30), Duration::from_secs(5)).await;
    assert!(world.sim.requests() >= before + 5, "those that were refused are tried once more");
    assert!(states(&supervisor, &keys[..5], State::ReconnectRequired).await >= 4, "and are refused again");
    stop(supervisor).await;
}

#[tokio::test]
async fn no_form_of_now_makes_us_hurry() {
    for value in [
        "0",
        "0.0",
        "-0",
        "00",
        "0.001",
        "-1",
        "-60",
        "1e-9",
        "+0",
        " 0 ",
        "0s",
        "now",
        "",
        "null",
        "NaN",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Fri, 15 Jan 2027 07:59:00 GMT",
        "Fri, 15 Jan 2027 08:00:00 GMT",
        "2020-01-01T00:00:00Z",
        "99999999999999999999999x",
    ] {
        for status in [429, 503] {
            let world = World::new(Profile::github());
            let answer = with_head(status, &format!("Retry-After: {value}\r\n"), b"{}");
            let raw = RawIdp::start(move |_, _| answer.clone()).await;
            let supervisor = world.bare_builder().idp("idp", idp(&raw)).start().await.unwrap();
            let key = TokenKey::at("idp").user("alice");
            within(supervisor.connect(&key, Grant::from_refresh_token("ts-test-secret-r0"))).await.unwrap();
            pass(&world, &supervisor, Duration::from_secs(11), Duration::from_millis(250)).await;
            let sent = raw.log().len();
            assert!((1..=9).contains(&sent), "{status} {value:?}: {sent} requests in 11 s");
            stop(supervisor).await;
        }
    }
}

#[tokio::test]
async fn a_vendors_form_of_now_makes_us_hurry_neither() {
    for body in [r#"{"retry_after":0}"#, r#"{"retry_after":-5}"#, r#"{"retry_after":0.0001}"#, r#"{"retry_after":"0"}"#]
    {
        let world = World::new(Profile::github());
        let raw = RawIdp::start(move |_, _| json(429, body)).await;
        let supervisor = world.bare_builder().idp("idp", idp(&raw)).start().await.unwrap();
        let key = TokenKey::at("idp").user("alice");
        within(supervisor.connect(&key, Grant::from_refresh_token("ts-test-secret-r0"))).await.unwrap();
        pass(&world, &supervisor, Duration::from_secs(11), Duration::from_millis(250)).await;
        assert!((1..=9).contains(&raw.log().len()), "{body}: {}", raw.log().len());
        stop(supervisor).await;
    }
}

#[tokio::test]
async fn a_grants_parameters_decide_where_its_token_is_sent() {
    let world = World::new(Profile::github());
    let raw = RawIdp::start(|number, _| json(200, &TOKENS.replace("-r1", &format!("-r{number}n")))).await;
    let base = format!("http://{}", raw.address);
    let keycloak = presets::keycloak(&base, "app", "client", "ts-test-secret-client");
    let supervisor = world.bare_builder().idp("idp", keycloak).start().await.unwrap();
    let at = |user: &str| TokenKey::at("idp").user(user);
    within(supervisor.connect(&at("alice"), grant())).await.unwrap();
    let own = Grant::from_refresh_token("ts-test-secret-b").param("realm", "tenant-b");
    within(supervisor.connect(&at("bob"), own)).await.unwrap();
    within(supervisor.token(&at("bob"))).await.unwrap();
    within(supervisor.refresh_now(&at("alice"))).await.unwrap();
    let paths: Vec<_> =
        raw.log().iter().map(|request| (request.path().to_owned(), request.field("realm").is_some())).collect();
    let path = |realm: &str| format!("/realms/{realm}/protocol/openid-connect/token");
    assert_eq!(paths, [(path("tenant-b"), false), (path("app"), false)]);
    // Its revocation goes there, too.
    within(supervisor.disconnect(&at("bob"), Revoke::Yes)).await.unwrap();
    within(supervisor.revoke_queued()).await.unwrap();
    assert_eq!(raw.log().last().unwrap().path(), "/realms/tenant-b/protocol/openid-connect/revoke");
    for (name, value) in [("tenant", "x"), ("realm", ".."), ("realm", ""), ("client_id", "x")] {
        let grant = Grant::from_refresh_token("ts-test-secret-c").param(name, value);
        let refused = within(supervisor.connect(&at("carol"), grant)).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidRequest(_)), "{name}={value}: {refused}");
    }
    stop(supervisor).await;
}

#[tokio::test]
async fn an_access_token_alone_goes_on_with_all_that_belongs_to_the_refresh_token() {
    let world = World::new(Profile::github());
    let raw = RawIdp::start(|_, _| json(200, &TOKENS.replace('{', r#"{"instance_url":"https://eu1.example","#))).await;
    let base = format!("http://{}", raw.address);
    let keycloak = presets::keycloak(&base, "app", "client", "ts-test-secret-client").expose("instance_url");
    let supervisor = world.bare_builder().idp("idp", keycloak).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    let own = Grant::from_refresh_token("ts-test-secret-b").param("realm", "tenant-b");
    within(supervisor.connect(&key, own)).await.unwrap();
    within(supervisor.token(&key)).await.unwrap();
    let alone = || Grant::new("ts-test-secret-a9");
    let refused = within(supervisor.connect(&key, alone().param("realm", "tenant-c"))).await.unwrap_err();
    assert!(matches!(refused, Error::InvalidRequest(_)), "{refused}");
    for grant in [alone(), alone().param("realm", "tenant-b")] {
        within(supervisor.connect(&key, grant)).await.unwrap();
        let token = within(supervisor.token(&key)).await.unwrap();
        assert_eq!(token.access_token().expose_secret(), "ts-test-secret-a9");
        assert_eq!(token.field("instance_url").unwrap(), "https://eu1.example");
        // It can be refreshed, and so it is due like every other one.
        assert!(matches!(within(supervisor.status(&key)).await.unwrap().expiry, Expiry::At(_)));
    }
    world.clock.advance(LIFE / 2);
    within(supervisor.refresh_now(&key)).await.unwrap();
    let paths: Vec<_> = raw.log().iter().map(|request| request.path().to_owned()).collect();
    assert_eq!(paths, ["/realms/tenant-b/protocol/openid-connect/token"; 2]);
    stop(supervisor).await;
}

#[tokio::test]
async fn the_same_access_token_again_keeps_only_an_end_that_was_stated() {
    let silent = r#"{"access_token":"ts-test-secret-a0"}"#;
    for (grant, state) in [
        // Nobody said when it ends: an assumed hour is assumed anew.
        (Grant::new("ts-test-secret-a0").refresh_token("ts-test-secret-r0"), State::Fresh),
        (grant().expires_in(Duration::from_secs(3_600)), State::Backoff),
    ] {
        let world = World::new(Profile::github());
        let raw = RawIdp::start(move |_, _| json(200, silent)).await;
        let supervisor = world.bare_builder().idp("idp", idp(&raw)).start().await.unwrap();
        let key = TokenKey::at("idp").user("alice");
        within(supervisor.connect(&key, grant)).await.unwrap();
        world.clock.advance(Duration::from_secs(3_700));
        within(supervisor.refresh_now(&key)).await.ok();
        let status = within(supervisor.status(&key)).await.unwrap();
        assert_eq!(status.state, state, "{status:?}");
        stop(supervisor).await;
    }
}

#[tokio::test]
async fn the_settings_bound_a_lifetime_at_connect_too() {
    let override_600 = (|idp: Idp| idp.access_lifetime_override(Duration::from_secs(600))) as fn(Idp) -> Idp;
    let at_most_600 = (|idp: Idp| idp.max_access_lifetime(Duration::from_secs(600))) as fn(Idp) -> Idp;
    let soon = |world: &World| grant().expiry(Expiry::At(world.clock.now() + Duration::from_secs(60)));
    let hour = |_: &World| grant().expires_in(Duration::from_secs(3_600));
    let silent = |_: &World| Grant::new("ts-test-secret-a0").refresh_token("ts-test-secret-r0");
    type Given = fn(&World) -> Grant;
    for (settings, given, expected) in [
        (override_600, hour as Given, 600),
        (override_600, silent as Given, 600),
        (override_600, soon as Given, 60),
        (at_most_600, hour as Given, 600),
        (at_most_600, soon as Given, 60),
    ] {
        let world = World::new(Profile::github());
        let idp = settings(Idp::oauth2("http://127.0.0.1:9/token", "client", "ts-test-secret-client"));
        let supervisor = world.bare_builder().idp("idp", idp).start().await.unwrap();
        let key = TokenKey::at("idp").user("alice");
        within(supervisor.connect(&key, given(&world))).await.unwrap();
        let end = within(supervisor.status(&key)).await.unwrap().expiry;
        let Expiry::At(end) = end else { panic!("{end:?}") };
        let left = end.duration_since(world.clock.now()).unwrap().as_secs_f64().ceil() as u64;
        assert_eq!(left, expected);
        stop(supervisor).await;
    }
}

#[tokio::test]
async fn one_refresh_token_belongs_to_one_section() {
    let world = World::new(Profile::gitlab());
    let builder =
        world.builder().idp("again", world.sim.idp().token_url(world.sim.token_url().replace("http", "HTTP")));
    let other = world.sim.idp().token_url("http://127.0.0.1:9/token");
    let supervisor = builder.idp("elsewhere", other).start().await.unwrap();
    let grant = world.sim.consent("alice");
    within(supervisor.connect(&TokenKey::at("idp").user("alice"), grant.clone())).await.unwrap();
    for user in ["alice", "bob"] {
        let refused = within(supervisor.connect(&TokenKey::at("again").user(user), grant.clone())).await;
        assert_eq!(refused.unwrap_err(), Error::DuplicateGrant);
    }
    within(supervisor.connect(&TokenKey::at("elsewhere").user("alice"), grant.clone())).await.unwrap();
    within(supervisor.refresh_now(&TokenKey::at("idp").user("alice"))).await.unwrap();
    let spent = within(supervisor.connect(&TokenKey::at("again").user("alice"), grant)).await;
    assert_eq!(spent.unwrap_err(), Error::DuplicateGrant, "also when it is spent");
    stop(supervisor).await;
}

#[tokio::test]
async fn a_lone_access_token_is_revoked() {
    let world = World::new(Profile::gitlab());
    let supervisor = world.start().await;
    let key = TokenKey::at("idp").user("alice");
    let mut grant = world.sim.consent("alice");
    let lone = Grant::from_token_response(&world.sim.consent_answer("alice")).unwrap();
    drop(grant);
    let text = String::from_utf8(world.sim.consent_answer("alice")).unwrap();
    let access = text.split("\"access_token\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    grant = Grant::new(access.as_str()).expires_in(LIFE);
    drop(lone);
    within(supervisor.connect(&key, grant)).await.unwrap();
    within(supervisor.disconnect(&key, Revoke::Yes)).await.unwrap();
    within(supervisor.revoke_queued()).await.unwrap();
    assert_eq!(world.sim.revocations(), 1);
    assert!(world.sim.access_died_at(&access.as_str().into()).is_some());
    assert_eq!(within(supervisor.restore(&key)).await.unwrap_err(), Error::NotConnected);
    stop(supervisor).await;
}

#[tokio::test]
async fn basic_authentication_may_repeat_the_id_in_the_form() {
    let world = World::new(Profile::github());
    let (raw, supervisor, _) =
        refreshed(&world, json(200, TOKENS), |idp| idp.client_auth(ClientAuth::BasicAndId)).await;
    let request = &raw.log()[0];
    assert!(request.head.to_ascii_lowercase().contains("authorization: basic "), "{}", request.head);
    assert_eq!((request.field("client_id"), request.field("client_secret")), (Some("client"), None));
    stop(supervisor).await;
}

#[tokio::test]
async fn an_operator_who_mends_the_secret_and_restarts_need_not_wait() {
    let world = World::new(Profile::keycloak());
    let client = world.sim.profile().client_id.clone();
    let wrong = presets::oauth2(world.sim.token_url(), client, "ts-test-secret-wrong");
    let supervisor = world.bare_builder().idp("idp", wrong).start().await.unwrap();
    let key = TokenKey::at("idp").user("alice");
    within(supervisor.connect(&key, world.sim.consent("alice"))).await.unwrap();
    world.clock.advance(LIFE);
    for _ in 0..3 {
        pass(&world, &supervisor, Duration::from_secs(400), Duration::from_secs(20)).await;
    }
    stop(supervisor).await;
    world.clock.advance(Duration::from_millis(10));
    let supervisor = world.start().await;
    let token = within(supervisor.call(Acquire::new(&key).timeout(Duration::from_millis(900)))).await;
    assert!(token.is_ok(), "{token:?}");
    stop(supervisor).await;
}

#[tokio::test]
async fn what_is_needed_beside_the_token_goes_out_from_the_newest_response() {
    let world = World::new(Profile::github());
    let first = r#"{"access_token":"ts-test-secret-a1","refresh_token":"ts-test-secret-r1","expires_in":3600,
        "token_type":"bot","instance_url":"https://eu1.example","team":{"id":"T1"},"other":"x"}"#;
    let (_raw, supervisor, key) =
        refreshed(&world, json(200, first), |idp| idp.expose("instance_url").expose("team")).await;
    let token = within(supervisor.token(&key)).await.unwrap();
    assert_eq!(token.field("instance_url").unwrap(), "https://eu1.example");
    assert_eq!(token.field("team").unwrap()["id"], "T1");
    assert_eq!((token.field("other"), token.token_type()), (None, "bot"));
    assert_eq!(*token.authorization(), "Bearer ts-test-secret-a1");
    // A later response without them keeps them.
    world.clock.advance(LIFE / 2);
    within(supervisor.refresh_now(&key)).await.unwrap();
    let token = within(supervisor.token(&key)).await.unwrap();
    assert_eq!(token.access_token().expose_secret(), "ts-test-secret-a1x");
    assert_eq!(token.field("instance_url").unwrap(), "https://eu1.example");
    stop(supervisor).await;
}

#[tokio::test]
async fn the_scheme_is_bearer_unless_the_type_needs_a_proof_or_the_settings_say() {
    let plain = (|idp| idp) as fn(Idp) -> Idp;
    for (token_type, settings, expected) in [
        ("bearer", plain, "Bearer"),
        ("BEARER", plain, "Bearer"),
        ("bot", plain, "Bearer"),
        ("user", plain, "Bearer"),
        ("DPoP", plain, "DPoP"),
        ("dpop", plain, "DPoP"),
        ("mac", plain, "MAC"),
        ("bearer", (|idp| idp.authorization_scheme("Zoho-oauthtoken")) as fn(Idp) -> Idp, "Zoho-oauthtoken"),
    ] {
        let world = World::new(Profile::github());
        let body = TOKENS.replace('{', &format!(r#"{{"token_type":"{token_type}","#));
        let (_raw, supervisor, key) = refreshed(&world, json(200, &body), settings).await;
        let token = within(supervisor.token(&key)).await.unwrap();
        assert_eq!(*token.authorization(), format!("{expected} ts-test-secret-a1"), "{token_type}");
        stop(supervisor).await;
    }
}

#[tokio::test]
async fn a_user_of_salesforce_is_known_by_organization_and_user_not_by_the_host() {
    for (id, state) in [
        ("https://eu9.salesforce.example/id/00D/005", State::Fresh),
        ("https://login.salesforce.example/id/00D/005", State::Fresh),
        ("https://eu9.salesforce.example/id/00D/006", State::ReconnectRequired),
        ("https://eu9.salesforce.example/id/00E/005", State::ReconnectRequired),
        ("https://evil.example/id/00D/005/x", State::ReconnectRequired),
        ("005", State::ReconnectRequired),
    ] {
        let world = World::new(Profile::github());
        let raw = RawIdp::start(move |_, _| json(200, &TOKENS.replace('{', &format!(r#"{{"id":"{id}","#)))).await;
        let salesforce = presets::salesforce("client", "ts-test-secret-client").token_url(raw.url());
        let supervisor = world.bare_builder().idp("idp", salesforce).start().await.unwrap();
        let key = TokenKey::at("idp").user("alice");
        let grant = grant().subject("https://login.salesforce.example/id/00D/005");
        within(supervisor.connect(&key, grant)).await.unwrap();
        within(supervisor.refresh_now(&key)).await.ok();
        assert_eq!(within(supervisor.status(&key)).await.unwrap().state, state, "{id}");
        stop(supervisor).await;
    }
}

#[tokio::test]
async fn every_oddity_of_the_simulator_is_survived() {
    for oddity in Oddity::ALL {
        let world = World::new(Profile::oauth2(Kind::Strict));
        let (supervisor, key) = world.connected().await;
        world.sim.next(Fault::Odd(oddity));
        within(supervisor.refresh_now(&key)).await.ok();
        pass(&world, &supervisor, Duration::from_secs(3), Duration::from_millis(500)).await;
        let status = within(supervisor.status(&key)).await.unwrap();
        assert!(matches!(status.state, State::Fresh) && status.expiry != Expiry::Unknown, "{oddity:?}: {status:?}");
        assert_eq!((world.stored(supervisor, &key).await, world.sim.duplicate_spends()), (Standing::Current, 0));
    }
}
