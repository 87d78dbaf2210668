//! Refreshes that no caller asks for: when they start after they are due.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, SystemTime},
};

use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query, sql_types};
use token_supervisor::testing::{Outcome, SimulatedIdp};

use crate::{
    Size, Stage,
    harness::{at_most, figure, now, pause, within},
};

pub(crate) async fn run(size: Size) {
    cold_grants(size).await;
}

/// Many grants with a brief lifetime come due at almost the same time, and none of them has an actor.
async fn cold_grants(size: Size) {
    let mut stage = Stage::with_lifetime(size.brief).await;
    stage.connect(size.cold).await;
    stage.restart().await;
    let schedule = Schedule::read(stage.folder.path());
    let started = now();
    // Until all are refreshed: tokens that expire first are late.
    while stage.sim.requests() < size.cold as u64 && started.elapsed() < 2 * size.brief {
        pause(Duration::from_millis(100)).await;
    }
    pause(Duration::from_secs(1)).await;
    let refreshed = first_refreshes(&stage.sim);
    let expired = schedule.0.iter().filter(|(user, row)| {
        let new = refreshed.get(user.as_str()).and_then(|refreshed| refreshed.until);
        new.is_none_or(|new| new > row.expires)
    });
    let grants = format!("{} cold grants of {} s", size.cold, size.brief.as_secs());
    at_most(&format!("{grants}: expired"), expired.count() as f64, 0.0, "");
    let lags = schedule.0.iter().map(|(user, row)| {
        let refreshed = refreshed.get(user.as_str()).map_or(row.expires, |refreshed| refreshed.from);
        refreshed.duration_since(row.due).unwrap_or_default()
    });
    within("  the latest refresh, after it was due", lags.max().unwrap_or_default(), Duration::from_secs(6));
    let (first, last) = (refreshed.values().map(|at| at.from).min(), refreshed.values().map(|at| at.from).max());
    let took = first.zip(last).and_then(|(first, last)| last.duration_since(first).ok()).unwrap_or_default();
    figure("  refreshes a second", &format!("{:.0}", refreshed.len() as f64 / took.as_secs_f64()), "-");
    stage.supervisor.shutdown(Duration::from_secs(30)).await;
}

/// When the stored tokens are due and when they expire, by user.
pub(crate) struct Schedule(pub(crate) HashMap<String, Times>);

pub(crate) struct Times {
    pub(crate) due: SystemTime,
    expires: SystemTime,
}

#[derive(QueryableByName)]
struct Stored {
    #[diesel(sql_type = sql_types::Text)]
    user_id: String,
    #[diesel(sql_type = sql_types::BigInt)]
    due_at: i64,
    #[diesel(sql_type = sql_types::BigInt)]
    expires_at: i64,
}

impl Schedule {
    pub(crate) fn read(folder: &Path) -> Self {
        let rows = sql_query("SELECT user_id, due_at, expires_at FROM grants WHERE due_at IS NOT NULL");
        let rows: Vec<Stored> = rows.load(&mut database(folder)).expect("rows");
        let time = |millis: i64| SystemTime::UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs());
        let times = |row: Stored| (row.user_id, Times { due: time(row.due_at), expires: time(row.expires_at) });
        Self(rows.into_iter().map(times).collect())
    }
}

pub(crate) fn database(folder: &Path) -> SqliteConnection {
    SqliteConnection::establish(folder.join("tokens.db").to_str().expect("UTF-8")).expect("a database")
}

/// When the provider received a request and when it had sent its response.
pub(crate) struct Refreshed {
    pub(crate) from: SystemTime,
    until: Option<SystemTime>,
}

/// Returns the first refresh of each user.
pub(crate) fn first_refreshes(sim: &SimulatedIdp) -> HashMap<String, Refreshed> {
    let mut first = HashMap::new();
    for shown in sim.presentations() {
        if let (Some(token), Outcome::Rotated) = (shown.token, shown.outcome) {
            let refreshed = Refreshed { from: shown.at, until: shown.answered_at };
            first.entry(token.user.to_string()).or_insert(refreshed);
        }
    }
    first
}
