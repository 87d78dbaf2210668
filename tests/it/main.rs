//! What the supervisor promises, a behaviour a file, on real parts: HTTP on loopback, SQLite files, journals.

mod a_replaced_actor_serves_no_dead_token;
mod demo;
mod one_refresh_for_many_callers;
mod support;
