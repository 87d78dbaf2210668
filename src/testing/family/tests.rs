//! Tests the kinds by table. Tokens are numbered in the order of issue; consent issues the first.

use super::*;

const GRACE: Duration = Duration::from_secs(30);
const SAME: Kind = Kind::SamePair { grace: GRACE };
const LAST: Kind = Kind::LastWins { grace: GRACE };

/// The second, the token that is presented, the outcome, and the refresh token in the response.
type Step = (i64, usize, Outcome, Option<usize>);

fn at(second: i64) -> WallTime {
    WallTime(second * 1_000)
}

fn ledger(kind: Kind) -> FamilyLedger {
    FamilyLedger::new(&Profile::oauth2(kind).access_lifetime(Duration::from_secs(1_000)), 7)
}

/// Plays the steps; returns the refresh and access tokens in the order of issue.
fn play(ledger: &mut FamilyLedger, steps: &[Step]) -> (Vec<String>, Vec<String>) {
    let first = ledger.consent("alice", at(0));
    let (mut refresh, mut access) = (vec![secret(&first)], vec![first.access.expose_secret().to_owned()]);
    for (index, &(second, token, outcome, given)) in steps.iter().enumerate() {
        let ticket = ledger.arrived(&refresh[token], None, at(second));
        let answer = ledger.process(ticket, false, at(second));
        assert_eq!(ledger.presentations()[index].outcome, outcome, "step {index} of {:?}", ledger.kind);
        if let Some(answer) = answer.as_ref().ok().filter(|_| given.is_some()) {
            let secret = secret(answer);
            if !refresh.contains(&secret) {
                refresh.push(secret.clone());
                access.push(answer.access.expose_secret().to_owned());
            }
            assert_eq!(refresh.iter().position(|known| *known == secret), given, "step {index} of {:?}", ledger.kind);
        } else {
            assert_eq!(answer.ok().and_then(|answer| answer.refresh), None, "step {index} of {:?}", ledger.kind);
            assert_eq!(given, None, "step {index} of {:?}", ledger.kind);
        }
    }
    (refresh, access)
}

fn secret(answer: &IssuedTokens) -> String {
    answer.refresh.as_ref().unwrap().expose_secret().to_owned()
}

#[test]
fn each_kind_keeps_its_rules() {
    use Outcome::*;
    use Standing::{Current, FamilyDead, Spent, Superseded, WithinGrace};

    // Kind, steps, standings of the tokens at the end, duplicate spends.
    let table: &[(Kind, &[Step], &[Standing], u64)] = &[
        (Kind::Strict, &[], &[Current], 0),
        (Kind::Strict, &[(1, 0, Rotated, Some(1))], &[Spent, Current], 0),
        (Kind::Strict, &[(1, 0, Rotated, Some(1)), (2, 1, Rotated, Some(2))], &[Spent, Spent, Current], 0),
        (Kind::Strict, &[(1, 0, Rotated, Some(1)), (1, 0, KilledFamily, None)], &[FamilyDead, FamilyDead], 1),
        (
            Kind::Strict,
            &[(1, 0, Rotated, Some(1)), (2, 0, KilledFamily, None), (3, 1, Refused, None), (4, 0, Refused, None)],
            &[FamilyDead, FamilyDead],
            2,
        ),
        (
            Kind::Reject,
            &[(1, 0, Rotated, Some(1)), (1, 0, Refused, None), (2, 1, Rotated, Some(2)), (3, 0, Refused, None)],
            &[Spent, Spent, Current],
            2,
        ),
        // Another pair is issued until the newest one is used, at any time.
        (
            Kind::RetrySafe,
            &[(1, 0, Rotated, Some(1)), (900, 0, Replayed, Some(2)), (900, 1, Refused, None)],
            &[WithinGrace, Superseded, Current],
            0,
        ),
        (
            Kind::RetrySafe,
            &[(1, 0, Rotated, Some(1)), (2, 0, Replayed, Some(2)), (3, 2, Rotated, Some(3))],
            &[Spent, Superseded, WithinGrace, Current],
            0,
        ),
        (
            Kind::RetrySafe,
            &[(1, 0, Rotated, Some(1)), (2, 1, Rotated, Some(2)), (3, 0, KilledFamily, None)],
            &[FamilyDead, FamilyDead, FamilyDead],
            1,
        ),
        // The response repeats the pair until the grace period is over, even if its refresh token is already spent.
        (SAME, &[(1, 0, Rotated, Some(1)), (30, 0, Replayed, Some(1))], &[WithinGrace, Current], 0),
        (
            SAME,
            &[
                (1, 0, Rotated, Some(1)),
                (2, 1, Rotated, Some(2)),
                (30, 0, Replayed, Some(1)),
                (30, 1, Replayed, Some(2)),
            ],
            &[WithinGrace, WithinGrace, Current],
            0,
        ),
        (SAME, &[(1, 0, Rotated, Some(1)), (31, 0, KilledFamily, None)], &[FamilyDead, FamilyDead], 1),
        (
            SAME,
            &[
                (1, 0, Rotated, Some(1)),
                (30, 0, Replayed, Some(1)),
                (31, 0, KilledFamily, None),
                (31, 1, Refused, None),
            ],
            &[FamilyDead, FamilyDead],
            1,
        ),
        // Within the grace period another pair is issued; it replaces the earlier one and its descendants.
        (LAST, &[(1, 0, Rotated, Some(1)), (30, 0, Replayed, Some(2))], &[WithinGrace, Superseded, Current], 0),
        (
            LAST,
            &[(1, 0, Rotated, Some(1)), (2, 0, Replayed, Some(2)), (3, 1, Refused, None), (4, 2, Rotated, Some(3))],
            &[WithinGrace, Superseded, WithinGrace, Current],
            0,
        ),
        (
            LAST,
            &[(1, 0, Rotated, Some(1)), (2, 1, Rotated, Some(2)), (3, 0, Replayed, Some(3)), (4, 2, Refused, None)],
            &[WithinGrace, Superseded, Superseded, Current],
            0,
        ),
        // The grace period runs from the first use, not from the latest.
        (
            LAST,
            &[(1, 0, Rotated, Some(1)), (30, 0, Replayed, Some(2)), (31, 0, KilledFamily, None)],
            &[FamilyDead, FamilyDead, FamilyDead],
            1,
        ),
        (Kind::NotRotating, &[(1, 0, Renewed, None), (2, 0, Renewed, None)], &[Current], 0),
    ];
    for (kind, steps, standings, duplicates) in table {
        let mut ledger = ledger(*kind);
        let (refresh, access) = play(&mut ledger, steps);
        let end = at(steps.last().map_or(0, |step| step.0));
        let stand: Vec<_> = refresh.iter().map(|token| ledger.standing(token, end)).collect();
        assert_eq!(stand, *standings, "{kind:?} {steps:?}");
        assert_eq!(ledger.duplicate_spends(), *duplicates, "{kind:?} {steps:?}");
        let dead = standings.contains(&FamilyDead);
        assert!(access.iter().all(|token| ledger.access_died_at(token, end).is_some() == dead), "{kind:?} {steps:?}");
    }
}

#[test]
fn access_tokens_end_by_lifetime_rotation_or_family() {
    let profile = Profile::oauth2(Kind::Strict).access_lifetime(Duration::from_secs(100)).ends_old_access(true);
    let mut ledger = FamilyLedger::new(&profile, 7);
    let (_, access) = play(&mut ledger, &[(10, 0, Outcome::Rotated, Some(1))]);
    assert_eq!(ledger.access_died_at(&access[0], at(10)), Some(at(10)));
    assert_eq!(ledger.access_died_at(&access[1], at(109)), None);
    assert_eq!(ledger.access_died_at(&access[1], at(110)), Some(at(110)));
    assert_eq!(ledger.user_of(&access[1], at(109)).as_deref(), Some("alice"));
    assert_eq!(ledger.user_of(&access[0], at(109)), None);
    assert_eq!(ledger.access_died_at("made up", at(0)), Some(at(0)));

    ledger.end_family("bob", at(40));
    assert_eq!(ledger.access_died_at(&access[1], at(50)), None);
    ledger.end_family("alice", at(50));
    ledger.end_family("alice", at(60));
    assert_eq!(ledger.access_died_at(&access[1], at(70)), Some(at(50)));
}

#[test]
fn ended_revoked_and_unknown_tokens_are_told_apart() {
    let mut ledger = ledger(Kind::Strict);
    let (alice, bob) = (ledger.consent("alice", at(0)), ledger.consent("bob", at(0)));
    ledger.end_family("alice", at(1));
    assert!(ledger.revoke(bob.access.expose_secret(), at(1)));
    assert!(!ledger.revoke("made up", at(1)));
    for (token, standing, refusal) in [
        (secret(&alice), Standing::FamilyDead, Refusal::Ended),
        (secret(&bob), Standing::Revoked, Refusal::Revoked),
        ("made up".to_owned(), Standing::Unknown, Refusal::Unknown),
    ] {
        assert_eq!(ledger.standing(&token, at(2)), standing);
        let ticket = ledger.arrived(&token, None, at(2));
        assert_eq!(ledger.process(ticket, false, at(2)), Err(refusal));
    }
    assert_eq!(ledger.presentations()[2].token, None);
    assert_eq!(ledger.newest("alice"), alice.refresh);
    assert_eq!(ledger.newest("carol"), None);
    assert_eq!(ledger.duplicate_spends(), 0);
}

#[test]
fn a_provider_that_starts_to_rotate_spends_the_token_it_let_stay() {
    let mut ledger = ledger(Kind::NotRotating);
    let first = secret(&ledger.consent("alice", at(0)));
    let refresh = |ledger: &mut FamilyLedger| {
        let ticket = ledger.arrived(&first, None, at(1));
        ledger.process(ticket, false, at(1)).map(|answer| answer.refresh.is_some())
    };
    assert_eq!(refresh(&mut ledger), Ok(false));
    ledger.set_kind(Kind::Strict);
    assert_eq!(refresh(&mut ledger), Ok(true));
    assert_eq!(refresh(&mut ledger), Err(Refusal::Reused));
}

#[test]
fn what_arrived_is_judged_when_it_is_processed() {
    let mut ledger = ledger(Kind::Strict);
    let first = secret(&ledger.consent("alice", at(0)));
    let (slow, quick) = (ledger.arrived(&first, None, at(1)), ledger.arrived(&first, None, at(2)));
    assert!(ledger.presentations().iter().all(|one| !one.duplicate && one.outcome == Outcome::NotProcessed));
    assert!(ledger.process(quick, false, at(3)).is_ok());
    assert_eq!(ledger.process(slow, false, at(4)), Err(Refusal::Reused));
    let [slow, quick] = ledger.presentations() else { panic!("two were presented") };
    assert_eq!((slow.outcome, slow.duplicate), (Outcome::KilledFamily, true));
    assert_eq!((slow.at, slow.processed_at), (at(1).into(), Some(at(4).into())));
    assert_eq!((quick.outcome, quick.duplicate), (Outcome::Rotated, false));
}

#[test]
fn secrets_are_unique_marked_and_not_shown() {
    let mut ledger = ledger(Kind::Strict);
    let mut other = FamilyLedger::new(&Profile::github(), 8);
    let answers: Vec<_> = (0..50).flat_map(|_| [ledger.consent("a", at(0)), other.consent("a", at(0))]).collect();
    let unique: std::collections::HashSet<_> = answers.iter().map(secret).collect();
    assert_eq!(unique.len(), answers.len());
    assert!(unique.iter().all(|token| token.starts_with("ts-test-secret-rt-")));
    assert!(!format!("{answers:?}").contains("ts-test-secret"));
}
