//! The change that replaces ciphertext by the same plaintext under another key.

use super::{Applied, ChangeReply, Resealed, Side};
use crate::model::{Row, Sealed, StoreTime};

/// Replaces the values that the row still holds. Refused while an attempt runs, which is about to replace them itself.
pub(super) fn reseal(values: &[Resealed], row: &Row, now: StoreTime) -> Applied {
    if row.lease_live(now) {
        return Applied::refused();
    }
    let find = |sealed: &Sealed| values.iter().find(|value| value.from == *sealed);
    let mut resealed = row.clone();
    let mut sides = Vec::new();
    if let Some(value) = find(&row.document) {
        resealed.document = value.to.clone();
    }
    let alt = resealed.alt.as_mut().map(|alt| &mut alt.token);
    for token in resealed.refresh_token.iter_mut().chain(alt) {
        let Some(value) = find(&token.sealed) else { continue };
        token.sealed = value.to.clone();
        // A restore finds the queued revocation of a token by its ciphertext.
        if row.tombstone.is_some() {
            sides.push(Side::Reseal(value.clone()));
        }
    }
    if resealed == *row {
        return Applied::unchanged(ChangeReply::Done);
    }
    Applied { sides, ..Applied::write(resealed, ChangeReply::Done) }
}
