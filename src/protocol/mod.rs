//! The rules by which a refresh token is spent, kept, sent again or given up, as pure functions.
//!
//! * [`change`]: what each operation does to a row (claim, commit, connect, ...). A store reads the row, calls
//!   [`Change::apply`], writes the result with compare and swap, and decides nothing itself.
//! * [`resolve`]: what becomes of a response whose commit finds that the row has changed.
//! * [`doubt`]: what to do about a request whose response is missing.
//! * [`attempt`]: the state machine of one attempt, from the journal's flush to publication.
//! * [`reseal`]: new ciphertext for the same tokens, when keys are rotated.
//! * [`schedule`]: when a token is due, and when its expiration is reported.
//! * [`transition`]: what a change of a row means to operators and applications.
//!
//! Nothing here does I/O, reads a clock or sees a secret, so that an exhaustive search can drive these types. A new
//! outcome of an attempt needs a case in `AttemptMachine::outcome`, and a function for its change of the row beside
//! those that `change` calls.

mod applied;
pub(crate) mod attempt;
pub(crate) mod change;
mod claim;
mod commit;
mod connect;
pub(crate) mod doubt;
mod ending;
mod fault;
mod reseal;
pub(crate) mod resolve;
mod response;
pub(crate) mod schedule;
#[cfg(test)]
mod search;
#[cfg(test)]
pub(crate) mod tests;
mod transition;

pub use applied::Unchanged;
pub(crate) use applied::{Applied, ChangeInput, ChangeReply, Lookup, LookupResult, PurgeRefusal, Resealed, Side};
pub(crate) use change::Change;
pub(crate) use claim::{Claim, Recover};
pub(crate) use connect::{ConnectChange, DisconnectChange, Expected};
pub(crate) use ending::Ending;
pub(crate) use fault::AttemptFault;
pub(crate) use response::{Commit, Refuse, Unfinished};
pub(crate) use transition::Transition;
