use super::*;
use crate::protocol::resolve::Resolution;

#[test]
fn invalid_grant_requires_consent() {
    let (left, reply, sides) = taken(&refuse(1, &row()), &claimed_row(&[1]), NOW + seconds(2));
    let refused = Some(Box::new(Verdict {
        evidence: Evidence::of("invalid_grant"),
        since: NOW + seconds(2),
        by: VerdictBy::Idp,
    }));
    assert_eq!((&left.verdict, &left.lease, &left.intent), (&refused, &None, &None));
    assert_eq!((left.generation, left.refresh_token), (GENERATION, Some(token(1))));
    assert_eq!((reply, sides), (ChangeReply::Done, vec![]));
}

#[test]
fn invalid_grant_only_removes_its_sender_from_a_newer_row() {
    let claimed = || Row { alt: alt(5, 6, 7), ..claimed_row(&[1]) };
    for newer in [
        Row { generation: Generation(5), ..claimed() },
        Row { incarnation: id(101), ..claimed() },
        Row { tombstone: tombstone(false), ..claimed() },
        Row { verdict: verdict(VerdictBy::Application), ..claimed() },
    ] {
        let (left, reply, sides) = taken(&refuse(1, &row()), &newer, NOW + seconds(2));
        assert_eq!(left, Row { lease: None, intent: None, ..newer });
        assert_eq!((reply, sides), (ChangeReply::Refused, vec![]));
        refused(&refuse(1, &row()), &left, NOW + seconds(2));
    }
}

#[test]
fn a_refusal_that_is_repeated_after_a_connect_lifted_it_changes_nothing() {
    let refusal = refuse(1, &row());
    let (left, ..) = taken(&refusal, &claimed_row(&[1]), NOW);
    let found = ChangeInput { row: Some(&left), now: NOW, floor: Generation(0), known: LookupResult::Spent };
    let forgiven = Change::Connect(Box::new(connect(Some(1), 200))).apply(found).row.unwrap();
    assert_eq!(forgiven.verdict, None);
    refused(&refusal, &forgiven, NOW);
    refused(&refusal, &claimed_row(&[2]), NOW);
}

#[test]
fn invalid_grant_leaves_the_doubt_of_the_other_senders() {
    let row = claimed_row(&[1, 2]);
    let (left, ..) = taken(&refuse(1, &row), &row, NOW);
    let senders: Vec<_> = left.intent.unwrap().senders.iter().map(|sender| sender.attempt).collect();
    assert_eq!((senders, left.lease), (vec![id(2)], row.lease));
    assert!(left.verdict.is_some());
}

#[test]
fn invalid_grant_promotes_the_alternative_token() {
    let row = Row { alt: alt(5, 6, 7), parent: Some(fingerprint(9)), ..claimed_row(&[1]) };
    let (promoted, reply, sides) = taken(&refuse(1, &row), &row, NOW + seconds(3));
    assert_eq!(reply, ChangeReply::Promoted);
    assert_eq!((promoted.refresh_token, promoted.alt), (Some(token(5)), None));
    assert_eq!(promoted.commit, Some(Attempted { attempt: id(6), epoch: 7 }));
    assert_eq!((promoted.generation, promoted.parent), (Generation(5), Some(fingerprint(9))));
    assert_eq!((promoted.intent, promoted.verdict, promoted.due_at), (None, None, Some(WALL_NOW + seconds(3))));
    assert_eq!(sides, [Side::Spent(fingerprint(1))]);

    let contested = Row { alt: alt(5, 6, 7), ..claimed_row(&[1, 2]) };
    let (left, reply, _) = taken(&refuse(1, &contested), &contested, NOW);
    assert_eq!((reply, left.refresh_token, left.verdict), (ChangeReply::Promoted, Some(token(5)), None));
    let intent = left.intent.unwrap();
    assert_eq!((intent.generation, intent.senders.len(), intent.senders[0].attempt), (GENERATION, 1, id(2)));
}

#[test]
fn a_response_of_another_subject_is_recorded_and_overwrites_nothing() {
    let row = Row { alt: alt(5, 6, 7), ..claimed_row(&[1]) };
    let (left, reply, sides) = taken(&foreign(1, &row), &row, NOW + seconds(2));
    let evidence = Evidence::of("account_mismatch");
    let verdict = Some(Box::new(Verdict { evidence, since: NOW + seconds(2), by: VerdictBy::Subject }));
    let expected = Row { verdict, lease: None, intent: None, changed_at: NOW + seconds(2), ..row };
    assert_eq!((left, reply, sides), (expected, ChangeReply::Done, vec![Side::Spent(fingerprint(1))]));
}

#[test]
fn a_connect_does_not_lift_a_verdict_of_another_subject_and_a_late_response_does() {
    let row = claimed_row(&[1, 2]);
    let (left, ..) = taken(&foreign(1, &row), &row, NOW);
    let connected = |token| {
        let found = ChangeInput { row: Some(&left), now: NOW, floor: Generation(0), known: LookupResult::Spent };
        Change::Connect(Box::new(connect(token, 200))).apply(found)
    };
    assert_eq!(connected(Some(1)).row, None);
    let (late, reply, _) = taken(&committed(&commit(2, &row, 3)), &left, NOW);
    assert_eq!((late.verdict, late.refresh_token), (None, Some(token(3))));
    assert_eq!(reply, ChangeReply::Resolved(Resolution::Own));
    let fresh = Change::Connect(Box::new(connect(Some(9), 200))).apply(ChangeInput {
        row: Some(&left),
        now: NOW,
        floor: Generation(0),
        known: LookupResult::New,
    });
    assert_eq!(fresh.row.unwrap().verdict, None);
}

#[test]
fn a_refusal_of_a_token_that_was_spent_for_another_subject_can_no_longer_be_lifted() {
    let row = claimed_row(&[1, 2]);
    let (left, ..) = taken(&refuse(1, &row), &row, NOW);
    let (left, ..) = taken(&foreign(2, &row), &left, NOW + seconds(9));
    let verdict = left.verdict.unwrap();
    assert_eq!((verdict.by, verdict.since), (VerdictBy::Subject, NOW), "a reconnect was required before");

    for by in [VerdictBy::Application, VerdictBy::Doubt] {
        let row = Row { verdict: super::verdict(by), ..claimed_row(&[1]) };
        assert_eq!(taken(&foreign(1, &row), &row, NOW).0.verdict, row.verdict);
    }
}
