//! What the supervisor promises, a behaviour a file, on real parts: HTTP on loopback, SQLite files, journals.

mod one_refresh_for_many_callers;
mod support;
