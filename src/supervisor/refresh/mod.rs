//! Refresh attempts: tasks on our own runtime, in a table that outlives actors and registry.
//!
//! No caller, actor or registry owns an attempt: all of them may die while it runs. There is one attempt per key;
//! whoever wants a refresh joins it. [`Refresher`] starts attempts and answers questions about them. `table` is the table of
//! attempts, `attempt` carries out what `protocol::attempt` decides, `strategy` obtains the token, `probe` asks about one in doubt, `seal` turns responses
//! into commits and rows into tokens, `persist` repeats operations of the store until it responds, `observe` reports a
//! response to the provider's gate, `tally` names the result of an attempt for the metrics.

mod attempt;
mod observe;
mod persist;
mod ports;
mod probe;
mod refresher;
pub(super) mod seal;
mod strategy;
mod table;
mod tally;

pub(super) use self::{
    ports::Ports,
    refresher::{Refresher, withdraw_sent},
    table::{Attempts, Progress},
};
