//! Counts instructions, which hardly depend on what else the machine does, and compares them with the figures in
//! `benches/instructions.txt`.
//!
//! This program runs itself, and the server, under valgrind's callgrind: once with few operations, once with many. The
//! difference, divided by the operations, has neither start nor end of the process in it.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use futures_util::{StreamExt as _, stream};
use token_supervisor::TokenKey;

use crate::Stage;

const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

/// A line of the file of figures.
struct Figure<'a> {
    name: &'a str,
    instructions: u64,
    /// In percent.
    tolerance: u64,
}

impl<'a> Figure<'a> {
    /// Parses a line; `None` for a comment.
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let name = words.next()?;
        let mut number = || words.next().and_then(|word| word.parse().ok()).expect("NAME INSTRUCTIONS PERCENT");
        Some(Self { name, instructions: number(), tolerance: number() })
    }
}

/// Measures, and compares with the file or updates it.
pub(crate) async fn run(update: bool) -> ExitCode {
    let text = fs::read_to_string(FIGURES).expect("the file of figures");
    let (mut updated, mut ended) = (String::new(), ExitCode::SUCCESS);
    println!("{:12} {:>12} {:>12} {:>10}", "instructions", "measured", "committed", "difference");
    for line in text.lines() {
        let Some(Figure { name, instructions, tolerance }) = Figure::parse(line) else {
            writeln!(updated, "{line}").expect("text");
            continue;
        };
        let measured = measure(name).await;
        writeln!(updated, "{name} {measured} {tolerance}").expect("text");
        let percent = (measured as f64 / instructions as f64 - 1.0) * 100.0;
        let verdict = if percent > tolerance as f64 {
            ended = ExitCode::FAILURE;
            "DEARER: make it cheaper, or explain the figure and update it"
        } else if percent < -(tolerance as f64) {
            "cheaper: update the figure (cargo bench --bench bars -- --instructions --update)"
        } else {
            ""
        };
        println!("{name:12} {measured:>12} {instructions:>12} {percent:>+9.1}%  {verdict}");
    }
    if update {
        fs::write(FIGURES, updated).expect("the file of figures");
        return ExitCode::SUCCESS;
    }
    ended
}

async fn measure(name: &str) -> u64 {
    match name {
        "hot-read" => per_operation(2_000, 12_000, async |reads| of_this_program("--hot", reads)).await,
        "refresh" => per_operation(40, 160, async |refreshes| of_this_program("--refreshes", refreshes)).await,
        #[cfg(feature = "cli")]
        "http-token" => per_operation(500, 2_500, crate::http::instructions).await,
        unknown => panic!("{unknown} is no figure"),
    }
}

/// Returns the instructions of one operation, by the difference of two runs.
async fn per_operation(few: usize, many: usize, total: impl AsyncFn(usize) -> u64) -> u64 {
    let (with_few, with_many) = (total(few).await, total(many).await);
    with_many.saturating_sub(with_few) / (many - few) as u64
}

fn of_this_program(part: &str, operations: usize) -> u64 {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("callgrind.log");
    // Reads are in a function of their own, so that nothing else counts.
    let options: &[&str] = if part == "--hot" { &["--toggle-collect=bars::hot::hot_reads"] } else { &[] };
    let mut command = callgrind(&log, options, &std::env::current_exe().expect("this program"));
    let ended = command.args([part, &operations.to_string()]).output().expect("valgrind is installed");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    collected(&log)
}

/// Returns the command that runs this program under callgrind and writes how many instructions that took to `log`.
pub(crate) fn callgrind(log: &Path, options: &[&str], program: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(format!("--log-file={}", log.display())).args(options).arg(program);
    command
}

/// Reads how many instructions were counted.
pub(crate) fn collected(log: &Path) -> u64 {
    let log = fs::read_to_string(log).expect("the log of valgrind");
    let count = log.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count.unwrap_or_else(|| panic!("valgrind collected nothing: {log}"))
}

/// Connects as many users in each run, and refreshes some of them one after the other.
pub(crate) async fn refreshes_alone(refreshes: usize) {
    let stage = Stage::new().await;
    let keys = stage.connect(200).await;
    let refresh = |key: TokenKey| {
        let supervisor = stage.supervisor.clone();
        async move { assert!(supervisor.refresh_now(&key).await.expect("refreshed").refreshed) }
    };
    stream::iter(keys).take(refreshes).for_each(refresh).await;
    stage.supervisor.shutdown(std::time::Duration::from_secs(60)).await;
}
