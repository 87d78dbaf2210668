//! What the store and the folder say about each other: the marks, and the round that is under way.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    journal::{History, HistoryMark},
    model::{Id, StoreTime},
    store::StoreError,
    supervisor::{provider::RECOVERY, refresh::Ports, replicas::News},
};

/// The name of the value in the store that has the round.
pub(super) const ROUND: &str = RECOVERY;

/// The prefix of the names of the marks in the store; the owner follows.
const MARK: &str = "mark:";

/// An owner whose mark is so much older than this is gone.
const GONE_AFTER: Duration = Duration::from_secs(48 * 3_600);

/// A recovery that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecoveryRound {
    pub(super) id: Id,
    /// What was written before is from before the loss, or from a replay.
    pub(super) since: StoreTime,
    /// The store has lost changes for certain.
    pub(super) proven: bool,
}

/// The mark of an owner in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoreMark {
    /// The store has the owner's changes up to this one.
    pub(super) number: u64,
    pub(super) at: StoreTime,
    /// The last round in which the owner's history was replayed.
    pub(super) round: Option<Id>,
    /// Whether nothing was missing in it.
    pub(super) complete: bool,
}

impl StoreMark {
    pub(super) fn at(number: u64, at: StoreTime) -> Self {
        Self { number, at, round: None, complete: false }
    }
}

/// Why a round begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoreLoss {
    pub(super) proven: bool,
}

pub(super) const PROVEN: StoreLoss = StoreLoss { proven: true };

/// What was found at a look.
pub(super) struct RecoverySight {
    /// Those in the store, of all owners.
    pub(super) marks: HashMap<Id, StoreMark>,
    pub(super) round: Option<RecoveryRound>,
    /// Where the database is.
    pub(super) server: Option<String>,
    /// It is elsewhere than at the last look.
    pub(super) is_elsewhere: bool,
    /// The owner of this process's own history.
    pub(super) own: Id,
    /// All owners whose histories this process has.
    pub(super) owners: Vec<Id>,
    /// Their marks in the folder.
    pub(super) files: HashMap<Id, HistoryMark>,
}

/// Who has replayed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Confirmed {
    pub(super) all: bool,
    pub(super) complete: bool,
}

pub(super) async fn look(ports: &Ports) -> Result<RecoverySight, StoreError> {
    let store = ports.ledger.store();
    let marks = store.metas(MARK).await?.into_iter();
    let marks = marks.filter_map(|(owner, mark)| Some((owner.parse().ok()?, serde_json::from_slice(&mark).ok()?)));
    let marks = marks.collect();
    let round = store.metas(ROUND).await?.into_iter().find(|(rest, _)| rest.is_empty());
    let round = round.and_then(|(_, round)| serde_json::from_slice(&round).ok());
    let server = store.server().await?;
    let is_elsewhere = store.is_elsewhere();
    let own = ports.journal.owner();
    let owners: Vec<_> = ports.journal.locked_others().iter().copied().chain([own]).collect();
    let all = owners.clone();
    let files = blocking(ports, move |history| {
        all.into_iter().filter_map(|owner| Some((owner, history.mark(owner)?))).collect()
    });
    Ok(RecoverySight { marks, round, server, is_elsewhere, own, owners, files: files.await.unwrap_or_default() })
}

/// Returns the round that is under way. Begins one if the store has lost something, or may have, since the last one.
pub(super) async fn join_or_begin(
    ports: &Ports,
    sight: &RecoverySight,
    lost: Option<StoreLoss>,
) -> Result<Option<RecoveryRound>, StoreError> {
    let Some(lost) = lost else { return Ok(sight.round.clone()) };
    let round = match sight.round.clone().filter(|round| !sight.has_confirmed(round)) {
        Some(round) if round.proven || !lost.proven => return Ok(Some(round)),
        Some(round) => RecoveryRound { proven: true, ..round },
        None => RecoveryRound { id: Id::random(), since: ports.clock.store_time(), proven: lost.proven },
    };
    let json = serde_json::to_vec(&round).expect("plain structs have a JSON form");
    ports.ledger.store().set_meta(ROUND, Some(json)).await?;
    ports.ledger.replicas().tell(|| News::Holds);
    if lost.proven {
        tracing::error!(
            "the store went back in time: it was restored from a backup, or has lost commits; nothing is sent to identity \
             providers until the histories beside the journals have brought back what is missing; next: start every other \
             replica with its journal folder"
        );
    } else {
        tracing::warn!(
            server = sight.server,
            "the database is on another server, or was promoted: nothing is sent to identity providers until what it may have \
             lost is brought back"
        );
    }
    Ok(Some(round))
}

pub(super) fn name_of(owner: Id) -> String {
    format!("{MARK}{owner}")
}

impl RecoverySight {
    /// Returns what the marks say: the store went back, or may have.
    pub(super) fn loss(&self) -> Option<StoreLoss> {
        let is_behind = |(owner, file): (&Id, &HistoryMark)| self.number(*owner) < file.number;
        if self.files.iter().any(is_behind) {
            return Some(PROVEN);
        }
        let has_moved = self.files.get(&self.own).is_some_and(|file| self.has_moved_since(file));
        (self.is_elsewhere || has_moved).then_some(StoreLoss { proven: false })
    }

    /// Has refresh tokens claimed where the database is now.
    pub(super) fn rely_on_server(&self, ports: &Ports) {
        self.server.iter().for_each(|server| ports.ledger.store().rely_on(server));
    }

    /// Whether the database is elsewhere than when this was written.
    fn has_moved_since(&self, file: &HistoryMark) -> bool {
        self.server.is_some() && file.server.is_some() && file.server != self.server
    }

    /// The store has the owner's changes up to this one.
    pub(super) fn number(&self, owner: Id) -> u64 {
        self.marks.get(&owner).map_or(0, |mark| mark.number)
    }

    pub(super) fn own_number(&self) -> u64 {
        self.number(self.own)
    }

    /// Whether all histories of this process were replayed in this round.
    pub(super) fn has_confirmed(&self, round: &RecoveryRound) -> bool {
        self.owners.iter().all(|owner| self.confirms(*owner, round).is_some())
    }

    fn confirms(&self, owner: Id, round: &RecoveryRound) -> Option<&StoreMark> {
        self.marks.get(&owner).filter(|mark| mark.round == Some(round.id))
    }

    /// Returns which histories were replayed: those of this process, and of the others if they can use the store. `lately` are
    /// the journals of processes that were there not long ago: one that has stored nothing yet has no mark.
    pub(super) fn confirmed(&self, round: &RecoveryRound, is_shared: bool, lately: &[String]) -> Confirmed {
        let mut owners: HashSet<_> = self.owners.iter().copied().collect();
        if is_shared {
            owners.extend(self.present(round.since));
            owners.extend(self.files.values().flat_map(|file| file.owners.iter().copied()));
        }
        let has_confirmed = |journal: &String| {
            self.marks.keys().any(|owner| owner.public("j") == *journal && self.confirms(*owner, round).is_some())
        };
        let are_back = !is_shared || lately.iter().all(has_confirmed);
        let marks: Vec<_> = owners.into_iter().map(|owner| self.confirms(owner, round)).collect();
        Confirmed {
            all: are_back && marks.iter().all(Option::is_some),
            complete: marks.iter().flatten().all(|mark| mark.complete),
        }
    }

    /// Returns the owners that wrote a mark not long before this time, as far as the store knows.
    pub(super) fn present(&self, now: StoreTime) -> impl Iterator<Item = Id> {
        let newest = self.marks.values().map(|mark| mark.at).max().map_or(now, |at| at.min(now));
        self.marks.iter().filter(move |(_, mark)| newest.since(mark.at) < GONE_AFTER).map(|(owner, _)| *owner)
    }
}

/// Works with the histories where blocking is allowed; `None` if the runtime ends.
pub(super) async fn blocking<T: Send + 'static>(
    ports: &Ports,
    work: impl FnOnce(&History) -> T + Send + 'static,
) -> Option<T> {
    let history: Arc<History> = ports.ledger.history();
    ports.runtime.spawn_blocking(move || work(&history)).await.ok()
}
