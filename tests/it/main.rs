//! What the supervisor promises, a behaviour a file, on real parts: HTTP on loopback, SQLite files, journals.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]
#![cfg_attr(feature = "postgres", expect(clippy::duplicate_mod, reason = "the same tests run on both stores"))]

mod a_dying_actor_loses_nothing;
mod a_failed_refresh_is_told;
mod a_good_token_costs_no_allocation;
mod a_killed_process_loses_nothing;
mod a_refresh_token_alone_is_a_grant;
mod a_replaced_actor_serves_no_dead_token;
mod a_store_that_went_back;
mod an_unanswered_request_is_a_doubt;
mod bad_input_is_refused_and_loses_nothing;
mod being_a_good_client;
#[cfg(feature = "client")]
mod calling_resource_servers;
#[cfg(all(feature = "cli", unix))]
mod chaos;
#[cfg(feature = "cli")]
mod cli;
mod connecting_and_disconnecting;
mod demo;
#[cfg(all(feature = "cli", unix))]
mod deploying;
#[cfg(all(feature = "cli", unix))]
mod dice;
mod errors_never_destroy;
mod events_tell_what_happened;
#[cfg(all(unix, feature = "web", feature = "client"))]
mod examples;
mod flipped_bits;
#[cfg(all(feature = "cli", unix))]
mod guides;
mod holding;
#[cfg(feature = "web")]
mod http;
#[cfg(feature = "cli")]
mod installed;
mod keycloak;
#[cfg(all(feature = "cli", unix))]
mod kill_loop;
mod listing_and_purging;
mod messages_are_the_same_thing;
mod no_answer_is_mad_enough;
mod nothing_is_sent_whose_response_could_not_be_kept;
mod odd_responses;
#[cfg(feature = "cli")]
mod oidc_provider;
mod one_refresh_for_many_callers;
mod one_subject_for_one_grant;
#[cfg(feature = "postgres")]
mod postgres;
mod random_histories;
mod raw;
mod real_time;
mod refreshed_ahead_of_need;
mod rotating_keys;
mod rows_belong_to_their_key;
#[cfg(all(unix, any(feature = "cli", all(feature = "web", feature = "client"))))]
mod running;
#[cfg(feature = "cli")]
mod served;
mod shutdown_stores_what_is_in_flight;
mod skip;
#[cfg(all(unix, any(feature = "cli", all(feature = "web", feature = "client"))))]
mod stranger;
mod support;
mod the_journal_holds_what_the_store_does_not;
mod the_status_says_what_comes_next;
mod what_happens_is_counted;
