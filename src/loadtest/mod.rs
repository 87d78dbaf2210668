//! `loadtest`: measures the library in this process, or a running server, and writes a report.
//!
//! Read [`process`] (the providers, grants, readers and verdict of the demo, with the load of the arguments), [`remote`] (a
//! server, whose tokens are only read), [`series`] (what is recorded each second), [`outcome`] (the result, in words and as
//! JSON), [`report`] (HTML) and [`chart`] (SVG).
//!
//! Invariants: only `--server` sends anything beyond this process; no result names a user or contains a secret.

mod args;
mod chart;
mod host;
mod outcome;
mod process;
mod remote;
mod report;
mod series;

use std::{
    fs,
    path::{Path, PathBuf},
};

use tokio::sync::watch;

pub(crate) use self::args::LoadtestArgs;
use self::outcome::LoadResult;
use crate::{
    CliFailure, Exit,
    cli::{Out, quoted, signals::ending_early},
};

pub(crate) async fn run(args: LoadtestArgs, json: bool, verbose: bool) -> Result<Exit, CliFailure> {
    check_files(&args)?;
    ending_early(|interrupted| measure(args, json, verbose, interrupted)).await
}

async fn measure(
    args: LoadtestArgs,
    json: bool,
    verbose: bool,
    interrupted: watch::Receiver<bool>,
) -> Result<Exit, CliFailure> {
    let result = match args.target()? {
        None => process::measure(&args, json, verbose, interrupted).await?,
        Some(server) => remote::measure(&args, &server, json, verbose, interrupted).await?,
    };
    let written = write_files(&args, &result);
    Out { json }.result(&result, || result.in_words(written.as_deref().unwrap_or_default()))?;
    written?;
    Ok(if result.lost() { Exit::Failed } else { Exit::Done })
}

/// Fails before the load runs if its report could not be written.
fn check_files(args: &LoadtestArgs) -> Result<(), CliFailure> {
    let wrong = |text: String| Err(CliFailure::usage(text, "create the folder, or name another one"));
    if let Some(report) = &args.report {
        let folder = report.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return wrong(format!("the report cannot be written: {} is not a folder", folder.display()));
        }
        if report.is_dir() {
            return wrong(format!("the report cannot be written: {} is a folder", report.display()));
        }
    }
    match &args.plots {
        Some(folder) if !folder.is_dir() => {
            wrong(format!("the plots cannot be written: {} is not a folder", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Writes the report and the plots, and returns their paths.
fn write_files(args: &LoadtestArgs, result: &LoadResult) -> Result<Vec<PathBuf>, CliFailure> {
    let report = args.report.iter().map(|path| (path.clone(), report::html(result)));
    let plots = args.plots.iter().flat_map(|folder| {
        report::plots(result).into_iter().map(move |(name, svg)| (folder.join(format!("{name}.svg")), svg))
    });
    let mut written = Vec::new();
    for (path, text) in report.chain(plots) {
        fs::write(&path, text).map_err(|error| {
            let path = path.display().to_string();
            let next = format!("check the folder of {} and the free disk space; the result is printed", quoted(&path));
            CliFailure::new(Exit::Failed, format!("{path} cannot be written: {error}"), next)
        })?;
        written.push(path);
    }
    Ok(written)
}
