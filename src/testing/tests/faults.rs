//! What each fault does to the client, the token and the log.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::*;
use crate::idp;

#[tokio::test]
async fn a_fault_before_processing_leaves_the_token_unspent() {
    let scene = Scene::gitlab(Kind::Strict);
    for (fault, seen) in [
        (Fault::DropBefore, Seen::Nothing),
        (Fault::Status(502, None), Seen::Answer(502, "<html><body><h1>502</h1>Please stand by.</body></html>".into())),
        (Fault::Garbage, Seen::Answer(200, "<html><body><h1>200</h1>Please stand by.</body></html>".into())),
        (Fault::Redirect, Seen::Answer(302, "<html><body><h1>302</h1>Please stand by.</body></html>".into())),
        (Fault::error(503, "invalid_grant"), Seen::Answer(503, serde_json::json!({ "error": "invalid_grant" }))),
    ] {
        scene.idp.next(fault.clone());
        assert_eq!(scene.refresh(scene.first.expose_secret()).await, seen, "{fault:?}");
        assert_eq!(scene.idp.standing(&scene.first), Standing::Current, "{fault:?}");
    }
    assert_eq!(scene.outcomes(), [Outcome::NotProcessed; 5]);
    assert_eq!((scene.idp.requests(), scene.idp.faults_injected().values().sum::<u64>()), (5, 5));

    scene.idp.always(Some(Fault::Status(429, Some("7".to_owned()))));
    for _ in 0..2 {
        let response = scene.http.post(scene.idp.token_url()).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (429, "7"));
    }
    scene.idp.always(None);
    assert_eq!(scene.refresh(scene.first.expose_secret()).await.status(), Some(200));
}

#[tokio::test]
async fn a_fault_after_processing_spends_the_token() {
    for (fault, expected) in [
        (Fault::DropAfter, None),
        (Fault::StatusAfter(504), Some(504)),
        (Fault::CutAt(0), None),
        (Fault::CutAt(40), None),
        (Fault::CutAt(100_000), Some(200)),
        (Fault::CloseDelimited, Some(200)),
        (Fault::CloseDelimitedCutAt(30), Some(200)),
        (Fault::LostRefreshToken, Some(200)),
    ] {
        let scene = Scene::gitlab(Kind::Strict);
        scene.idp.next(fault.clone());
        let seen = scene.refresh(scene.first.expose_secret()).await;
        assert_eq!(seen.status(), expected, "{fault:?}");
        let complete = matches!(fault, Fault::CutAt(100_000) | Fault::CloseDelimited);
        assert_eq!(seen.text("refresh_token").is_some(), complete, "{fault:?}");
        assert_eq!(scene.idp.standing(&scene.first), Standing::Spent, "{fault:?}");
        assert_eq!(scene.outcomes(), [Outcome::Rotated], "{fault:?}");
        assert!(scene.refresh(scene.first.expose_secret()).await.is(400, "invalid_grant"), "{fault:?}");
        assert_eq!((scene.idp.duplicate_spends(), scene.outcomes()[1]), (1, Outcome::KilledFamily), "{fault:?}");
    }
}

#[tokio::test]
async fn a_cut_concerns_one_answer_and_not_the_next_on_the_connection() {
    let scene = Scene::gitlab(Kind::SamePair { grace: Duration::from_secs(600) });
    scene.idp.next(Fault::CutAt(700));
    let first = scene.refresh(scene.first.expose_secret()).await;
    assert_eq!(first.status(), Some(200));
    assert_eq!(scene.refresh(scene.first.expose_secret()).await, first);
}

#[tokio::test]
async fn without_a_refresh_token_the_old_one_stays() {
    let scene = Scene::gitlab(Kind::Strict);
    scene.idp.next(Fault::WithoutRefreshToken);
    let answer = scene.refresh(scene.first.expose_secret()).await;
    assert!(answer.text("access_token").is_some() && answer.text("refresh_token").is_none());
    assert_eq!((scene.outcomes(), scene.idp.standing(&scene.first)), (vec![Outcome::Renewed], Standing::Current));
}

#[tokio::test]
async fn delays_pass_with_the_clock() {
    let scene = Scene::gitlab(Kind::Strict);
    scene.idp.next(Fault::Delay(Duration::from_secs(20)));
    let delayed = async {
        scene.arrived(1).await;
        assert_eq!(scene.outcomes(), [Outcome::NotProcessed]);
        scene.clock.advance(Duration::from_secs(20));
    };
    let (answer, ()) = tokio::join!(scene.refresh(scene.first.expose_secret()), delayed);
    let second = answer.text("refresh_token").unwrap();
    let logged = &scene.idp.presentations()[0];
    assert_eq!(logged.processed_at, Some(logged.at + Duration::from_secs(20)));

    scene.idp.next(Fault::SlowBody(Duration::from_secs(20)));
    let (answer, ()) = tokio::join!(scene.refresh(second), async {
        until(|| scene.outcomes().len() == 2 && scene.outcomes()[1] == Outcome::Rotated).await;
        scene.clock.advance(Duration::from_secs(20));
    });
    assert!(answer.text("refresh_token").is_some());
}

#[tokio::test]
async fn late_processing_spends_the_token_long_after_the_client_was_left() {
    let scene = Scene::gitlab(Kind::Strict);
    scene.idp.next(Fault::LateProcessing(Duration::from_secs(20)));
    assert_eq!(scene.refresh(scene.first.expose_secret()).await, Seen::Nothing);
    assert_eq!(scene.idp.standing(&scene.first), Standing::Current);
    scene.clock.advance(Duration::from_secs(19));
    assert_eq!(scene.idp.standing(&scene.first), Standing::Current);
    scene.clock.advance(Duration::from_secs(1));
    until(|| scene.idp.standing(&scene.first) == Standing::Spent).await;
}

#[tokio::test]
async fn hanging_requests_wait_for_their_release_and_outlive_their_clients() {
    for (fault, hanging) in [(Fault::Hang, Standing::Current), (Fault::HangAfter, Standing::Spent)] {
        let scene = Scene::gitlab(Kind::Strict);
        scene.idp.next(fault.clone());
        let (answer, ()) = tokio::join!(scene.refresh(scene.first.expose_secret()), async {
            until(|| scene.idp.requests() == 1 && scene.idp.standing(&scene.first) == hanging).await;
            scene.idp.release();
        });
        let second = answer.text("refresh_token").unwrap();

        scene.idp.next(fault);
        {
            let abandoned = std::pin::pin!(scene.refresh(second));
            let arrived = std::pin::pin!(scene.arrived(2));
            assert!(matches!(
                futures_util::future::select(abandoned, arrived).await,
                futures_util::future::Either::Right(_)
            ));
        }
        // When this response arrives, the server has noticed that the client disconnected.
        assert_eq!(scene.user("made up").await.status(), Some(401));
        scene.idp.release();
        until(|| scene.idp.standing(&second.into()) == Standing::Spent).await;
        assert_eq!(scene.user("made up").await.status(), Some(401));
        let presentations = scene.idp.presentations();
        assert!(presentations[0].answered_at.is_some(), "{presentations:?}");
        assert!(presentations[1].given.is_some() && presentations[1].answered_at.is_none(), "{presentations:?}");
    }
}

#[tokio::test]
async fn abandoned_requests_stay_as_they_are_and_later_ones_hang_on() {
    let scene = Scene::gitlab(Kind::Reject);
    let [bob, carol] = ["bob", "carol"].map(|user| scene.idp.consent(user).refresh_token.unwrap());
    for fault in [Fault::Hang, Fault::HangAfter, Fault::Hang] {
        scene.idp.next(fault);
    }
    // The requests arrive one after the other, so that each gets its fault.
    let bob_comes = async {
        scene.arrived(1).await;
        scene.refresh(bob.expose_secret()).await
    };
    let carol_comes = async {
        until(|| scene.idp.requests() == 2 && scene.idp.standing(&bob) == Standing::Spent).await;
        scene.refresh(carol.expose_secret()).await
    };
    let (alices, bobs, carols, ()) =
        tokio::join!(scene.refresh(scene.first.expose_secret()), bob_comes, carol_comes, async {
            scene.arrived(3).await;
            scene.idp.abandon_first(2);
            scene.idp.release();
        });
    assert_eq!((alices, bobs), (Seen::Nothing, Seen::Nothing));
    let carols = carols.text("refresh_token").unwrap().into();
    assert_eq!(scene.outcomes(), [Outcome::NotProcessed, Outcome::Rotated, Outcome::Rotated]);
    assert_eq!(scene.idp.standing(&scene.first), Standing::Current);
    let [third] = &scene.idp.presentations_after(2)[..] else { panic!("three were presented") };
    assert_eq!(third.token, scene.idp.token_id(&carol));
    assert_eq!(third.given, scene.idp.token_id(&carols));
}

#[tokio::test]
async fn an_answer_counts_once_the_last_of_it_was_handed_over() {
    let minute = Duration::from_secs(60);
    for (fault, answered) in [
        (Fault::Delay(Duration::ZERO), true),
        (Fault::CloseDelimited, true),
        (Fault::Status(502, None), true),
        (Fault::DropBefore, false),
        (Fault::DropAfter, false),
        (Fault::CutAt(40), false),
        (Fault::LateProcessing(minute), false),
    ] {
        let scene = Scene::gitlab(Kind::Strict);
        scene.idp.next(fault.clone());
        scene.refresh(scene.first.expose_secret()).await;
        assert_eq!(scene.idp.presentations()[0].answered_at.is_some(), answered, "{fault:?}");
    }

    let scene = Scene::gitlab(Kind::Strict);
    scene.idp.next(Fault::SlowBody(minute));
    let (answer, ()) = tokio::join!(scene.refresh(scene.first.expose_secret()), async {
        until(|| scene.outcomes() == [Outcome::Rotated]).await;
        scene.clock.advance(minute * 7 / 8);
        assert_eq!(scene.user("made up").await.status(), Some(401));
        assert_eq!(scene.idp.presentations()[0].answered_at, None, "the last piece is not sent yet");
        scene.clock.advance(minute / 8);
    });
    assert_eq!(answer.status(), Some(200));
    assert_eq!(scene.idp.presentations()[0].answered_at, Some(scene.clock.now()));
}

#[test]
fn an_answer_is_cut_at_exactly_the_byte() {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    let idp = SimulatedIdp::start_with_clock(Profile::gitlab(), &clock).unwrap();
    let raw = |fault: Option<Fault>| {
        let token = idp.consent("alice").refresh_token.unwrap();
        let profile = idp.profile();
        let body = format!(
            "grant_type=refresh_token&refresh_token={}&client_id={}&client_secret={}",
            token.expose_secret(),
            profile.client_id,
            profile.client_secret.expose_secret()
        );
        fault.into_iter().for_each(|fault| idp.next(fault));
        let mut stream = TcpStream::connect(idp.0.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "POST /oauth/token HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(idp.standing(&token), Standing::Spent);
        String::from_utf8(answer).unwrap()
    };
    let (head, body) = raw(None).split_once("\r\n\r\n").map(|(head, body)| (head.len() + 4, body.len())).unwrap();
    for bytes in [0, 1, 16, head - 1, head, head + 1, head + body - 1] {
        let cut = raw(Some(Fault::CutAt(bytes)));
        assert_eq!(cut.len(), bytes);
        assert!("HTTP/1.1 200 OK\r\n".starts_with(&cut[..bytes.min(17)]));
    }
    assert!(raw(Some(Fault::CutAt(head + body + 100))).ends_with('}'));
    let unframed = raw(Some(Fault::CloseDelimited)).to_ascii_lowercase();
    assert!(!unframed.contains("content-length") && !unframed.contains("chunked") && unframed.ends_with('}'));
    let unframed = raw(Some(Fault::CloseDelimitedCutAt(30)));
    assert_eq!(unframed.split_once("\r\n\r\n").unwrap().1.len(), 30);
}

#[tokio::test]
async fn many_clients_in_bad_weather_and_the_log_adds_up() {
    let scene = Scene::gitlab(Kind::SamePair { grace: Duration::from_secs(600) });
    let weather = [Fault::DropBefore, Fault::DropAfter, Fault::CutAt(400), Fault::Status(503, None)];
    scene.idp.chaos(weather.into_iter().fold(Chaos::new(3), |chaos, fault| chaos.with(fault, 100)));
    let scene = &scene;
    let clients = (0..20).map(|user| async move {
        let mut token = scene.idp.consent(&format!("user-{user}")).refresh_token.unwrap();
        for _ in 0..10 {
            if let Some(next) = scene.refresh(token.expose_secret()).await.text("refresh_token") {
                token = next.into();
            }
        }
        token
    });
    let tokens = futures_util::future::join_all(clients).await;
    scene.idp.chaos(Chaos::default());
    for (user, mut token) in tokens.into_iter().enumerate() {
        while scene.idp.newest(&format!("user-{user}")).unwrap() != token {
            token = scene.refresh(token.expose_secret()).await.text("refresh_token").unwrap().into();
        }
        assert_eq!(scene.idp.standing(&token), Standing::Current);
    }
    let (injected, presentations) = (scene.idp.faults_injected(), scene.idp.presentations());
    assert_eq!(injected.len(), 4, "{injected:?}");
    let unprocessed = presentations.iter().filter(|one| one.outcome == Outcome::NotProcessed).count() as u64;
    assert_eq!(unprocessed, injected["drop_before"] + injected["status_503"]);
    assert!(presentations.iter().any(|one| one.outcome == Outcome::Replayed && one.duplicate));
    assert_eq!((presentations.len() as u64, scene.idp.duplicate_spends()), (scene.idp.requests(), 0));
}

#[tokio::test]
async fn a_made_up_answer_arrives_as_it_is() {
    let scene = Scene::gitlab(Kind::Strict);
    let body = b"\x00\xff{\"error\":".to_vec();
    let made_up = Canned::new(418, body.clone())
        .header("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")
        .header("x-b", "1")
        .header("x-b", "2")
        .header("content-length", "1")
        .header("not a name", "x");
    for (fault, spent) in [(Fault::Answer(made_up.clone()), false), (Fault::AnswerAfter(made_up), true)] {
        let name = fault.name();
        scene.idp.next(fault);
        let fields = [("grant_type", "refresh_token"), ("refresh_token", scene.first.expose_secret())];
        let client = [("client_id", "simulated-client"), ("client_secret", "ts-test-secret-client")];
        let form: Vec<_> = fields.into_iter().chain(client).collect();
        let response = scene.http.post(scene.idp.token_url()).form(&form).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["retry-after"]),
            (418, &"Wed, 21 Oct 2026 07:28:00 GMT".parse().unwrap())
        );
        assert_eq!(response.headers().get_all("x-b").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(response.bytes().await.unwrap(), body);
        assert_eq!(scene.idp.standing(&scene.first) == Standing::Spent, spent, "{name}");
        assert_eq!(scene.idp.faults_injected()[name], 1);
    }
}

/// Refreshes with the profile's own preset.
async fn refreshed(scene: &Scene) -> idp::ResponseOutcome {
    let idp = scene.idp.idp();
    let client = idp::Client::new(&idp, Duration::from_secs(5), Clock::manual(&scene.clock)).unwrap();
    client.refresh(&idp, 0, &scene.first, &BTreeMap::new(), Duration::from_secs(20)).await
}

#[tokio::test]
async fn each_way_to_say_when_to_ask_again_is_understood() {
    let scene = Scene::new(Profile::okta());
    let plain = Canned::new(429, r#"{"retry_after":64.5}"#).header("date", "Thu, 01 Jan 2026 00:00:00 GMT");
    for (answer, expected) in [
        (plain.clone().header("retry-after", "7"), 7_000),
        (plain.clone().header("retry-after", "Thu, 01 Jan 2026 00:00:08 GMT"), 8_000),
        (plain.clone().header("x-rate-limit-reset", "1767225609"), 64_500),
        (Canned { body: Vec::new(), ..plain.clone() }.header("x-rate-limit-reset", "1767225609"), 9_000),
    ] {
        scene.idp.next(Fault::Answer(answer.clone()));
        let idp::ResponseOutcome::NotSpent(failure) = refreshed(&scene).await else { panic!("429 is not spent") };
        assert_eq!(failure.retry_after, Some(Duration::from_millis(expected)), "{answer:?}");
    }
}

#[tokio::test]
async fn no_mad_answer_is_taken_for_a_token() {
    let scene = Scene::gitlab(Kind::Strict);
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        r#"\{"(access_token|error|ok)":("x"|1|\{|\[|null|false)[,:"\}]{0,3}"#.prop_map(String::into_bytes),
        "(access_token|error|x)=[a-z%&=]{0,9}".prop_map(String::into_bytes),
    ];
    let mad = (200u16..1_000, "(application/json|text/html|application/x-www-form-urlencoded|)", body);
    let mut runner = TestRunner::deterministic();
    for _ in 0..200 {
        let (status, content_type, body) = mad.new_tree(&mut runner).unwrap().current();
        let answer = Canned::new(status, body).header("content-type", content_type);
        scene.idp.next(Fault::Answer(answer.clone()));
        let outcome = refreshed(&scene).await;
        assert!(
            !matches!(outcome, idp::ResponseOutcome::Refreshed(_) | idp::ResponseOutcome::InvalidGrant(_)),
            "{answer:?}: {outcome:?}"
        );
    }
    assert_eq!((scene.idp.requests(), scene.idp.standing(&scene.first)), (200, Standing::Current));
    assert!(matches!(refreshed(&scene).await, idp::ResponseOutcome::Refreshed(_)));
}
