//! `keys reseal`: encrypts stored values again with the active key.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use token_supervisor::api::KeysBody;

use crate::cli::{
    CliFailure, Exit, Out,
    args::TargetArgs,
    backend::Backend,
    show::{folded, note},
    time::pause,
};

/// Encrypt stored values again with the active key, while grants are refreshed and served.
///
/// Nothing else changes. Can be interrupted and run again: what is done stays done.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor keys reseal\n  \
    token-supervisor keys reseal --server https://tokens.example.com --json")]
pub(super) struct ResealArgs {
    #[command(flatten)]
    target: TargetArgs,
}

/// A grant is refreshed within a lease, unless its provider is slow.
const PASSES: u32 = 60;
const BETWEEN: Duration = Duration::from_secs(1);

impl ResealArgs {
    pub(super) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let ended = Backend::with(&self.target.place()?, async |backend| reseal(backend, out).await).await?;
        let ResealRun { keys, resealed, later, failed } = &ended;
        if *later > 0 {
            return Err(CliFailure::new(
                Exit::Later,
                format!("{later} grants are still being refreshed; {resealed} values are done"),
                "run the command again",
            ));
        }
        if *failed > 0 {
            return Err(CliFailure::new(
                Exit::Failed,
                format!("{failed} values cannot be decrypted, and are left; {resealed} are done"),
                "run token-supervisor doctor, and look for the grants in the log",
            ));
        }
        let (active, others) = (active(keys), behind(keys));
        let next = match others.as_slice() {
            [] => "token-supervisor keys list shows which keys nothing needs; keys remove removes one".to_owned(),
            others => format!("copy the key file to {}, then run the command again", others.join(", ")),
        };
        out.result(&json!({ "key": active, "resealed": resealed, "next": next }), || {
            let text = match resealed {
                0 => format!("Nothing to do: all values are encrypted with key {active}."),
                1 => format!("1 value is encrypted with key {active} now."),
                many => format!("{many} values are encrypted with key {active} now."),
            };
            format!("{text}\n\n{}\n", folded(&format!("next: {next}"), 0))
        })?;
        Ok(Exit::Done)
    }
}

/// What a run has done.
struct ResealRun {
    /// As they were before.
    keys: KeysBody,
    resealed: u64,
    later: u64,
    failed: u64,
}

async fn reseal(backend: &Backend, out: Out) -> Result<ResealRun, CliFailure> {
    let keys = backend.keys().await?;
    let others = keys.items.iter().filter(|key| key.state != "active");
    let mut bar = ResealProgress::new(out, others.map(|key| key.rows + key.revocations + u64::from(key.check)).sum());
    let (mut resealed, mut after, mut failed, mut later) = (0, None, 0, 0);
    let mut passes = 0;
    loop {
        let step = backend.reseal(after).await?;
        resealed += step.resealed;
        failed += step.failed;
        later += step.later;
        bar.show(resealed);
        after = step.next;
        if after.is_none() {
            passes += 1;
            if later == 0 || passes == PASSES {
                break;
            }
            pause(BETWEEN).await;
            (failed, later) = (0, 0);
        }
    }
    bar.end();
    Ok(ResealRun { keys, resealed, later, failed })
}

fn active(keys: &KeysBody) -> &str {
    keys.items.iter().find(|key| key.state == "active").map_or("", |key| key.id.as_str())
}

/// Returns the replicas that still encrypt with another key.
fn behind(keys: &KeysBody) -> Vec<&str> {
    let active = active(keys);
    let behind = keys.replicas.iter().filter(|replica| replica.seals_with() != Some(active));
    behind.map(|replica| replica.id.as_str()).collect()
}

/// A bar on a terminal, a line now and then elsewhere, nothing with `--json`.
enum ResealProgress {
    Bar(ProgressBar),
    Lines { total: u64, steps: u32 },
    None,
}

/// A step takes about a second.
const STEPS_A_LINE: u32 = 5;

impl ResealProgress {
    fn new(out: Out, total: u64) -> Self {
        match (out.json, io::stderr().is_terminal()) {
            (true, _) => Self::None,
            (false, false) => Self::Lines { total, steps: 0 },
            (false, true) => {
                let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
                let style = ProgressStyle::with_template(
                    "[{bar:14}] {pos}/{len} values  (Ctrl-C stops it, and it can be run again)",
                );
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("##-"));
                Self::Bar(bar)
            }
        }
    }

    fn show(&mut self, resealed: u64) {
        match self {
            // Others are counted meanwhile: grants that were sealed with the old key since.
            Self::Bar(bar) => bar.set_position(resealed.min(bar.length().unwrap_or(resealed))),
            Self::Lines { total, steps } => {
                *steps += 1;
                if steps.is_multiple_of(STEPS_A_LINE) {
                    note(&format!("{resealed}/{total} values"));
                }
            }
            Self::None => {}
        }
    }

    fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
