//! How one refresh token is spent without being lost or spent twice: every rule of it, as pure functions.
//!
//! * [`change`]: what each operation of the store does to a row (claim, commit, connect, ...). A store reads the
//!   row, calls [`Change::apply`], writes the result by comparing and swapping, and decides nothing itself.
//! * [`resolve`]: what becomes of an answer whose commit found that the row had moved.
//! * [`doubt`]: what to do about a request whose answer nobody has.
//! * [`attempt`]: the machine of one attempt, from the journal's flush to publication.
//! * [`schedule`]: when a token is due, and when its user is to be warned.
//! * [`transition`]: what a change means to people and applications.
//!
//! Nothing here does I/O, reads a clock, or sees a secret: an exhaustive search drives these very types.
//! A new outcome of an attempt gets its row in `attempt`'s `told`, and the change of the row that it
//! needs in one of the files below `change`.

pub(crate) mod attempt;
pub(crate) mod change;
mod claim;
mod commit;
mod connect;
pub(crate) mod doubt;
mod ending;
pub(crate) mod resolve;
pub(crate) mod schedule;
#[cfg(test)]
mod search;
#[cfg(test)]
pub(crate) mod tests;
mod transition;

pub use change::Unchanged;
pub(crate) use change::{Applied, Change, ChangeInput, ChangeReply, Lookup, LookupResult, PurgeRefusal, Side};
pub(crate) use claim::{Claim, Recover};
pub(crate) use commit::{Commit, Refuse};
pub(crate) use connect::{ConnectChange, DisconnectChange, Expected};
pub(crate) use ending::{AttemptFault, Ending};
pub(crate) use transition::Transition;
