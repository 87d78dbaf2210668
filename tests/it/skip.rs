//! Tests that need something which is not everywhere.

use std::io::Write as _;

/// The names of what must not be missing, or `all`: set where nothing may be left out (`.ci/run test`).
const REQUIRE: &str = "TOKEN_SUPERVISOR_TEST_REQUIRE";

/// An environment variable that is set and not empty.
#[expect(clippy::disallowed_methods, reason = "what tests are given comes through the environment, and only here")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The test that calls this does nothing, because `name` is missing: says so, past libtest's capture.
///
/// # Panics
/// If `name` is required.
pub(crate) fn without(name: &str, reason: &str) {
    let required = variable(REQUIRE).unwrap_or_default();
    let required = required.split([',', ' ']).any(|required| required == "all" || required == name);
    assert!(!required, "{REQUIRE} asks for {name}: {reason}");
    let thread = std::thread::current();
    let test = thread.name().filter(|test| *test != "main").unwrap_or(name);
    writeln!(std::io::stderr(), "skipped: {test}: {reason}; run .ci/run test").ok();
}
