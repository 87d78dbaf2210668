use super::*;

fn all_of(row: &Row) -> Change {
    let tokens = row.refresh_tokens().map(|token| &token.sealed);
    Change::Reseal(tokens.chain([&row.document]).map(resealed).collect())
}

fn reseal(change: &Change, row: &Row, now: StoreTime) -> Applied {
    change.apply(ChangeInput { row: Some(row), now, floor: Generation(0), known: LookupResult::New })
}

#[test]
fn every_value_is_replaced_and_nothing_else_changes() {
    let before = Row { alt: alt(5, 6, 7), verdict: verdict(VerdictBy::Idp), held: Some("by hand".to_owned()), ..row() };
    let applied = reseal(&all_of(&before), &before, NOW + seconds(9));
    assert_eq!((applied.reply, applied.sides.len(), applied.transitions.len()), (ChangeReply::Done, 0, 0));
    let after = applied.row.unwrap();
    let ends = |sealed: &Sealed| sealed.0.ends_with(b"-resealed");
    assert!(ends(&after.document) && after.refresh_tokens().all(|token| ends(&token.sealed)));
    let mut back = after.clone();
    back.document = before.document.clone();
    back.refresh_token = before.refresh_token.clone();
    back.alt = before.alt.clone();
    assert_eq!(back, before);
    let again = reseal(&all_of(&before), &after, NOW);
    assert_eq!((again.row, again.reply), (None, ChangeReply::Done), "a repetition");
}

#[test]
fn what_another_writer_replaced_stays() {
    let listed = row();
    let stored = Row { refresh_token: Some(token(2)), ..row() };
    let after = reseal(&all_of(&listed), &stored, NOW).row.unwrap();
    assert_eq!(after, Row { document: resealed(&document(1)).to, ..stored });
}

#[test]
fn a_row_that_is_being_refreshed_is_left_and_one_in_doubt_is_not() {
    let claimed = claimed_row(&[1]);
    let refused = reseal(&all_of(&claimed), &claimed, NOW);
    assert_eq!((refused.row, refused.reply), (None, ChangeReply::Refused));
    let in_doubt = reseal(&all_of(&claimed), &claimed, NOW + LEASE).row.unwrap();
    assert_eq!((&in_doubt.intent, in_doubt.lease, in_doubt.epoch), (&claimed.intent, claimed.lease, claimed.epoch));
    assert_ne!(in_doubt.refresh_token, claimed.refresh_token);
}

#[test]
fn the_queued_revocations_of_a_disconnected_grant_follow() {
    let gone = Row { tombstone: tombstone(true), alt: alt(5, 6, 7), ..row() };
    let applied = reseal(&all_of(&gone), &gone, NOW);
    let expected = [token(1), token(5)].map(|token| Side::Reseal(resealed(&token.sealed)));
    assert_eq!((applied.sides, applied.row.unwrap().tombstone), (expected.to_vec(), gone.tombstone));
}
