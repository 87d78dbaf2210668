use super::*;
use crate::protocol::{Unchanged, resolve::Resolution};

fn connected(new: Option<u8>) -> Change {
    Change::Connect(Box::new(connect(new, 200)))
}

fn found(row: Option<&Row>, known: LookupResult, floor: u64) -> ChangeInput<'_> {
    ChangeInput { row, now: NOW + seconds(30), floor: Generation(floor), known }
}

#[test]
fn the_first_connect_starts_above_the_floor() {
    for floor in [0, 41] {
        let applied = connected(Some(2)).apply(found(None, LookupResult::New, floor));
        let row = applied.row.unwrap();
        assert_eq!((row.generation, row.incarnation), (Generation(floor + 1), id(200)));
        assert_eq!((row.refresh_token, row.parent, row.commit), (Some(token(2)), None, None));
        assert_eq!(applied.sides, [Side::Connected(fingerprint(2))]);
    }
}

#[test]
fn a_new_refresh_token_starts_a_new_incarnation_whatever_the_row_held() {
    let revoked = Row { intent: None, ..full_row() };
    for (before, floor, generation) in
        [(row(), 0, 5), (claimed_row(&[1]), 0, 5), (full_row(), 0, 5), (row(), 50, 51), (revoked, 0, 5)]
    {
        let applied = connected(Some(2)).apply(found(Some(&before), LookupResult::New, floor));
        let row = applied.row.unwrap();
        assert_eq!((row.incarnation, row.generation), (id(200), Generation(generation)));
        assert_eq!((&row.lease, &row.intent, &row.alt, &row.verdict), (&None, &None, &None, &None));
        assert_eq!((&row.parent, &row.commit), (&None, &None), "no response brought it");
        assert_eq!((&row.tombstone, &row.held, &row.grant_id), (&None, &before.held, &before.grant_id));
        assert!(row.epoch >= before.epoch);
        for side in [Side::Spent(fingerprint(1)), Side::Connected(fingerprint(2))] {
            assert!(applied.sides.contains(&side), "{side:?}");
        }
        assert!(!applied.sides.contains(&Side::CancelRevocations));
    }
}

#[test]
fn a_connect_drops_queued_revocations_that_would_end_all_grants_of_the_user() {
    let connect = ConnectChange { cancels_revocations: true, ..connect(Some(2), 200) };
    let applied = Change::Connect(Box::new(connect)).apply(found(Some(&full_row()), LookupResult::New, 0));
    assert!(applied.sides.contains(&Side::CancelRevocations));
    assert!(!applied.sides.iter().any(|side| matches!(side, Side::Revoke(_))));
}

#[test]
fn a_replayed_connect_changes_nothing_and_reports_that() {
    let table = [
        ("current", row(), Some(1), LookupResult::Spent, ChangeReply::Unchanged(Unchanged::AlreadyConnected)),
        (
            "current, in flight",
            claimed_row(&[1]),
            Some(1),
            LookupResult::Spent,
            ChangeReply::Unchanged(Unchanged::AlreadyConnected),
        ),
        (
            "current, given up in doubt",
            Row { verdict: verdict(VerdictBy::Doubt), ..row() },
            Some(1),
            LookupResult::Spent,
            ChangeReply::Unchanged(Unchanged::AlreadyConnected),
        ),
        (
            "current, reconnect required by the application",
            Row { verdict: verdict(VerdictBy::Application), ..row() },
            Some(1),
            LookupResult::Spent,
            ChangeReply::Unchanged(Unchanged::AlreadyConnected),
        ),
        (
            "current, disconnected",
            Row { tombstone: tombstone(true), ..row() },
            Some(1),
            LookupResult::Spent,
            ChangeReply::Unchanged(Unchanged::TokenAlreadySpent),
        ),
        ("spent", row(), Some(9), LookupResult::Spent, ChangeReply::Unchanged(Unchanged::TokenAlreadySpent)),
        ("another key's", row(), Some(9), LookupResult::Elsewhere, ChangeReply::Duplicate),
        (
            "no refresh token while one is in flight",
            claimed_row(&[1]),
            None,
            LookupResult::New,
            ChangeReply::Unchanged(Unchanged::RefreshInFlight),
        ),
    ];
    for (why, row, new, known, reply) in table {
        let applied = connected(new).apply(found(Some(&row), known, 0));
        assert!(applied.row.is_none() && applied.sides.is_empty(), "{why}");
        assert_eq!(applied.reply, reply, "{why}");
    }
    let duplicate = connected(Some(9)).apply(found(None, LookupResult::Elsewhere, 0));
    assert!(duplicate.row.is_none() && duplicate.reply == ChangeReply::Duplicate);
}

#[test]
fn a_connect_with_the_same_refresh_token_lifts_the_providers_refusal_and_keeps_the_incarnation() {
    let refused =
        Row { verdict: verdict(VerdictBy::Idp), retry_at: Some(WALL_NOW + seconds(900)), ..claimed_row(&[1]) };
    let applied = connected(Some(1)).apply(found(Some(&refused), LookupResult::Spent, 0));
    let row = applied.row.unwrap();
    assert_eq!(applied.reply, ChangeReply::Done);
    assert_eq!((row.verdict, row.due_at, row.retry_at), (None, Some(WALL_NOW + seconds(30)), None));
    assert_eq!((row.incarnation, row.generation), (INCARNATION, GENERATION));
    assert_eq!(row.intent, refused.intent, "a response that another attempt may still receive stays in doubt");
}

#[test]
fn a_retry_lifts_only_the_providers_own_refusal() {
    let late = NOW + seconds(30);
    let failed = Row { retry_at: Some(WALL_NOW + seconds(900)), last_error: Some(last_error(NOW)), ..row() };
    for (why, before) in
        [("nothing pending", failed.clone()), ("an intent stays", Row { alt: alt(5, 6, 7), ..claimed_row(&[1, 2]) })]
    {
        let refused = Row { verdict: verdict(VerdictBy::Idp), ..before.clone() };
        let (left, reply, sides) = taken(&Change::Retry, &refused, late);
        let due_at = Some(late.by_wall_clock());
        let expected = Row { due_at, retry_at: None, last_error: None, changed_at: late, ..before };
        assert_eq!((left, reply, sides), (expected, ChangeReply::Done, vec![]), "{why}");
    }
    for (why, verdict) in [
        ("no verdict", None),
        ("a doubt", verdict(VerdictBy::Doubt)),
        ("another subject", verdict(VerdictBy::Subject)),
        ("the application", verdict(VerdictBy::Application)),
    ] {
        let applied = apply(&Change::Retry, &Row { verdict, ..failed.clone() }, late);
        assert_eq!((applied.row, applied.reply, applied.sides), (None, ChangeReply::Done, vec![]), "{why}");
    }
    for verdict in [None, verdict(VerdictBy::Idp)] {
        refused(&Change::Retry, &Row { verdict, tombstone: tombstone(false), ..row() }, late);
    }
    let nobody = Change::Retry.apply(found(None, LookupResult::New, 0));
    assert_eq!((nobody.row, nobody.reply), (None, ChangeReply::Refused));
}

#[test]
fn a_retry_does_what_a_connect_with_the_same_refresh_token_does() {
    let refused = Row { verdict: verdict(VerdictBy::Idp), ..claimed_row(&[1, 2]) };
    let again = connected(Some(1)).apply(found(Some(&refused), LookupResult::Spent, 0));
    let retried = Change::Retry.apply(found(Some(&refused), LookupResult::New, 0));
    assert_eq!((retried.row, retried.reply, retried.sides), (again.row, again.reply, again.sides));
    assert_eq!(retried.transitions, again.transitions);
}

#[test]
fn a_connect_without_a_refresh_token_keeps_the_stored_one() {
    let applied = connected(None).apply(found(Some(&row()), LookupResult::New, 0));
    let stored = applied.row.unwrap();
    assert_eq!((stored.refresh_token, stored.incarnation), (Some(token(1)), INCARNATION));
    assert_eq!((stored.generation, stored.document), (Generation(5), document(99)));
    assert_eq!(applied.sides, []);

    for nothing_to_keep in [Row { refresh_token: None, ..row() }, Row { tombstone: tombstone(true), ..row() }] {
        let stored = connected(None).apply(found(Some(&nothing_to_keep), LookupResult::New, 0)).row.unwrap();
        assert_eq!((stored.refresh_token, stored.incarnation), (None, id(200)));
    }
}

#[test]
fn a_disconnect_leaves_a_tombstone_and_revokes_tokens_that_are_not_in_flight() {
    let disconnect = disconnecting(true);
    let quiet = Row { alt: alt(5, 6, 7), ..row() };
    let (left, _, sides) = taken(&disconnect, &quiet, NOW);
    let restorable = |row: &Row| row.tombstone.unwrap().restorable;
    assert_eq!((left.generation, restorable(&left)), (Generation(5), true));
    assert_eq!(sides, [Side::Revoke(token(1)), Side::Revoke(token(5))]);

    let (left, _, sides) = taken(&disconnect, &claimed_row(&[1]), NOW);
    assert_eq!((left.generation, left.lease, restorable(&left)), (Generation(5), None, false));
    let spent = Side::Spent(fingerprint(1));
    assert_eq!((left.intent, sides), (claimed_row(&[1]).intent, vec![spent]), "no other key may send it");

    let (left, _, sides) = taken(&disconnecting(false), &quiet, NOW);
    assert_eq!((left.refresh_token, sides), (Some(token(1)), vec![]));
    let refused = Row { verdict: verdict(VerdictBy::Idp), ..row() };
    assert!(!restorable(&taken(&disconnect, &refused, NOW).0));
}

#[test]
fn a_tombstones_tokens_are_revoked_when_its_intent_ends_for_whatever_reason() {
    let claimed = Row { alt: alt(5, 6, 7), ..claimed_row(&[1]) };
    let gone = |revoke| taken(&disconnecting(revoke), &claimed, NOW).0;
    let ends = [
        ("settled", Change::Clear { incarnation: INCARNATION, intent: claimed.intent.clone().unwrap() }),
        ("not spent", Change::Cancel(ending(1, &claimed))),
        ("refused", refuse(1, &claimed)),
    ];
    for (why, end) in ends {
        let (left, _, sides) = taken(&end, &gone(true), NOW);
        assert_eq!((left.intent, sides), (None, vec![Side::Revoke(token(1)), Side::Revoke(token(5))]), "{why}");
        assert_eq!(taken(&end, &gone(false), NOW).2, [], "{why}, kept at the provider");
    }
}

#[test]
fn a_tombstone_settles_after_a_late_response_without_a_refresh_token() {
    let gone = taken(&disconnecting(true), &claimed_row(&[1]), NOW).0;
    let kept = Commit { token: None, ..commit(1, &claimed_row(&[1]), 2) };
    let (left, _, sides) = taken(&committed(&kept), &gone, NOW);
    assert!(!left.tombstone.unwrap().restorable);
    let intent = left.intent.clone().unwrap();
    assert!(intent.senders[0].closed && sides.is_empty());
    let clear = Change::Clear { incarnation: INCARNATION, intent };
    assert_eq!(taken(&clear, &left, NOW).2, [Side::Revoke(token(1))]);
}

#[test]
fn a_connect_takes_over_the_revocations_for_which_a_tombstone_waited() {
    let gone = taken(&disconnecting(true), &claimed_row(&[1]), NOW).0;
    for (cancels_revocations, revoked) in [(false, true), (true, false)] {
        let connect = ConnectChange { cancels_revocations, ..connect(Some(2), 200) };
        let applied = Change::Connect(Box::new(connect)).apply(found(Some(&gone), LookupResult::New, 0));
        assert_eq!(applied.sides.contains(&Side::Revoke(token(1))), revoked);
    }
}

#[test]
fn a_connect_changes_only_a_row_as_it_expects() {
    let tried = |row: Option<&Row>, only, compared| {
        let connect = ConnectChange { only, compared, ..connect(Some(2), 200) };
        Change::Connect(Box::new(connect)).apply(found(row, LookupResult::New, 0))
    };
    use Expected::{Anything, At, Nothing};
    let gone = Row { tombstone: tombstone(true), ..row() };
    let (live, at) = (Some(row()), At(GENERATION));
    for (row, expected, fits) in [
        (&live, at, true),
        (&live, At(Generation(3)), false),
        (&live, Nothing, false),
        (&Some(gone.clone()), at, false),
        (&Some(gone), Nothing, true),
        (&None, Nothing, true),
        (&None, At(Generation(0)), false),
    ] {
        for (only, compared, refused) in
            [(expected, Anything, ChangeReply::Mismatch), (Anything, expected, ChangeReply::Moved)]
        {
            let applied = tried(row.as_ref(), only, compared);
            assert_eq!(applied.row.is_some(), fits, "{expected:?}");
            assert_eq!(applied.reply, if fits { ChangeReply::Done } else { refused });
            assert_eq!(applied.sides.is_empty(), !fits);
        }
    }
    assert_eq!(tried(live.as_ref(), Nothing, Nothing).reply, ChangeReply::Mismatch, "no need to compare again");
}

#[test]
fn a_replay_is_reported_as_one_whatever_it_expects() {
    let replayed = |new, known| {
        let connect = ConnectChange { only: Expected::Nothing, ..connect(Some(new), 200) };
        Change::Connect(Box::new(connect)).apply(found(Some(&row()), known, 0)).reply
    };
    assert_eq!(replayed(1, LookupResult::Spent), ChangeReply::Unchanged(Unchanged::AlreadyConnected));
    assert_eq!(replayed(9, LookupResult::Spent), ChangeReply::Unchanged(Unchanged::TokenAlreadySpent));
    assert_eq!(replayed(9, LookupResult::Elsewhere), ChangeReply::Duplicate);
    let refused = Row { verdict: verdict(VerdictBy::Idp), ..row() };
    let forgiving = ConnectChange { only: Expected::Nothing, ..connect(Some(1), 200) };
    let applied = Change::Connect(Box::new(forgiving)).apply(found(Some(&refused), LookupResult::Spent, 0));
    assert_eq!((applied.row, applied.reply), (None, ChangeReply::Mismatch), "it would change something");
}

#[test]
fn a_disconnect_can_be_undone_while_its_tokens_are_still_valid() {
    let restored =
        |row: &Row, known| Change::Restore.apply(ChangeInput { now: NOW + seconds(9), ..found(Some(row), known, 0) });
    let held = Row { alt: alt(5, 6, 7), held: Some("by hand".to_owned()), retry_at: Some(WALL_NOW), ..row() };
    for (revoke, known) in
        [(true, LookupResult::Unrevoked), (false, LookupResult::New), (false, LookupResult::Unrevoked)]
    {
        let gone = taken(&disconnecting(revoke), &held, NOW).0;
        let applied = restored(&gone, known);
        let expected = Row {
            generation: Generation(6),
            due_at: Some(WALL_NOW + seconds(9)),
            retry_at: None,
            changed_at: NOW + seconds(9),
            ..held.clone()
        };
        assert_eq!((applied.row, applied.reply), (Some(expected), ChangeReply::Done));
        assert_eq!(applied.sides, [Side::Keep(token(1)), Side::Keep(token(5))]);
    }
    let unchanged = restored(&row(), LookupResult::Unrevoked);
    assert_eq!((unchanged.row, unchanged.reply), (None, ChangeReply::Done), "it is connected");
}

#[test]
fn a_disconnect_cannot_be_undone_if_a_token_is_or_may_be_invalid() {
    let restored = |row: &Row, known| Change::Restore.apply(found(Some(row), known, 0));
    let gone = |row: &Row, revoke| taken(&disconnecting(revoke), row, NOW).0;
    let verdict = Row { verdict: verdict(VerdictBy::Idp), ..row() };
    let late = apply(&committed(&commit(1, &claimed_row(&[1]), 2)), &gone(&row(), false), NOW).row.unwrap();
    for (why, row, known) in [
        ("revoked, or about to be revoked", gone(&row(), true), LookupResult::New),
        ("another key's", gone(&row(), false), LookupResult::Elsewhere),
        ("refused before", gone(&verdict, false), LookupResult::Unrevoked),
        ("in flight before", gone(&claimed_row(&[1]), false), LookupResult::Unrevoked),
        ("a late response", late, LookupResult::Unrevoked),
    ] {
        let applied = restored(&row, known);
        assert!(applied.row.is_none() && applied.sides.is_empty(), "{why}");
        assert_eq!(applied.reply, ChangeReply::Refused, "{why}");
    }
}

#[test]
fn a_response_after_the_restore_finds_its_place() {
    // Sent before the row's own refresh; the response arrives after the disconnect was undone.
    let stored = taken(&committed(&commit(2, &claimed_row(&[1, 2]), 3)), &claimed_row(&[1, 2]), NOW).0;
    let gone = taken(&disconnecting(true), &stored, NOW).0;
    let back = Change::Restore.apply(found(Some(&gone), LookupResult::Unrevoked, 0)).row.unwrap();
    let late = Commit { epoch: 8, ..commit(1, &claimed_row(&[1]), 2) };
    let (left, reply, sides) = taken(&committed(&late), &back, NOW);
    assert_eq!((reply, left.alt), (ChangeReply::Resolved(Resolution::Alt), alt(2, 1, 8)));
    assert_eq!(sides, [], "nothing is revoked");
}

#[test]
fn a_required_reconnect_lasts_until_the_next_connect() {
    let require = Change::RequireReconnect { reason: "left the company".to_owned() };
    let (left, ..) = taken(&require, &claimed_row(&[1]), NOW);
    let sticky = left.verdict.clone().unwrap();
    assert_eq!((sticky.by, left.generation), (VerdictBy::Application, GENERATION));
    let refused_before = Row { verdict: verdict(VerdictBy::Idp), ..row() };
    let again = taken(&require, &refused_before, NOW + seconds(9)).0.verdict.unwrap();
    assert_eq!((again.by, again.since), (VerdictBy::Application, NOW), "a reconnect was required before");
    let (stored, ..) = taken(&committed(&commit(1, &claimed_row(&[1]), 2)), &left, NOW);
    assert_eq!((stored.verdict, stored.refresh_token), (Some(sticky), Some(token(2))));
    assert!(connected(Some(3)).apply(found(Some(&left), LookupResult::New, 0)).row.unwrap().verdict.is_none());
    refused(&require, &Row { tombstone: tombstone(false), ..row() }, NOW);
}

#[test]
fn a_hold_lasts_until_its_release_and_changes_nothing_else() {
    let hold = |reason: &str| Change::Hold { reason: reason.to_owned() };
    for row in [row(), claimed_row(&[1]), Row { verdict: verdict(VerdictBy::Idp), ..claimed_row(&[1, 2]) }] {
        let (held, reply, sides) = taken(&hold("by hand"), &row, NOW + seconds(5));
        assert_eq!(held, Row { held: Some("by hand".to_owned()), ..row.clone() });
        assert_eq!((reply, sides), (ChangeReply::Done, vec![]));
        let (again, ..) = taken(&hold("copied database"), &held, NOW);
        assert_eq!(again.held.as_deref(), Some("copied database"), "the last reason replaces the first");
        let (released, reply, sides) = taken(&Change::Release, &again, NOW + seconds(9));
        assert_eq!((released, reply, sides), (row, ChangeReply::Done, vec![]));
    }
    let released = apply(&Change::Release, &row(), NOW);
    assert_eq!((released.row, released.reply), (None, ChangeReply::Done));
}

#[test]
fn a_disconnected_grant_cannot_be_put_on_hold_but_released_from_one() {
    let gone = Row { tombstone: tombstone(true), ..row() };
    refused(&Change::Hold { reason: "by hand".to_owned() }, &gone, NOW);
    let held = Row { held: Some("by hand".to_owned()), ..gone.clone() };
    assert_eq!(taken(&Change::Release, &held, NOW).0, gone);
}

#[test]
fn a_running_attempt_goes_on_during_a_hold_and_only_a_release_ends_it() {
    let claimed = claimed_row(&[1]);
    let held = Row { held: Some("by hand".to_owned()), ..claimed.clone() };
    let renew = Change::Renew { attempt: id(1), lease: LEASE };
    let disconnect = disconnecting(true);
    let require = Change::RequireReconnect { reason: "left".to_owned() };
    let (cancel, close) = (Change::Cancel(ending(1, &claimed)), Change::Close(ending(1, &claimed)));
    let response = committed(&commit(1, &claimed, 2));
    for change in [response, renew, refuse(1, &claimed), cancel, close, disconnect, require] {
        let (without, with) = (taken(&change, &claimed, NOW), taken(&change, &held, NOW));
        assert_eq!(with.0, Row { held: held.held.clone(), ..without.0 }, "{change:?}");
        assert_eq!((with.1, with.2), (without.1, without.2), "{change:?}");
    }
}
