//! The systemd unit of `deploy/` is one that systemd accepts.

use std::{
    fs,
    process::{Command, Output},
};

use super::{deploy, text};
use crate::skip;

/// How exposed the service may be, by systemd's own scale from 0 to 100. The unit's `serve` with its network has 15.
const EXPOSURE: &str = "25";

fn printed(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

#[test]
fn systemd_accepts_the_unit_and_finds_it_hardened() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return skip::without("systemd-analyze", "the unit is checked by systemd-analyze, which is not installed");
    }
    let unit = text(deploy().join("systemd/token-supervisor.service"));
    // It must be there.
    let unit = unit.replace("/usr/local/bin/token-supervisor", env!("CARGO_BIN_EXE_token-supervisor"));
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("token-supervisor.service");
    let analyze = |args: &[&str]| {
        let output = Command::new("systemd-analyze").args(args).arg(&path).output().unwrap();
        (output.status.success(), printed(output))
    };
    let verify = |unit: &str| {
        fs::write(&path, unit).unwrap();
        let (accepted, printed) = analyze(&["verify", "--man=no"]);
        // The units of this machine may have flaws of their own.
        (accepted && !printed.contains("token-supervisor"), printed)
    };
    let (accepted, printed) = verify(&unit.replace("LimitCORE=", "LimitKORE="));
    assert!(!accepted, "a setting that does not exist is not noticed: {printed}");
    let (accepted, printed) = verify(&unit);
    assert!(accepted, "{printed}");
    let (hardened, printed) = analyze(&["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE]);
    assert!(hardened, "{printed}");
    for setting in ["LimitCORE=0", "LimitNOFILE=65536", "UMask=0077"] {
        assert!(unit.lines().any(|line| line == setting), "{setting}");
    }
}
