//! What people do with a grant: `refresh`, `hold`, `release`, `disconnect`, `restore`, `purge`.

use token_supervisor::{
    Code, State, TokenKey,
    api::{IdpBody, StatusBody},
};

use super::{
    CliFailure, Exit, Out,
    args::{KeyArgs, TargetArgs, key},
    backend::{Backend, Verb},
    body::{RevocationProgress, StatusWords as _, VerbResult},
    exit::named,
};

/// Refreshes although the token is not due.
///
/// Joins a refresh that runs, and never goes around a doubt.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor refresh github alice\n  \
    token-supervisor refresh github alice --account work --json")]
pub(crate) struct RefreshArgs {
    #[command(flatten)]
    which: KeyArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Sends nothing for a grant, or a whole identity provider, until it is released.
///
/// A refresh that runs is finished; valid tokens are served.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor hold github alice --reason \"moving to the new client\"\n  \
    token-supervisor hold github --reason \"their incident of today\"")]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    what: OneOrAll,
    /// Why, for people who meet the hold
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    target: TargetArgs,
}

/// Ends a hold of a grant, or of an identity provider: what is due starts at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor release github alice\n  token-supervisor release github")]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    what: OneOrAll,
    #[command(flatten)]
    target: TargetArgs,
}

/// A grant, or all of an identity provider.
#[derive(Debug, clap::Args)]
struct OneOrAll {
    /// The identity provider, by its name in the configuration
    idp: String,
    /// The user, as your application names it [default: all]
    user: Option<String>,
    /// The account, where the user has several at the identity provider
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, requires = "user")]
    account: String,
}

/// Ends the grant here: its tokens are never used again.
///
/// What is stored stays for a while, so that `restore` can take it back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor disconnect github alice\n  \
    token-supervisor disconnect github alice --revoke --json")]
pub(crate) struct DisconnectArgs {
    #[command(flatten)]
    which: KeyArgs,
    /// Has the identity provider revoke the tokens, too: nothing takes that back
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Takes a disconnect back, if nothing of the grant was revoked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor restore github alice\n  \
    token-supervisor restore github alice --account work --json")]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    which: KeyArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Deletes what is stored of a disconnected grant: then nothing takes it back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor purge github alice\n  \
    token-supervisor purge github alice --account work --json")]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    which: KeyArgs,
    #[command(flatten)]
    target: TargetArgs,
}

impl RefreshArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let head = |body: &VerbResult| match body.refreshed {
            Some(false) => "not refreshed: it has just been (token-supervisor why just_refreshed)",
            _ => "refreshed",
        };
        carry_out(&self.which.key()?, &self.target, Verb::Refresh, out, head).await
    }
}

impl HoldArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let reason = Some(self.reason.as_str());
        self.what.hold(&self.target, reason, Verb::Hold(self.reason.clone()), out, |_| "held").await
    }
}

impl ReleaseArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let head = |before: bool| if before { "released" } else { "released; it was not held" };
        self.what.hold(&self.target, None, Verb::Release, out, head).await
    }
}

impl OneOrAll {
    async fn hold(
        &self,
        target: &TargetArgs,
        reason: Option<&str>,
        verb: Verb,
        out: Out,
        head: impl Fn(bool) -> &'static str,
    ) -> Result<Exit, CliFailure> {
        let Some(user) = &self.user else {
            let place = target.place()?;
            let done = Backend::with(&place, async |backend| {
                let before = backend.idps().await.ok();
                let held = |idps: Vec<IdpBody>| idps.iter().any(|idp| idp.idp == self.idp && idp.held);
                Ok((before.is_none_or(held), backend.hold_idp(&self.idp, reason).await?))
            });
            let (before, idp) = done.await?;
            out.result(&idp, || format!("{}: all of {}\n", head(before), idp.idp))?;
            return Ok(Exit::Done);
        };
        let key = key(&self.idp, user, &self.account)?;
        match reason {
            Some(_) => carry_out(&key, target, verb, out, |_| head(true)).await,
            None => with_before(&key, target, verb, out, |before| before.held, head).await,
        }
    }
}

impl DisconnectArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let head = |body: &VerbResult| match body.revocation {
            None => "disconnected",
            Some(RevocationProgress::Done) => "disconnected, and revoked",
            Some(RevocationProgress::Queued) => "disconnected; the revocation is queued, and tried until it is done",
            Some(RevocationProgress::NoEndpoint) => {
                "disconnected; not revoked: no revocation_url is known of the provider, where its tokens live on"
            }
        };
        carry_out(&self.which.key()?, &self.target, Verb::Disconnect { revoke: self.revoke }, out, head).await
    }
}

impl RestoreArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let head = |before: bool| if before { "restored" } else { "nothing to restore: it was not disconnected" };
        let was = |before: &StatusBody| before.state == State::Revoked;
        with_before(&self.which.key()?, &self.target, Verb::Restore, out, was, head).await
    }
}

impl PurgeArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let key = self.which.key()?;
        let purged = carry_out(&key, &self.target, Verb::Purge, out, |_| "purged").await;
        purged.map_err(|failure| match failure.code() {
            Some(Code::InvalidRequest) => {
                failure.then(format!("token-supervisor disconnect {}, then the same again", named(&key)))
            }
            _ => failure,
        })
    }
}

/// Carries it out, and says so knowing whether the grant `was` what it ends. Who may not look is taken at their word.
async fn with_before(
    key: &TokenKey,
    target: &TargetArgs,
    verb: Verb,
    out: Out,
    was: impl Fn(&StatusBody) -> bool,
    head: impl Fn(bool) -> &'static str,
) -> Result<Exit, CliFailure> {
    let place = target.place()?;
    let done = Backend::with(&place, async |backend| {
        let before = backend.on(key, Verb::Status).await.ok();
        Ok((before.as_ref().is_none_or(|before| was(&before.status)), backend.on(key, verb).await?))
    });
    let (before, body) = done.await?;
    out.result(&body, || format!("{}\n{}", head(before), body.status.in_words()))?;
    Ok(Exit::Done)
}

async fn carry_out(
    key: &TokenKey,
    target: &TargetArgs,
    verb: Verb,
    out: Out,
    head: impl Fn(&VerbResult) -> &'static str,
) -> Result<Exit, CliFailure> {
    let place = target.place()?;
    let body = Backend::with(&place, async |backend| backend.on(key, verb).await).await?;
    out.result(&body, || format!("{}\n{}", head(&body), body.status.in_words()))?;
    Ok(Exit::Done)
}
