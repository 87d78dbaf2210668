//! `list`: many grants.

use std::time::SystemTime;

use clap::value_parser;
use token_supervisor::{Cursor, Filter, State};

use super::{
    Exit, Failure, Out,
    args::{Source, state},
    backend::Backend,
    body::GrantBody,
    show::{cut, table},
    time::parse,
};

/// Lists grants, in the order of identity provider, user and account.
///
/// Never shows a token, and asks no identity provider.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor list --idp github --state reconnect_required\n  \
    token-supervisor list --user-prefix acme/ --expiring-before 2027-01-15T08:00:00Z --json")]
pub(crate) struct Args {
    /// At this identity provider, configured or not
    #[arg(long, value_name = "NAME")]
    idp: Option<String>,
    /// Of this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Of users whose names start like this
    #[arg(long, value_name = "PREFIX")]
    user_prefix: Option<String>,
    /// Of this account
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// In this state; may be repeated. Disconnected ones only by --state revoked
    #[arg(long = "state", value_name = "STATE", value_parser = state)]
    states: Vec<State>,
    /// That people hold
    #[arg(long)]
    held: bool,
    /// That end before then for want of a consent: RFC 3339, or seconds since the epoch
    #[arg(long, value_name = "TIME", value_parser = parse)]
    expiring_before: Option<SystemTime>,
    /// How many: 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Goes on where the page before ended, as it said
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
    #[command(flatten)]
    source: Source,
}

pub(crate) async fn run(args: Args, out: Out) -> Result<Exit, Failure> {
    let config = args.source.load()?;
    let (items, next) = Backend::with(&config, async |backend| backend.list(args.filter()).await).await?;
    let next = next.map(|cursor| cursor.to_string());
    out.result(&serde_json::json!({ "items": items, "next": next }), || {
        if items.is_empty() && next.is_none() {
            return "no such grants\n".to_owned();
        }
        let mut rows = vec![["idp", "user", "state", "gen", "expires"].map(str::to_owned).to_vec()];
        rows.extend(items.iter().map(row));
        let next = next.iter().map(|next| format!("next: the same with --after\n{next}\n"));
        table(&rows) + &next.collect::<String>()
    })?;
    Ok(Exit::Done)
}

/// As wide as a screen at most.
fn row(grant: &GrantBody) -> Vec<String> {
    let held = if grant.held { ", held" } else { "" };
    let generation = grant.generation.to_string();
    vec![
        cut(&grant.idp, 14),
        cut(&grant.owner(), 28),
        format!("{}{held}", grant.state),
        generation,
        grant.expires_in_words(),
    ]
}

impl Args {
    fn filter(&self) -> Filter {
        let mut filter = Filter::new().limit(self.limit);
        let set = |filter: Filter, text: &Option<String>, setter: fn(Filter, String) -> Filter| match text {
            Some(text) => setter(filter, text.clone()),
            None => filter,
        };
        filter = set(filter, &self.idp, Filter::idp);
        filter = set(filter, &self.user, Filter::user);
        filter = set(filter, &self.user_prefix, Filter::user_prefix);
        filter = set(filter, &self.account, Filter::account);
        filter = self.states.iter().copied().fold(filter, Filter::state);
        if self.held {
            filter = filter.held(true);
        }
        if let Some(time) = self.expiring_before {
            filter = filter.expiring_before(time);
        }
        match &self.after {
            Some(cursor) => filter.after(cursor.clone()),
            None => filter,
        }
    }
}
