//! What the history keeps of a change: what a store that went back in time needs to have it again.

use serde::{Deserialize, Serialize};

use crate::{
    model::{Generation, Id},
    protocol::{Change, ChangeReply, Commit, ConnectChange, resolve::Resolution},
    store::Changed,
};

/// A change that the store has. Frozen; variants and fields may be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum KeptChange {
    /// The response to a refresh was stored.
    Response { generation: Generation, commit: Box<Commit> },
    /// A connect began a new incarnation, in place of this one.
    Connected { generation: Generation, replaced: Option<Id>, connect: Box<ConnectChange> },
    /// The grant was disconnected.
    Disconnected { generation: Generation, incarnation: Id },
    /// A disconnect was taken back.
    Restored { generation: Generation, incarnation: Id },
}

impl KeptChange {
    /// Returns a copy of what is to be kept, if the change is stored.
    pub(super) fn candidate(change: &Change) -> Option<Change> {
        let is_kept =
            matches!(change, Change::Commit(_) | Change::Connect(_) | Change::Disconnect(_) | Change::Restore);
        is_kept.then(|| change.clone())
    }

    /// Returns what to keep of a change with this result; `None` if nothing that a later state needs was stored.
    pub(super) fn of(change: Change, changed: &Changed) -> Option<Self> {
        let row = changed.row.as_ref()?;
        let (generation, incarnation) = (row.generation, row.incarnation);
        let is_done = changed.reply == ChangeReply::Done;
        match change {
            Change::Commit(commit) => {
                let is_stored = matches!(changed.reply, ChangeReply::Resolved(Resolution::Own | Resolution::Replace));
                let is_the_rows = row.commit.is_some_and(|by| by.attempt == commit.attempt);
                (is_stored && is_the_rows).then_some(Self::Response { generation, commit })
            }
            // A connect without a refresh token that leaves the incarnation needs nothing: the next response brings more.
            Change::Connect(connect) if is_done && connect.incarnation == incarnation => {
                Some(Self::Connected { generation, replaced: changed.replaced, connect })
            }
            Change::Disconnect(_) if is_done && row.tombstone.is_some() => {
                Some(Self::Disconnected { generation, incarnation })
            }
            Change::Restore if is_done && row.tombstone.is_none() => Some(Self::Restored { generation, incarnation }),
            _ => None,
        }
    }

    pub(super) fn generation(&self) -> Generation {
        match self {
            Self::Response { generation, .. }
            | Self::Connected { generation, .. }
            | Self::Disconnected { generation, .. }
            | Self::Restored { generation, .. } => *generation,
        }
    }

    pub(super) fn incarnation(&self) -> Id {
        match self {
            Self::Response { commit, .. } => commit.incarnation,
            Self::Connected { connect, .. } => connect.incarnation,
            Self::Disconnected { incarnation, .. } | Self::Restored { incarnation, .. } => *incarnation,
        }
    }
}
