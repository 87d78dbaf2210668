//! The commands that change a grant, or all grants of a provider: `refresh`, `retry`, `hold`, `release`, `reconnect`,
//! `disconnect`, `restore`, `purge`; and `probe`.

use serde_json::json;
use token_supervisor::{
    Code, State, TokenKey,
    api::{IdpBody, RetriedBody, StatusBody},
};

use super::{
    CliFailure, Exit, Out,
    args::{KeyArgs, TargetArgs, key},
    backend::{Backend, Probed, Verb},
    body::{StatusWords as _, VerbResult},
    exit::named,
};

/// Refresh a grant now, even if its token is not due.
///
/// Joins a refresh that is running. Never refreshes a grant in doubt.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor refresh github alice\n  \
    token-supervisor refresh github alice --account work --json")]
pub(crate) struct RefreshArgs {
    #[command(flatten)]
    which: KeyArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Send refused refresh tokens once more: of a grant, or of all grants of a provider.
///
/// Use it if a provider refused tokens by mistake, for example while it restarted.
///
/// A grant whose user must reconnect for another reason is not changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor retry github\n  token-supervisor retry github alice --json")]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    what: OneOrAll,
    #[command(flatten)]
    target: TargetArgs,
}

/// Put a grant, or all grants of a provider, on hold: nothing is sent to the provider.
///
/// A running refresh is finished, and valid tokens are still served. The hold lasts until release.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor hold github alice --reason \"moving to the new client\"\n  \
    token-supervisor hold github --reason \"provider incident\"")]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    what: OneOrAll,
    /// Reason, shown to everyone who meets the hold
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    target: TargetArgs,
}

/// Release a grant, or a provider, from its hold: due refreshes start immediately.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor release github alice\n  token-supervisor release github")]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    what: OneOrAll,
    #[command(flatten)]
    target: TargetArgs,
}

/// A grant, or all grants of an identity provider.
#[derive(Debug, clap::Args)]
struct OneOrAll {
    /// Identity provider, by its name in the configuration
    idp: String,
    /// User, by the name your application uses [default: all]
    user: Option<String>,
    /// Account, if the user has several at the identity provider
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, requires = "user")]
    account: String,
}

/// Require the user to consent again, until the next connect.
///
/// Use it if the grant lacks a scope, for example. Its valid token is still served.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor reconnect github alice --reason more_scope\n  \
    token-supervisor reconnect github alice --account work --reason \"leaked token\" --json")]
pub(crate) struct ReconnectArgs {
    #[command(flatten)]
    which: KeyArgs,
    /// Reason, shown to everyone who asks for the token
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    target: TargetArgs,
}

/// Let the next request to a paused provider through, to see whether it works again.
///
/// Without a server there is no pause: an empty, unauthenticated request is sent instead.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor probe github --server http://127.0.0.1:8080\n  \
    token-supervisor probe github --json")]
pub(crate) struct ProbeArgs {
    /// Identity provider, by its name in the configuration
    idp: String,
    #[command(flatten)]
    target: TargetArgs,
}

/// Disconnect a grant: its tokens are no longer handed out or refreshed.
///
/// The stored grant is kept for a while, so that `restore` can undo this.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor disconnect github alice\n  \
    token-supervisor disconnect github alice --revoke --json")]
pub(crate) struct DisconnectArgs {
    #[command(flatten)]
    which: KeyArgs,
    /// Also revoke the tokens at the identity provider; cannot be undone
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Undo a disconnect, if no token of the grant was revoked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  token-supervisor restore github alice\n  \
    token-supervisor restore github alice --account work --json")]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    which: KeyArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Delete a disconnected grant from the store; cannot be undone.
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
            Some(false) => "Not refreshed: the grant was refreshed a moment ago (token-supervisor why just_refreshed).",
            _ => "Refreshed.",
        };
        carry_out(&self.which.key()?, &self.target, Verb::Refresh, out, head).await
    }
}

impl RetryArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let OneOrAll { idp, user, account } = &self.what;
        let Some(user) = user else {
            let place = self.target.place()?;
            let body = Backend::with(&place, async |backend| backend.retry_idp(idp).await).await?;
            out.result(&body, || retried_in_words(idp, &body))?;
            return Ok(Exit::Done);
        };
        let head = |retried: bool| match retried {
            true => "Retried: the refresh token will be sent once more.",
            false => "Nothing to retry: the provider did not refuse the refresh token.",
        };
        let required = |status: &StatusBody| status.state == State::ReconnectRequired;
        let was = |before: &StatusBody, after: &StatusBody| required(before) && !required(after);
        with_before(&key(idp, user, account)?, &self.target, Verb::Retry, out, was, head).await
    }
}

fn retried_in_words(idp: &str, body: &RetriedBody) -> String {
    let head = match body.retried {
        0 => format!("Nothing to retry: {idp} refused no refresh token.\n"),
        1 => format!("Retried 1 grant of {idp}: its refresh token will be sent once more.\n"),
        many => format!("Retried {many} grants of {idp}: their refresh tokens will be sent once more.\n"),
    };
    let left = if body.left {
        "More refused grants are left. Look at the first results, then run the command again.\n"
    } else {
        ""
    };
    head + left
}

impl HoldArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let reason = Some(self.reason.as_str());
        self.what.hold(&self.target, reason, Verb::Hold(self.reason.clone()), out, |_| "On hold.").await
    }
}

impl ReleaseArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let head = |before: bool| if before { "Released." } else { "Nothing to release: not on hold." };
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
            out.result(&idp, || format!("{}\nall grants of {}\n", head(before), idp.idp))?;
            return Ok(Exit::Done);
        };
        let key = key(&self.idp, user, &self.account)?;
        match reason {
            Some(_) => carry_out(&key, target, verb, out, |_| head(true)).await,
            None => with_before(&key, target, verb, out, |before, _| before.held, head).await,
        }
    }
}

impl ReconnectArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let head = |_: &VerbResult| "The user must consent again.";
        carry_out(&self.which.key()?, &self.target, Verb::Reconnect(self.reason), out, head).await
    }
}

impl ProbeArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let place = self.target.place()?;
        let (idp, probe) = (&*self.idp, async |backend: &Backend| backend.probe_idp(&self.idp).await);
        match Backend::with(&place, probe).await? {
            Probed::Passes(before) => {
                let paused = before.paused.as_deref();
                let words = || match paused {
                    Some(cause) => format!(
                        "{idp} is paused ({cause}). The next refresh is sent, and decides whether the pause ends.\n"
                    ),
                    None => format!("Nothing to probe: {idp} is not paused.\n"),
                };
                out.result(&json!({ "idp": idp, "paused": paused, "passes": paused.is_some() }), words)?;
            }
            Probed::Reached(reached) => match reached.answer {
                Ok(status) => {
                    let words = || format!("{idp} responds ({status} to an unauthenticated request).\n");
                    out.result(&json!({ "idp": idp, "status": status }), words)?;
                }
                Err(evidence) => {
                    return Err(CliFailure::new(
                        Exit::Failed,
                        format!("{idp} does not respond: {evidence}"),
                        "check token_url, and that this machine can reach it",
                    ));
                }
            },
        }
        Ok(Exit::Done)
    }
}

impl DisconnectArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let head = |body: &VerbResult| match body.status.revocation.as_deref() {
            None => "Disconnected.",
            Some("done") => "Disconnected. The tokens are revoked.",
            Some("no_endpoint") => {
                "Disconnected. Not revoked: the provider has no revocation_url, so its tokens stay valid until they expire."
            }
            Some("unconfirmed") => {
                "Disconnected. The revocation is queued: it was sent, is not confirmed, and is retried until it succeeds."
            }
            Some(_) => "Disconnected. The revocation is queued and retried until it succeeds.",
        };
        carry_out(&self.which.key()?, &self.target, Verb::Disconnect { revoke: self.revoke }, out, head).await
    }
}

impl RestoreArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let key = self.which.key()?;
        let place = self.target.place()?;
        let done = Backend::with(&place, async |backend| {
            let before = backend.on(&key, Verb::Status).await.ok();
            let after = backend.on(&key, Verb::Restore).await?;
            Ok((before.is_none_or(|before| before.status.state == State::Revoked), after))
        });
        let (was_gone, body) = done.await?;
        let head = match body.status.revocation.as_deref() {
            _ if !was_gone => "Nothing to restore: not disconnected.",
            Some("canceled") => "Restored. The revocation was canceled before anything was sent.",
            Some("no_endpoint") => "Restored. Nothing was revoked: the provider has no revocation endpoint.",
            _ => "Restored.",
        };
        out.result(&body, || format!("{head}\n{}", body.status.in_words()))?;
        Ok(Exit::Done)
    }
}

impl PurgeArgs {
    pub(crate) async fn run(self, out: Out) -> Result<Exit, CliFailure> {
        let key = self.which.key()?;
        let purged = carry_out(&key, &self.target, Verb::Purge, out, |_| "Purged.").await;
        purged.map_err(|failure| match failure.code() {
            Some(Code::InvalidRequest) => {
                failure.then(format!("token-supervisor disconnect {}, then run purge again", named(&key)))
            }
            _ => failure,
        })
    }
}

/// Carries the verb out and reports whether the grant `was` in the state that it ends, by the state before and after it. If
/// the API key may not read the state, it is assumed to have been.
async fn with_before(
    key: &TokenKey,
    target: &TargetArgs,
    verb: Verb,
    out: Out,
    was: impl Fn(&StatusBody, &StatusBody) -> bool,
    head: impl Fn(bool) -> &'static str,
) -> Result<Exit, CliFailure> {
    let place = target.place()?;
    let done = Backend::with(&place, async |backend| {
        let before = backend.on(key, Verb::Status).await.ok();
        let after = backend.on(key, verb).await?;
        Ok((before.is_none_or(|before| was(&before.status, &after.status)), after))
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
