use token_supervisor::testing::{Fault, Kind, Profile, Standing};

use super::*;

/// Returns an app with one user whose access tokens expire at once: every request refreshes.
fn app(profile: Profile) -> App {
    let idps = vec![("idp", SimulatedIdp::start(profile.access_lifetime(Duration::ZERO)).unwrap())];
    App::new(pairs_at(&idps, 1), idps).unwrap()
}

/// Returns the standing of the stored refresh token at the provider.
fn standing(app: &App) -> Option<Standing> {
    app.sessions().get(&0).map(|session| app.idps[0].1.standing(&session.refresh))
}

#[tokio::test]
async fn who_is_alone_and_gets_every_answer_loses_nothing() {
    let generic = Profile::oauth2(Kind::NotRotating);
    for profile in [Profile::github(), Profile::gitlab(), Profile::bitbucket(), Profile::keycloak(), generic] {
        let app = app(profile);
        let sim = &app.idps[0].1;
        for fault in [Fault::DropBefore, Fault::Status(503, None), Fault::Garbage, Fault::error(400, "slow_down")] {
            sim.next(fault);
            let token = app.token(0).await.unwrap().unwrap();
            assert!(token.expose_secret().starts_with("ts-test-secret-at-"), "{sim:?}");
        }
        assert_eq!(
            (sim.requests(), sim.duplicate_spends(), standing(&app)),
            (8, 0, Some(Standing::Current)),
            "{sim:?}"
        );
    }
}

#[tokio::test]
async fn two_requests_at_once_cost_the_grant() {
    let app = app(Profile::github());
    let (one, other) = tokio::join!(app.token(0), app.token(0));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    assert_eq!((app.idps[0].1.duplicate_spends(), standing(&app)), (1, None));
    assert_eq!(app.token(0).await, Ok(None), "the sign-in page");
}

#[tokio::test]
async fn a_lost_answer_costs_the_grant_where_there_is_no_grace() {
    for (profile, lost) in [(Profile::keycloak(), true), (Profile::bitbucket(), false)] {
        let app = app(profile);
        app.idps[0].1.next(Fault::DropAfter);
        assert_eq!(app.token(0).await.is_err(), lost);
        assert_eq!(app.idps[0].1.duplicate_spends(), u64::from(lost));
    }
}

#[tokio::test]
async fn who_never_gets_an_answer_is_told_and_stays_signed_in() {
    let app = app(Profile::gitlab());
    app.idps[0].1.always(Some(Fault::Status(502, None)));
    assert_eq!(app.token(0).await, Err("something went wrong"));
    assert_eq!((app.idps[0].1.requests(), standing(&app)), (u64::from(TRIES), Some(Standing::Current)));
}
