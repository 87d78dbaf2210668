//! What the supervisor promises, on a store in PostgreSQL: the same files as for SQLite, and what only a server can do.
//!
//! Where PostgreSQL is not installed, the shared files run on SQLite once more, and each is named as skipped.

#[path = "../a_dying_actor_loses_nothing.rs"]
mod a_dying_actor_loses_nothing;
#[path = "../a_killed_process_loses_nothing.rs"]
mod a_killed_process_loses_nothing;
#[path = "../a_refresh_token_alone_is_a_grant.rs"]
mod a_refresh_token_alone_is_a_grant;
#[path = "../a_store_that_went_back.rs"]
mod a_store_that_went_back;
#[path = "../an_unanswered_request_is_a_doubt.rs"]
mod an_unanswered_request_is_a_doubt;
#[path = "../connecting_and_disconnecting.rs"]
mod connecting_and_disconnecting;
#[path = "../errors_never_destroy.rs"]
mod errors_never_destroy;
#[path = "../events_tell_what_happened.rs"]
mod events_tell_what_happened;
#[path = "../holding.rs"]
mod holding;
#[path = "../listing_and_purging.rs"]
mod listing_and_purging;
#[path = "../one_refresh_for_many_callers.rs"]
mod one_refresh_for_many_callers;
#[path = "../one_subject_for_one_grant.rs"]
mod one_subject_for_one_grant;
mod outages;
#[path = "../refreshed_ahead_of_need.rs"]
mod refreshed_ahead_of_need;
mod restored_replicas;
#[path = "../rotating_keys.rs"]
mod rotating_keys;
pub(crate) mod server;
mod several_processes;
#[path = "../shutdown_stores_what_is_in_flight.rs"]
mod shutdown_stores_what_is_in_flight;
#[path = "../the_journal_holds_what_the_store_does_not.rs"]
mod the_journal_holds_what_the_store_does_not;

use super::skip;

/// The support of the other tests, with a world whose store is in PostgreSQL.
mod support {
    use std::{ops::Deref, path::Path};

    use token_supervisor::testing::Profile;

    pub(crate) use crate::support::*;

    /// The URL of a new store on the shared server.
    pub(crate) fn store_in(folder: &Path) -> String {
        super::server::shared().map_or_else(|| crate::support::store_in(folder), super::server::Server::url)
    }

    /// A world whose supervisors work on a store of its own on the shared server.
    pub(crate) struct World(crate::support::World);

    impl World {
        pub(crate) fn new(profile: Profile) -> Self {
            let world = crate::support::World::new(profile);
            Self(match super::server::shared() {
                Some(server) => world.on(server.url()),
                None => world,
            })
        }
    }

    impl Deref for World {
        type Target = crate::support::World;

        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }
}
