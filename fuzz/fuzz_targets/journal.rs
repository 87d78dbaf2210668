#![no_main]

use std::sync::LazyLock;

/// One folder for all runs, in `TMPDIR`; a folder in memory is fastest.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| token_supervisor::fuzz::journal(FOLDER.path(), data));
