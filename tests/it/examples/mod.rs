//! The examples, as people start them, look at them and end them.

mod actix_web_app;
mod actor_messages;
mod client_py;
mod plain_tokio;

use std::{path::PathBuf, process::Command, time::Duration};

use reqwest::{Client, redirect::Policy};

use crate::{running::Running, skip};

/// Starts an example; `None` if it is not built, which is said.
fn example(name: &str) -> Option<Running> {
    let path = built(name);
    if !path.exists() {
        skip::without("examples", &format!("{} is not there; cargo build --examples builds it", path.display()));
        return None;
    }
    Some(Running::start(Command::new(path).env("TOKEN_SUPERVISOR_API_KEY", API_KEY)))
}

const API_KEY: &str = "ts-test-secret-key-of-an-example";

/// Beside this test's folder `deps`, where `cargo test` puts them. Told to build this test alone it does not, and what
/// is there may be of older sources.
fn built(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let profile = this.parent().and_then(|deps| deps.parent()).unwrap();
    profile.join("examples").join(name)
}

/// What a text that begins like `g3` begins with.
fn generation(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('g')?;
    digits[..digits.find(|it: char| !it.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

/// A browser that follows nothing by itself.
fn browser() -> Client {
    Client::builder().no_proxy().redirect(Policy::none()).timeout(Duration::from_secs(20)).build().unwrap()
}
