//! The commands beside the demo.
//!
//! A command is a module with its arguments (a clap struct whose help ends with two examples) and a `run` that resolves to
//! an [`Exit`] or a [`CliFailure`]. What commands share: [`exit`] (how they end), [`args`] (what they are told), [`backend`]
//! (where they do it), [`body`] (what it says), [`show`] (how that is seen).
//!
//! Invariant: no secret is in any output, except where it was asked for: a new API key, and `token`.

mod args;
mod backend;
mod body;
mod exit;
pub(crate) mod log;
mod show;
pub(crate) mod signals;
mod time;

pub(crate) mod apikey;
pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod doctor;
pub(crate) mod init;
pub(crate) mod list;
pub(crate) mod migrate;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod verbs;
pub(crate) mod why;

pub(crate) use self::{
    exit::{CliFailure, Exit, quoted},
    show::{Out, coloured},
};
