//! What the supervisor promises, a behaviour a file, on real parts: HTTP on loopback, SQLite files, journals.

mod a_failed_refresh_is_told;
mod keycloak;
mod one_refresh_for_many_callers;
mod skip;
mod support;
