//! What people do with a grant: `refresh`, `hold`, `release`, `disconnect`, `restore`, `purge`.

use super::{
    Exit, Failure, Out,
    args::{Source, Which},
    backend::{Backend, Verb},
    body::GrantBody,
};

/// Refreshes although the token is not due.
///
/// Joins a refresh that runs, and never goes around a doubt.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor refresh github alice\n  \
    token-supervisor refresh github alice --account work --json")]
pub(crate) struct Refresh {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    source: Source,
}

/// Sends nothing for the grant until it is released.
///
/// A refresh that runs is finished; the valid token is served.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor hold github alice --reason \"moving to the new client\"\n  \
    token-supervisor hold github alice --account work --reason audit --json")]
pub(crate) struct Hold {
    #[command(flatten)]
    which: Which,
    /// Why, for people who meet the hold
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    source: Source,
}

/// Ends a hold: what is due starts at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor release github alice\n  \
    token-supervisor release github alice --account work --json")]
pub(crate) struct Release {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    source: Source,
}

/// Ends the grant here: its tokens are never used again.
///
/// What is stored stays for a while, so that `restore` can take it back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor disconnect github alice\n  \
    token-supervisor disconnect github alice --revoke --json")]
pub(crate) struct Disconnect {
    #[command(flatten)]
    which: Which,
    /// Has the identity provider revoke the tokens, too: then nothing takes it back
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    source: Source,
}

/// Takes a disconnect back, if nothing of the grant was revoked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor restore github alice\n  \
    token-supervisor restore github alice --account work --json")]
pub(crate) struct Restore {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    source: Source,
}

/// Deletes what is stored of a disconnected grant: then nothing takes it back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor purge github alice\n  \
    token-supervisor purge github alice --account work --json")]
pub(crate) struct Purge {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    source: Source,
}

impl Refresh {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, Failure> {
        let head = |body: &GrantBody| match body.refreshed {
            Some(false) => "not refreshed: it has just been (token-supervisor why just_refreshed)",
            _ => "refreshed",
        };
        carry_out(&self.which, &self.source, Verb::Refresh, out, head).await
    }
}

impl Hold {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, Failure> {
        carry_out(&self.which, &self.source, Verb::Hold(self.reason), out, |_| "held").await
    }
}

impl Release {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, Failure> {
        carry_out(&self.which, &self.source, Verb::Release, out, |_| "released").await
    }
}

impl Disconnect {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, Failure> {
        let head = |body: &GrantBody| match body.revoked {
            None => "disconnected",
            Some(true) => "disconnected; nothing is left to revoke",
            Some(false) => "disconnected; the revocation is queued: whatever runs next tries it again",
        };
        carry_out(&self.which, &self.source, Verb::Disconnect { revoke: self.revoke }, out, head).await
    }
}

impl Restore {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, Failure> {
        carry_out(&self.which, &self.source, Verb::Restore, out, |_| "restored").await
    }
}

impl Purge {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, Failure> {
        carry_out(&self.which, &self.source, Verb::Purge, out, |_| "purged").await
    }
}

async fn carry_out(
    which: &Which,
    source: &Source,
    verb: Verb,
    out: Out,
    head: impl Fn(&GrantBody) -> &'static str,
) -> Result<Exit, Failure> {
    let (key, config) = (which.key()?, source.load()?);
    let body = Backend::with(&config, async |backend| backend.on(&key, verb).await).await?;
    out.result(&body, || format!("{}\n{}", head(&body), body.in_words()))?;
    Ok(Exit::Done)
}
