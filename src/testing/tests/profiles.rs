//! Tests each provider's responses, how its preset reads them, and the endpoints beside the token endpoint.

use super::*;
use crate::idp::{self, Client, Meaning};

#[tokio::test]
async fn github_answers_forms_and_errors_with_200() {
    let scene = Scene::new(Profile::github());
    let answer = scene.refresh(scene.first.expose_secret()).await;
    assert_eq!(answer.text("expires_in"), Some("28800"));
    assert_eq!(answer.text("refresh_token_expires_in"), Some("15897600"));
    assert_eq!(answer.text("token_type"), Some("bearer"));
    let (access, newest) = (answer.text("access_token").unwrap(), answer.text("refresh_token").unwrap());
    assert_eq!(scene.user(access).await, Seen::Answer(200, serde_json::json!({ "user": "alice", "login": "alice" })));
    assert_eq!(scene.user(scene.access.expose_secret()).await.status(), Some(401), "the old one has ended");
    assert!(scene.refresh_with(newest, "wrong").await.is(200, "incorrect_client_credentials"));
    assert!(scene.refresh(scene.first.expose_secret()).await.is(200, "bad_refresh_token"));
    assert_eq!(scene.idp.standing(&newest.into()), Standing::FamilyDead);
    assert!(scene.idp.access_died_at(&access.into()).is_some());
}

#[tokio::test]
async fn gitlab_says_when_and_refuses_the_second_use() {
    let scene = Scene::new(Profile::gitlab());
    let answer = scene.refresh(scene.first.expose_secret()).await;
    let Seen::Answer(200, body) = &answer else { panic!("{answer:?}") };
    assert_eq!((&body["expires_in"], &body["created_at"]), (&7_200.into(), &1_000_000.into()));
    assert_eq!(scene.idp.access_died_at(&scene.access), Some(scene.clock.now()));
    assert!(scene.refresh(scene.first.expose_secret()).await.is(400, "invalid_grant"));
    let newest = answer.text("refresh_token").unwrap();
    assert!(scene.refresh_with(newest, "wrong").await.is(401, "invalid_client"));
    assert_eq!(scene.refresh(newest).await.status(), Some(200), "the family stays valid");
    let expected = [Outcome::Rotated, Outcome::Refused, Outcome::NotProcessed, Outcome::Rotated];
    assert_eq!(scene.outcomes(), expected);
    let presentations = scene.idp.presentations();
    assert_eq!(presentations.iter().map(|one| one.duplicate).collect::<Vec<_>>(), [false, true, false, false]);
    let serials: Vec<_> = presentations.iter().map(|one| one.token.as_ref().unwrap().serial).collect();
    assert_eq!(serials, [1, 1, 2, 2]);
    assert_eq!((scene.idp.duplicate_spends(), scene.idp.requests()), (1, 4));
}

#[tokio::test]
async fn bitbucket_wants_basic_and_repeats_itself_for_ten_minutes() {
    let scene = Scene::new(Profile::bitbucket());
    let answer = scene.refresh(scene.first.expose_secret()).await;
    assert_eq!(answer.text("scopes"), Some("account repository"));
    assert_eq!(answer.text("scope"), None);
    scene.clock.advance(Duration::from_secs(599));
    assert_eq!(scene.idp.standing(&scene.first), Standing::WithinGrace);
    assert_eq!(scene.refresh(scene.first.expose_secret()).await, answer);
    assert_eq!(scene.idp.access_died_at(&scene.access), None, "old access tokens stay valid");
    assert_eq!((scene.idp.duplicate_spends(), scene.idp.presentations()[1].duplicate), (0, true));

    let secret = scene.idp.profile().client_secret.expose_secret();
    let params = [
        ("grant_type", "refresh_token"),
        ("refresh_token", scene.first.expose_secret()),
        ("client_id", &scene.idp.profile().client_id),
        ("client_secret", secret),
    ];
    let by_params = Seen::of(scene.http.post(scene.idp.token_url()).form(&params).send().await).await;
    assert!(by_params.is(401, "invalid_client"));

    scene.clock.advance(Duration::from_secs(1));
    assert!(scene.refresh(scene.first.expose_secret()).await.is(400, "invalid_grant"));
    assert_eq!(scene.idp.standing(&answer.text("refresh_token").unwrap().into()), Standing::FamilyDead);
}

#[tokio::test]
async fn keycloak_kills_the_session_and_says_why() {
    let scene = Scene::new(Profile::keycloak());
    let answer = scene.refresh(scene.first.expose_secret()).await;
    let Seen::Answer(200, body) = &answer else { panic!("{answer:?}") };
    assert_eq!((&body["refresh_expires_in"], &body["not-before-policy"]), (&0.into(), &0.into()));
    assert!(scene.refresh_with(scene.first.expose_secret(), "wrong").await.is(401, "unauthorized_client"));
    for (token, reason) in [
        (scene.first.expose_secret(), "Maximum allowed refresh token reuse exceeded"),
        (answer.text("refresh_token").unwrap(), "Session doesn't have required client"),
        ("made up", "Invalid refresh token"),
    ] {
        let refused = scene.refresh(token).await;
        assert!(refused.is(400, "invalid_grant"));
        assert_eq!(refused.text("error_description"), Some(reason));
    }
    let again = scene.idp.consent("alice").refresh_token.unwrap();
    scene.idp.end_family("alice");
    assert_eq!(scene.refresh(again.expose_secret()).await.text("error_description"), Some("Session not active"));
}

#[tokio::test]
async fn consent_says_what_the_profile_promises() {
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + 15_897_600);
    for (profile, refresh) in [
        (Profile::keycloak(), Expiry::Never),
        (Profile::github(), Expiry::At(until)),
        (Profile::oauth2(Kind::NotRotating), Expiry::Unknown),
    ] {
        let grant = Scene::new(profile.access_lifetime(Duration::from_secs(20))).idp.consent("bob");
        assert_eq!(format!("{:?}", grant.expiry), "For(20s)");
        assert_eq!(format!("{:?}", grant.refresh_expiry), format!("Until({refresh:?})"));
        grant.validate().unwrap();
    }
}

#[tokio::test]
async fn revocation_ends_the_family_of_either_token_and_knows_no_unknown() {
    let scene = Scene::new(Profile::keycloak());
    let (url, secret) = (scene.idp.revocation_url(), scene.idp.profile().client_secret.expose_secret());
    let second = scene.idp.consent("bob");
    scene.idp.fail_revocations(Some(503));
    assert_eq!(scene.post(&url, &[("token", scene.first.expose_secret())], secret).await.status(), Some(503));
    scene.idp.fail_revocations(None);
    assert!(scene.post(&url, &[("token", scene.first.expose_secret())], "wrong").await.is(401, "unauthorized_client"));
    assert_eq!(scene.idp.standing(&scene.first), Standing::Current);
    for token in [scene.first.expose_secret(), second.access_token.as_ref().unwrap().expose_secret()] {
        assert_eq!(scene.post(&url, &[("token", token)], secret).await.status(), Some(200));
    }
    assert!(scene.post(&url, &[("token", "made up")], secret).await.is(200, "invalid_token"));
    assert_eq!(scene.idp.standing(&scene.first), Standing::Revoked);
    assert_eq!(scene.idp.standing(&second.refresh_token.unwrap()), Standing::Revoked);
    assert_eq!(scene.user(scene.access.expose_secret()).await.status(), Some(401));
    assert_eq!((scene.idp.revocations(), scene.idp.requests()), (5, 0));
}

#[tokio::test]
async fn introspection_tells_without_spending() {
    let scene = Scene::gitlab(Kind::Strict);
    let (url, secret) = (scene.idp.introspection_url(), scene.idp.profile().client_secret.expose_secret());
    let active = async |token: &str| {
        let Seen::Answer(200, body) = scene.post(&url, &[("token", token)], secret).await else { panic!("not 200") };
        body["active"].as_bool().unwrap()
    };
    assert!(active(scene.first.expose_secret()).await && active(scene.access.expose_secret()).await);
    scene.refresh(scene.first.expose_secret()).await;
    assert!(!active(scene.first.expose_secret()).await && !active(scene.access.expose_secret()).await);
}

/// Refreshes with this preset; returns the outcome, and in words its kind, status, code and detail.
async fn taken(scene: &Scene, idp: &Idp, token: &RefreshToken) -> (idp::ResponseOutcome, String) {
    let client = Client::new(idp, Duration::from_secs(5), Clock::manual(&scene.clock)).unwrap();
    let outcome = client.refresh(idp, 0, token, &BTreeMap::new(), Duration::from_secs(20)).await;
    let word = match &outcome {
        idp::ResponseOutcome::Refreshed(answer) if answer.refresh_token.as_ref() == Some(token) => "same",
        idp::ResponseOutcome::Refreshed(answer) if answer.refresh_token.is_some() => "new",
        idp::ResponseOutcome::Refreshed(_) => "keep",
        idp::ResponseOutcome::NotSpent(_) => "not_spent",
        idp::ResponseOutcome::InvalidGrant(_) => "invalid_grant",
        idp::ResponseOutcome::Unknown(_) => "unknown",
    };
    let evidence = outcome.failure().map(|failure| &failure.evidence);
    assert!(
        evidence.is_none_or(|evidence| evidence.request_id.as_deref() == Some("simulated-request")),
        "{evidence:?}"
    );
    let said = evidence.map(|evidence| {
        let status = evidence.status.map(|status| status.to_string());
        [status, Some(evidence.code.clone()), evidence.detail.clone()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ")
    });
    let told = [Some(word.to_owned()), said].into_iter().flatten().collect::<Vec<_>>().join(" ");
    (outcome, told)
}

#[tokio::test]
async fn each_preset_understands_its_provider() {
    for (profile, success, refusal, wrong_client) in [
        (Profile::github(), "new", "200 bad_refresh_token", "200 incorrect_client_credentials"),
        (Profile::gitlab(), "new", "400 invalid_grant", "401 invalid_client"),
        (Profile::bitbucket(), "new", "400 invalid_grant", "401 invalid_client"),
        (Profile::keycloak(), "new", "400 invalid_grant", "401 unauthorized_client"),
        (Profile::google(), "keep", "400 invalid_grant", "401 invalid_client"),
        (Profile::entra(), "new", "400 invalid_grant 50173", "401 invalid_client 7000215"),
        (Profile::okta(), "new", "400 invalid_grant", "401 invalid_client"),
        (Profile::slack(), "new", "200 invalid_refresh_token", "200 bad_client_secret"),
        (Profile::salesforce(), "keep", "400 invalid_grant", "400 invalid_client"),
        (Profile::hubspot(), "same", "400 BAD_REFRESH_TOKEN", "400 BAD_CLIENT_ID"),
        (Profile::atlassian(), "new", "403 invalid_grant", "401 access_denied"),
        (Profile::box_com(), "new", "400 invalid_grant", "400 invalid_client"),
        (Profile::discord(), "new", "400 invalid_grant", "401 invalid_client"),
        (Profile::zoom(), "new", "400 invalid_grant", "400 invalid_client"),
        (Profile::oauth2(Kind::Reject), "new", "400 invalid_grant", "401 invalid_client"),
    ] {
        let name = profile.name();
        let scene = Scene::new(profile);
        let idp = scene.idp.idp();
        idp.validate().unwrap();

        let mut stranger = idp.clone();
        stranger.clients[0].client_secret = "ts-test-secret-wrong".into();
        let (outcome, told) = taken(&scene, &stranger, &scene.first).await;
        assert_eq!(told, format!("not_spent {wrong_client}"), "{name}");
        assert_eq!(outcome.failure().unwrap().meaning, Meaning::OperatorFault, "{name}");

        let (outcome, told) = taken(&scene, &idp, &scene.first).await;
        assert_eq!(told, success, "{name}");
        let idp::ResponseOutcome::Refreshed(answer) = outcome else { panic!("{name} does not answer") };
        let lifetime = answer.expires_in.or(idp.access_lifetime);
        assert_eq!(lifetime, Some(scene.idp.profile().access_lifetime), "{name}");
        assert_eq!(answer.scope.unwrap_or_default(), scene.idp.profile().scope(), "{name}");
        assert!(scene.user(answer.access_token.unwrap().expose_secret()).await.status() == Some(200), "{name}");
        assert_eq!(answer.subject.is_some(), name == "salesforce", "{name}");

        scene.idp.end_family("alice");
        let (_, told) = taken(&scene, &idp, &scene.first).await;
        assert_eq!(told, format!("invalid_grant {refusal}"), "{name}");
    }
}

#[tokio::test]
async fn what_rotates_is_not_believed_to_stay() {
    let rotation = |profile| SimulatedIdp::start(profile).unwrap().idp().rotation;
    assert_eq!(rotation(Profile::google()), Rotation::Never);
    assert_eq!(rotation(Profile::google().kind(Kind::Strict)), Rotation::Sometimes);
    assert_eq!(rotation(Profile::salesforce().kind(Kind::Strict)), Rotation::Sometimes);
}

#[tokio::test]
async fn real_forms_have_what_a_client_does_not_need() {
    let body = async |profile| {
        let scene = Scene::new(profile);
        let Seen::Answer(200, body) = scene.refresh(scene.first.expose_secret()).await else { panic!("not 200") };
        body
    };
    let slack = body(Profile::slack()).await;
    assert_eq!((&slack["ok"], &slack["team"]["id"]), (&true.into(), &"T0123".into()));
    let entra = body(Profile::entra()).await;
    assert_eq!((&entra["refresh_in"], &entra["ext_expires_in"]), (&1_800.into(), &3_600.into()));
    let salesforce = body(Profile::salesforce()).await;
    assert_eq!((&salesforce["expires_in"], &salesforce["issued_at"]), (&Value::Null, &"1796119200000".into()));
    let grant = SimulatedIdp::start(Profile::salesforce()).unwrap().consent("bob");
    assert_eq!(format!("{:?}", grant.expiry), "Until(Unknown)");
}
