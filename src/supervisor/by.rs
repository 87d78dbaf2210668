//! The author of a change.

use std::{fmt, sync::Arc};

/// The author of a change, as the audit log names it (field `caller`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum By {
    /// The application that embeds the supervisor.
    #[default]
    Application,
    /// Another actor, by a message.
    Actor,
    /// The HTTP request of a caller with this name. The HTTP API writes the audit line of such a change itself, because
    /// it knows the request and also those that were refused.
    Http(Arc<str>),
    /// This user of the operating system, by a command that works on the store directly.
    SystemUser(Arc<str>),
    /// The supervisor's own upkeep, such as the purge of old tombstones.
    Sweeper,
    /// The supervisor, which brings back what the store had lost: it went back to an earlier state.
    Recovery,
    /// A refresh attempt. Metrics and events report those; the audit does not.
    Attempt,
}

impl By {
    /// Whether the ledger writes the audit line of a change by this author.
    pub(super) fn is_audited_by_the_ledger(&self) -> bool {
        !matches!(self, Self::Http(_) | Self::Attempt)
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Application => f.write_str("application"),
            Self::Actor => f.write_str("actor"),
            Self::Http(name) => f.write_str(name),
            Self::SystemUser(name) => write!(f, "user:{name}"),
            Self::Sweeper => f.write_str("sweeper"),
            Self::Recovery => f.write_str("recovery"),
            Self::Attempt => f.write_str("attempt"),
        }
    }
}
