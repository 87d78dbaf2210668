use super::*;

type SpoilRow = fn(&mut Row);

#[test]
fn a_claim_takes_the_lease_and_records_the_intent() {
    let now = NOW + seconds(1);
    let (taken, reply, sides) = taken(&Change::Claim(claim(1, &row())), &row(), now);
    let sender = Sender { attempt: id(1), owner: id(51), closed: false };
    let intent =
        Intent { generation: GENERATION, since: now, settle_from: now, recovered: false, senders: vec![sender] };
    let lease = Lease { attempt: id(1), owner: id(51), until: now + LEASE };
    assert_eq!(taken, Row { epoch: 8, lease: Some(lease), intent: Some(intent), ..row() });
    assert_eq!((reply, sides), (ChangeReply::Done, vec![]));
}

const SPOILED: [(&str, SpoilRow); 9] = [
    ("another incarnation", |row| row.incarnation = id(200)),
    ("a newer generation", |row| row.generation = Generation(5)),
    ("an older generation", |row| row.generation = Generation(3)),
    ("a lease of another", |row| row.lease = Some(Lease { attempt: id(9), owner: id(59), until: NOW + LEASE })),
    ("the user must reconnect", |row| row.verdict = verdict(VerdictBy::Idp)),
    ("the application requires a reconnect", |row| row.verdict = verdict(VerdictBy::Application)),
    ("disconnected", |row| row.tombstone = tombstone(false)),
    ("on hold", |row| row.held = Some("by hand".to_owned())),
    ("no refresh token", |row| row.refresh_token = None),
];

#[test]
fn a_claim_is_refused_unless_the_row_is_free_and_as_expected() {
    let claim = Change::Claim(claim(1, &row()));
    for (why, spoil) in SPOILED {
        let mut row = row();
        spoil(&mut row);
        assert_eq!(apply(&claim, &row, NOW).reply, ChangeReply::Refused, "{why}");
        refused(&claim, &row, NOW);
    }
    let mut doubtful = claimed_row(&[2]);
    doubtful.lease = None;
    refused(&claim, &doubtful, NOW + seconds(100_000));
}

#[test]
fn a_recovery_is_refused_unless_the_row_is_as_it_was_read() {
    let mut doubtful = claimed_row(&[2]);
    doubtful.lease = None;
    let recover = Change::Recover(recover(1, &doubtful));
    let own: [(&str, SpoilRow); 3] = [
        ("a recovery in between", |row| row.epoch += 1),
        ("no longer in doubt", |row| row.intent = None),
        ("another doubt", |row| row.intent.as_mut().unwrap().senders[0].closed = true),
    ];
    for (why, spoil) in SPOILED.into_iter().chain(own) {
        let mut row = doubtful.clone();
        spoil(&mut row);
        assert_eq!(apply(&recover, &row, NOW).reply, ChangeReply::Refused, "{why}");
        refused(&recover, &row, NOW);
    }
}

#[test]
fn a_doubt_about_another_token_cannot_be_recovered() {
    let moved = Row { lease: None, generation: Generation(5), ..claimed_row(&[2]) };
    refused(&Change::Recover(recover(1, &moved)), &moved, NOW + seconds(1_000));
}

#[test]
fn a_lease_can_be_taken_when_it_expires_and_not_one_millisecond_earlier() {
    let doubtful = claimed_row(&[2]);
    let recover = Change::Recover(recover(1, &doubtful));
    refused(&recover, &doubtful, StoreTime(NOW.0 + 29_999));
    taken(&recover, &doubtful, NOW + LEASE);
}

#[test]
fn a_recovery_keeps_the_grace_restarts_settling_and_drops_closed_senders() {
    let mut doubtful = claimed_row(&[2, 3]);
    doubtful.lease = None;
    doubtful.intent.as_mut().unwrap().senders[0].closed = true;
    let now = NOW + seconds(50);
    let (taken, reply, _) = taken(&Change::Recover(recover(1, &doubtful)), &doubtful, now);
    let intent = taken.intent.unwrap();
    assert_eq!((reply, taken.epoch), (ChangeReply::Done, doubtful.epoch + 1));
    assert_eq!((intent.since, intent.settle_from, intent.recovered), (NOW, now, true));
    let senders: Vec<_> = intent.senders.iter().map(|sender| (sender.attempt, sender.closed)).collect();
    assert_eq!(senders, [(id(3), false), (id(1), false)]);
    assert_eq!(taken.lease.map(|lease| (lease.attempt, lease.until)), Some((id(1), now + LEASE)));
}

#[test]
fn a_claim_whose_acknowledgement_was_lost_is_confirmed_again_even_after_its_lease() {
    let claimed = claimed_row(&[1]);
    let again = apply(&Change::Claim(claim(1, &row())), &claimed, NOW + seconds(1_000));
    assert_eq!((again.row, again.reply), (None, ChangeReply::Done));
    // Another attempt took over meanwhile.
    refused(&Change::Claim(claim(1, &row())), &claimed_row(&[1, 2]), NOW);
}

#[test]
fn a_recovery_whose_acknowledgement_was_lost_is_confirmed_again_even_after_its_lease() {
    let mut doubtful = claimed_row(&[2]);
    doubtful.lease = None;
    let recover = Change::Recover(recover(1, &doubtful));
    let (recovered, ..) = taken(&recover, &doubtful, NOW + seconds(50));
    let again = apply(&recover, &recovered, NOW + seconds(1_000));
    assert_eq!((again.row, again.reply), (None, ChangeReply::Done));
    // Another attempt took over meanwhile.
    let lease = Some(Lease { attempt: id(3), owner: id(53), until: NOW + seconds(90) });
    refused(&recover, &Row { lease, ..recovered }, NOW + seconds(80));
}

#[test]
fn another_attempt_of_the_same_owner_does_not_get_its_lease() {
    let mut second = claim(2, &row());
    second.owner = id(51);
    refused(&Change::Claim(second), &claimed_row(&[1]), NOW);
}

#[test]
fn a_renewal_extends_the_own_lease_and_takes_no_lost_one_back() {
    let renew = Change::Renew { attempt: id(1), lease: LEASE };
    let (renewed, _, _) = taken(&renew, &claimed_row(&[1]), NOW + seconds(20));
    assert_eq!(renewed.lease.unwrap().until, NOW + seconds(50));
    assert_eq!(renewed, Row { lease: renewed.lease, ..claimed_row(&[1]) });
    for now in [NOW, NOW + LEASE + LEASE] {
        refused(&renew, &claimed_row(&[1, 2]), now);
        refused(&renew, &row(), now);
    }
}

#[test]
fn a_key_without_a_row_cannot_be_changed() {
    let found = || ChangeInput { row: None, now: NOW, floor: Generation(0), known: LookupResult::New };
    let changes = [
        Change::Claim(claim(1, &row())),
        Change::Renew { attempt: id(1), lease: LEASE },
        refuse(1, &row()),
        Change::Cancel(ending(1, &row())),
        Change::RequireReconnect { reason: "left".to_owned() },
        Change::Hold { reason: "by hand".to_owned() },
        Change::Release,
        Change::Reseal(vec![resealed(&document(1))]),
    ];
    for change in changes {
        let applied = change.apply(found());
        assert!(
            applied.row.is_none() && applied.sides.is_empty() && applied.reply == ChangeReply::Refused,
            "{change:?}"
        );
    }
}
