//! The replay of histories: brings each grant to the state in which they last saw it.

use std::collections::{HashMap, VecDeque};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    doubts::{doubt, outdate},
    round::{RecoverySight, blocking},
};
use crate::{
    journal::{History, HistoryPlace, HistoryTip, KeptEntry},
    model::{Generation, Id, Row, TokenKey},
    protocol::{Change, ConnectChange, DisconnectChange, Expected},
    store::{Changed, StoreError},
    supervisor::{by::By, kept::KeptChange, refresh::Ports, router::Router},
};

/// Grants that are brought forward at the same time.
const AT_ONCE: usize = 16;

/// So many of the last entries are compared with the store at a start. One would do: a store loses its last changes first.
const TAIL: usize = 16;

/// What a replay has read, and done.
pub(super) struct Replayed {
    pub(super) histories: Vec<(Id, HistoryRead)>,
}

/// How much of an owner's history could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HistoryRead {
    pub(super) tip: HistoryTip,
    /// It has every change that the store may lack.
    pub(super) is_complete: bool,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EntryPlace {
    owner: Id,
    place: HistoryPlace,
}

#[derive(Clone, Copy, Debug)]
struct NewestResponse {
    generation: Generation,
    attempt: Id,
    entry: EntryPlace,
}

impl NewestResponse {
    /// Whether the row lacks the response. A doubt about it may have raised the row to its generation.
    fn is_missing_in(&self, row: &Row) -> bool {
        row.generation <= self.generation && row.commit.is_none_or(|by| by.attempt != self.attempt)
    }
}

/// What the histories know of a key. Payloads stay on disk.
#[derive(Debug, Default)]
struct KeyHistory {
    connects: Vec<KeptConnect>,
    incarnations: HashMap<Id, NewestKept>,
}

#[derive(Debug)]
struct KeptConnect {
    generation: Generation,
    replaced: Option<Id>,
    entry: EntryPlace,
}

/// The newest entries of an incarnation.
#[derive(Debug, Default)]
struct NewestKept {
    response: Option<NewestResponse>,
    /// Whether the grant was disconnected or restored last.
    end: Option<(Generation, bool)>,
}

impl KeyHistory {
    fn take(&mut self, change: &KeptChange, entry: EntryPlace) {
        let generation = change.generation();
        let newest = self.incarnations.entry(change.incarnation()).or_default();
        let is_newer = |known: Option<Generation>| known.is_none_or(|known| known < generation);
        match change {
            KeptChange::Connected { replaced, .. } => {
                self.connects.push(KeptConnect { generation, replaced: *replaced, entry });
            }
            KeptChange::Response { commit, .. } if is_newer(newest.response.map(|known| known.generation)) => {
                newest.response = Some(NewestResponse { generation, attempt: commit.attempt, entry });
            }
            KeptChange::Disconnected { .. } | KeptChange::Restored { .. }
                if is_newer(newest.end.map(|(known, _)| known)) =>
            {
                newest.end = Some((generation, matches!(change, KeptChange::Disconnected { .. })));
            }
            _ => {}
        }
    }
}

/// Replays the histories of this process, as far as the store may lack what they have.
pub(super) async fn replay(ports: &Ports, router: &Router, sight: &RecoverySight) -> Result<Replayed, StoreError> {
    let own = ports.journal.owner();
    ports.ledger.history().written().await;
    let wanted: Vec<_> =
        sight.owners.iter().map(|owner| (*owner, sight.number(*owner), start(sight, *owner))).collect();
    let tips: HashMap<_, _> = sight.files.iter().map(|(owner, file)| (*owner, file.number)).collect();
    let read = blocking(ports, move |history| {
        let mut keys = HashMap::new();
        let read = wanted.into_iter().map(|(owner, above, from)| {
            let expected = tips.get(&owner).copied().unwrap_or(0);
            let expected = if owner == own { expected.max(history.tip().number) } else { expected };
            (owner, fold(history, owner, (above, from), expected, &mut keys))
        });
        (read.collect::<Vec<_>>(), keys)
    });
    let Some((histories, keys)) = read.await else {
        return Err(StoreError::Unavailable("the runtime ends".to_owned()));
    };
    let grants = keys.len();
    let replayed = stream::iter(keys).map(|(key, known)| async move {
        match replay_key(ports, router, &key, &known).await {
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(grant.id = error.grant_id(), %error, "a grant is not brought forward");
                Ok(0)
            }
            replayed => replayed.map(usize::from),
        }
    });
    let replayed: Vec<_> = replayed.buffer_unordered(AT_ONCE).try_collect().await?;
    tracing::info!(grants, brought_forward = replayed.iter().sum::<usize>(), "the histories were replayed");
    Ok(Replayed { histories })
}

/// Where to begin: behind what the store has for certain. A mark in the folder at the same number says where that is.
fn start(sight: &RecoverySight, owner: Id) -> HistoryPlace {
    let file = sight.files.get(&owner).filter(|file| file.number <= sight.number(owner));
    file.map_or_else(HistoryPlace::default, |file| file.place)
}

/// Reads an owner's history above this number, which must go up to `expected`. Blocks.
fn fold(
    history: &History,
    owner: Id,
    (above, from): (u64, HistoryPlace),
    expected: u64,
    keys: &mut HashMap<TokenKey, KeyHistory>,
) -> HistoryRead {
    let (mut last, mut has_gaps) = (above, false);
    let mut tip = HistoryTip { number: above, place: from };
    history.read(owner, above, from, |number, place, entry| {
        has_gaps |= number > last + 1;
        last = last.max(number);
        tip = HistoryTip { number: last, place };
        match entry.and_then(parsed) {
            Some((key, change)) => keys.entry(key).or_default().take(&change, EntryPlace { owner, place }),
            None => has_gaps = true,
        }
    });
    tip.number = last.max(expected);
    HistoryRead { tip, is_complete: !has_gaps && last >= expected }
}

fn parsed(entry: KeptEntry) -> Option<(TokenKey, KeptChange)> {
    Some((entry.key, serde_json::from_slice(&entry.payload).ok()?))
}

/// Whether the last entries show that the store went back after the last mark.
pub(super) async fn is_tail_missing(ports: &Ports, sight: &RecoverySight) -> Result<bool, StoreError> {
    let own = ports.journal.owner();
    let (above, from) = (sight.number(own), start(sight, own));
    let tail = blocking(ports, move |history| {
        let mut tail = VecDeque::new();
        history.read(own, above, from, |_, _, entry| {
            tail.extend(entry.and_then(parsed));
            if tail.len() > TAIL {
                tail.pop_front();
            }
        });
        tail
    });
    for (key, change) in tail.await.unwrap_or_default() {
        let row = match ports.ledger.store().read(&key).await {
            Err(StoreError::Corrupt { .. }) => continue,
            read => read?.row,
        };
        let is_behind = |row: Row| row.incarnation == change.incarnation() && row.generation < change.generation();
        if row.is_some_and(is_behind) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Brings one grant forward. Returns whether the row was behind.
async fn replay_key(ports: &Ports, router: &Router, key: &TokenKey, known: &KeyHistory) -> Result<bool, StoreError> {
    let change = |change| ports.ledger.change(key, By::Recovery, change);
    let mut row = ports.ledger.store().read(key).await?.row;
    let mut was_behind = false;
    loop {
        if let Some(newest) = row.as_ref().and_then(|row| known.incarnations.get(&row.incarnation)) {
            let behind = |row: &Option<Row>, generation| row.as_ref().is_some_and(|row| row.generation < generation);
            let is_over = |row: &Option<Row>| row.as_ref().is_some_and(|row| row.tombstone.is_some());
            if let Some((generation, false)) = newest.end
                && behind(&row, generation)
                && is_over(&row)
            {
                row = change(Change::Restore).await?.row;
                was_behind = true;
            }
            if let Some(response) = newest.response
                && row.as_ref().is_some_and(|row| response.is_missing_in(row))
                && !is_over(&row)
            {
                was_behind = true;
                if let Some(KeptChange::Response { commit, .. }) = load(ports, response.entry).await {
                    row = change(Change::Commit(commit)).await?.row;
                }
                // It found no place, or cannot be read: what the row holds is spent all the same.
                if let Some(left) = row.as_ref().filter(|row| response.is_missing_in(row)) {
                    doubt(ports, router, left, response.generation).await?;
                    row = ports.ledger.store().read(key).await?.row;
                }
            }
            if let Some((generation, true)) = newest.end
                && behind(&row, generation)
                && !is_over(&row)
            {
                was_behind = true;
                // Its revocation is not queued again: it may have been confirmed, and must not end a later grant.
                let end = DisconnectChange { revoke: false, unrevocable: false, purge: false, access_token: None };
                row = change(Change::Disconnect(end)).await?.row;
            }
        }
        let (incarnation, generation) =
            row.as_ref().map_or((None, Generation(0)), |row| (Some(row.incarnation), row.generation));
        let next = known.connects.iter().find(|it| it.replaced == incarnation && it.generation > generation);
        let Some(KeptChange::Connected { connect, .. }) = (match next {
            Some(next) => load(ports, next.entry).await,
            None => None,
        }) else {
            break;
        };
        let live = row.as_ref().filter(|row| row.tombstone.is_none()).map(|row| row.generation);
        // A connect since then counts.
        let compared = live.map_or(Expected::Nothing, Expected::At);
        let connect = ConnectChange { only: Expected::Anything, compared, ..*connect };
        let begun = connect.incarnation;
        let Changed { row: after, .. } = change(Change::Connect(Box::new(connect))).await?;
        if after.as_ref().is_none_or(|row| row.incarnation != begun) {
            break;
        }
        was_behind = true;
        row = after;
    }
    if was_behind {
        outdate(ports, router, key).await;
    }
    Ok(was_behind)
}

async fn load(ports: &Ports, entry: EntryPlace) -> Option<KeptChange> {
    let read = blocking(ports, move |history| history.entry(entry.owner, entry.place));
    read.await.flatten().and_then(parsed).map(|(_, change)| change)
}
