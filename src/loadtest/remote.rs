//! The load on a running server: readers that request the tokens of grants that it has.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use token_supervisor::{
    State, TokenKey,
    api::GrantQuery,
    client::{ApiClient, ApiError},
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    args::LoadtestArgs,
    outcome::{LoadParameters, LoadResult},
    series::Recorder,
};
use crate::{
    CliFailure, Exit,
    cli::{
        backend::{ServerBackend, ServerTarget},
        time::to_the_second,
    },
    demo::{
        load::Random,
        meter::DemoMeter,
        progress::{LiveProgress, ProgressText},
        time::{Moment, pause},
        words::{grouped, per_second},
    },
};

pub(super) async fn measure(
    args: &LoadtestArgs,
    server: &ServerTarget,
    json: bool,
    verbose: bool,
    interrupted: watch::Receiver<bool>,
) -> Result<LoadResult, CliFailure> {
    let backend = ServerBackend::new(server)?;
    let grants: Arc<[Known]> = grants(args, &backend).await?.into();
    let (meter, refreshes) = (Arc::new(DemoMeter::new()), Arc::new(AtomicU64::new(0)));
    let progress = LiveProgress::new(json, verbose, Some(args.seconds));
    let count = grouped(grants.len() as u64);
    progress.say(&format!("{} · reading the tokens of {count} grants", server.address));

    let recorder = Recorder::start(meter.clone(), args.seconds, false, {
        let refreshes = refreshes.clone();
        move || refreshes.load(Relaxed)
    });
    let started = Moment::now();
    let mut readers = JoinSet::new();
    for reader in 0..args.readers {
        let reader = RemoteReader {
            client: backend.client().clone(),
            grants: grants.clone(),
            meter: meter.clone(),
            refreshes: refreshes.clone(),
            random: Random(reader),
        };
        readers.spawn(reader.run());
    }
    let text = || {
        let errors: u64 = meter.errors().values().sum();
        let (reads, errors) = (per_second(meter.reads() as f64, started.elapsed()), grouped(errors));
        let detail = String::new();
        ProgressText { line: format!("{count} pairs  reads {reads}  errors {errors}"), detail, below: None }
    };
    let early = progress.until_over(started, interrupted, text).await;
    let (elapsed, reads, refreshes) = (started.elapsed(), meter.reads(), refreshes.load(Relaxed));
    let samples = recorder.stop().await;
    // The server completes what it has started for requests that are dropped here.
    readers.shutdown().await;
    let parameters = LoadParameters {
        target: format!("the server {}", server.address),
        started_at: to_the_second(started.wall()),
        pairs: grants.len() as u64,
        readers: args.readers,
        seconds: args.seconds,
        lifetime_seconds: None,
        seed: None,
    };
    let mut result = LoadResult::new(parameters, elapsed, early, reads, refreshes, &meter.times(), samples);
    result.add_errors(&meter);
    Ok(result)
}

/// A grant, and the newest generation of its token that was read.
struct Known {
    key: TokenKey,
    generation: AtomicU64,
}

/// The states in which a token may be served.
const READABLE: [State; 5] = [State::Fresh, State::Due, State::Refreshing, State::Backoff, State::InDoubt];

const PAGE: u32 = 1_000;

/// Lists the grants whose tokens to read.
async fn grants(args: &LoadtestArgs, backend: &ServerBackend) -> Result<Vec<Known>, CliFailure> {
    let (mut grants, mut after) = (Vec::new(), None);
    loop {
        let left = args.pairs as usize - grants.len();
        let query = GrantQuery {
            idp: args.idp.clone(),
            user_prefix: args.user_prefix.clone(),
            states: READABLE.to_vec(),
            limit: Some(PAGE.min(left as u32)),
            after,
            ..GrantQuery::default()
        };
        let (items, next) = backend.list(&query).await?;
        grants.extend(items.into_iter().map(|item| {
            let key = TokenKey::at(item.idp).user(item.user).account(item.account);
            Known { key, generation: AtomicU64::new(item.generation) }
        }));
        after = next;
        if after.is_none() || grants.len() >= args.pairs as usize {
            break;
        }
    }
    if grants.is_empty() {
        return Err(CliFailure::new(
            Exit::Failed,
            "the server has no grant to read",
            "connect one, or change --idp and --user-prefix: token-supervisor list shows the grants",
        ));
    }
    Ok(grants)
}

/// Requests one token after the other.
struct RemoteReader {
    client: ApiClient,
    grants: Arc<[Known]>,
    meter: Arc<DemoMeter>,
    refreshes: Arc<AtomicU64>,
    random: Random,
}

/// The pause of a reader after an error: an overloaded server gets fewer requests.
const AFTER_ERROR: Duration = Duration::from_millis(100);

impl RemoteReader {
    async fn run(mut self) {
        loop {
            let grant = &self.grants[self.random.below(self.grants.len())];
            let started = Moment::now();
            let read = self.client.token(&grant.key, Duration::ZERO).await;
            self.meter.add_reads(1);
            self.meter.add_time(started.elapsed());
            match read {
                Ok(token) => {
                    let known = grant.generation.fetch_max(token.generation, Relaxed);
                    self.refreshes.fetch_add(token.generation.saturating_sub(known), Relaxed);
                }
                Err(error) => {
                    self.meter.add_error(0, described(&error));
                    pause(AFTER_ERROR).await;
                }
            }
        }
    }
}

fn described(error: &ApiError) -> String {
    match error {
        ApiError::Problem(problem) => match problem.reason.as_deref() {
            Some(reason) => format!("{} ({reason})", problem.code),
            None => problem.code.to_string(),
        },
        ApiError::Transport(error) if error.is_timeout() => "no response in time".to_owned(),
        ApiError::Transport(_) => "no connection".to_owned(),
        ApiError::Foreign(status) => format!("HTTP {}, not of a token-supervisor", status.as_u16()),
        _ => "unreadable response".to_owned(),
    }
}
