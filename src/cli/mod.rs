//! All commands but the demo and the load test.
//!
//! A command is a module with its arguments (a clap struct whose help ends with two examples) and a `run` that resolves to
//! an [`Exit`] or a [`CliFailure`]. Commands share [`exit`] (exit codes and errors), [`args`] (common arguments), [`backend`]
//! (the store or the server they work on), [`body`] (results) and [`show`] (how results are printed).
//!
//! Invariant: no output contains a secret, except those that print it on request: `apikey new` and `token`.

mod args;
pub(crate) mod backend;
mod body;
mod exit;
pub(crate) mod log;
mod log_buffer;
mod log_format;
pub(crate) mod memory;
mod private_file;
mod show;
pub(crate) mod signals;
pub(crate) mod time;

pub(crate) mod adopt;
pub(crate) mod apikey;
pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod doctor;
pub(crate) mod healthcheck;
pub(crate) mod id;
pub(crate) mod idp;
pub(crate) mod init;
pub(crate) mod keys;
pub(crate) mod list;
pub(crate) mod migrate;
pub(crate) mod offboard;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod verbs;
pub(crate) mod why;

pub(crate) use self::{
    exit::{CliFailure, Exit, quoted},
    show::{Out, coloured},
};
