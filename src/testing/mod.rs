//! For tests and demonstrations: an identity provider that behaves like the real ones, badly where
//! they do, and a clock to turn by hand.
//!
//! [`SimulatedIdp`] speaks real HTTP/1.1 on a port of 127.0.0.1, from a thread of its own. A
//! [`Profile`] says whom it resembles, a [`Kind`] what a second use of a refresh token does, a
//! [`Fault`] what goes wrong. Afterwards [`SimulatedIdp::presentations`] tells what the client did,
//! and [`SimulatedIdp::standing`] whether the tokens it kept are worth anything. Beside it there is a
//! resource server to call with the tokens: [`SimulatedIdp::api_url`].
//!
//! ```
//! use token_supervisor::testing::{Profile, SimulatedIdp, Standing};
//!
//! let idp = SimulatedIdp::start(Profile::gitlab())?;
//! let grant = idp.consent("alice"); // to be connected
//! assert_eq!(idp.requests(), 0);
//! # let _ = grant;
//! # assert_eq!(idp.standing(&"made up".into()), Standing::Unknown);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Every secret made here starts with `ts-test-secret-`, so that a test can look for leaks.
//!
//! To read: `family` (pure: kinds and their ledger), `fault`, `profile` (data), then `endpoint`.
//! A new profile is a table in `profile::wire`; a new fault is a variant and its place in `endpoint`.

mod answer;
mod control;
mod endpoint;
mod family;
mod fault;
mod hooks;
mod presentation;
mod profile;
mod refusal;
mod request;
mod resource;
mod server;
mod state;
#[cfg(test)]
mod tests;
mod timer;
mod watched;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use self::control::{Control, Kept, Point, StoreFault, kept, stored_refresh_token};
pub(crate) use self::hooks::Hooks;
use self::{answer::SimulatedResponse, server::IdpServer, state::IdpShared};
pub use self::{
    family::Standing,
    fault::{Canned, Chaos, Fault},
    presentation::{Outcome, Presentation, TokenId},
    profile::{Kind, Profile},
};
pub use crate::clock::ManualClock;
use crate::model::{AccessToken, Expiry, Grant, RefreshToken};
use crate::{Idp, Rotation, presets};

/// A simulated identity provider. Clones are the same one; dropping the last stops the server.
///
/// Its clock starts as the given one and goes on evenly: stepping the wall clock moves the machine
/// under test, not the provider.
#[derive(Clone)]
pub struct SimulatedIdp(Arc<IdpServer>);

impl SimulatedIdp {
    /// Starts one that lives by the machine's clock.
    ///
    /// # Errors
    /// If the port, the thread or its runtime cannot be had.
    pub fn start(profile: Profile) -> io::Result<Self> {
        IdpServer::start(profile, None).map(Arc::new).map(Self)
    }

    /// Starts one whose time passes only when `clock` is advanced.
    ///
    /// A request that is in the log has its timers running: the clock may be advanced at once.
    ///
    /// # Errors
    /// If the port, the thread or its runtime cannot be had.
    pub fn start_with_clock(profile: Profile, clock: &ManualClock) -> io::Result<Self> {
        IdpServer::start(profile, Some(clock)).map(Arc::new).map(Self)
    }

    /// The provider as a supervisor has to know it: the preset that fits, pointed here.
    pub fn idp(&self) -> Idp {
        let profile = self.profile();
        let (id, secret) = (profile.client_id.clone(), profile.client_secret.clone());
        let idp = match profile.name() {
            "github" => presets::github(id, secret),
            "gitlab" => presets::gitlab(id, secret),
            "bitbucket" => presets::bitbucket(id, secret),
            "keycloak" => presets::keycloak("http://127.0.0.1", "simulated", id, secret),
            "google" => presets::google(id, secret),
            "entra" => presets::entra("simulated", id, secret),
            "okta" => presets::okta("http://127.0.0.1", id, secret),
            "slack" => presets::slack(id, secret),
            "salesforce" => presets::salesforce(id, secret).access_lifetime(profile.access_lifetime),
            "hubspot" => presets::hubspot(id, secret),
            "atlassian" => presets::atlassian(id, secret),
            "box" => presets::box_com(id, secret),
            "discord" => presets::discord(id, secret),
            "zoom" => presets::zoom(id, secret),
            _ => presets::oauth2("http://127.0.0.1", id, secret),
        };
        let grace = profile.kind.grace().unwrap_or_default();
        let broken = idp.rotation == Rotation::Never && profile.kind != Kind::NotRotating;
        let idp = if broken { idp.rotation(Rotation::Sometimes) } else { idp };
        idp.token_url(self.token_url()).revocation_url(self.revocation_url()).reuse_grace(grace)
    }

    /// As it was started.
    pub fn profile(&self) -> &Profile {
        &self.shared().profile
    }

    /// The token endpoint (POST, `grant_type=refresh_token`).
    pub fn token_url(&self) -> String {
        self.url(endpoint::TOKEN)
    }

    /// The revocation endpoint (RFC 7009).
    pub fn revocation_url(&self) -> String {
        self.url(endpoint::REVOKE)
    }

    /// The introspection endpoint (RFC 7662): `{"active": …}`, without spending anything.
    pub fn introspection_url(&self) -> String {
        self.url(endpoint::INTROSPECT)
    }

    /// A resource: `{"user": …, "login": …}` for a live access token, 401 for any other.
    pub fn userinfo_url(&self) -> String {
        self.url(resource::USER)
    }

    /// The root of a resource server in the manner of GitHub's: below it, `/user` says whose the access token is, and
    /// `/user/repos` lists their repositories. 401 for a token that is dead or was never issued.
    pub fn api_url(&self) -> String {
        self.url("")
    }

    /// The user consents: a new family, and the grant that an application would connect.
    pub fn consent(&self, user: &str) -> Grant {
        let (profile, now) = (self.profile(), self.shared().now());
        let answer = self.shared().lock().ledger.consent(user, now);
        let mut grant = Grant::new(answer.access).token_type(profile.wire.token_type).scope(profile.wire.scope);
        if profile.wire.expires_in {
            grant = grant.expires_in(profile.access_lifetime);
        }
        grant.refresh_token = answer.refresh;
        match profile.wire.refresh_lifetime {
            Some((_, 0)) => grant.refresh_expiry(Expiry::Never),
            Some((_, seconds)) => grant.refresh_expiry(Expiry::At((now + Duration::from_secs(seconds)).into())),
            None => grant,
        }
    }

    /// The user consents: a new family, and the answer of the token endpoint, as it comes.
    pub fn consent_answer(&self, user: &str) -> Vec<u8> {
        let now = self.shared().now();
        let answer = self.shared().lock().ledger.consent(user, now);
        SimulatedResponse::tokens(self.profile(), &answer, None).body
    }

    /// An administrator ends every session of the user.
    pub fn end_family(&self, user: &str) {
        let now = self.shared().now();
        self.shared().lock().ledger.end_family(user, now);
    }

    /// From now on it is of another kind, e.g. one that starts to rotate.
    pub fn set_kind(&self, kind: Kind) {
        self.shared().lock().ledger.set_kind(kind);
    }

    /// The next refresh that no earlier call has claimed meets this fault.
    pub fn next(&self, fault: Fault) {
        self.shared().lock().faults.queue.push_back(fault);
    }

    /// Every refresh meets this fault until changed, except those that [`next`](Self::next) claims.
    pub fn always(&self, fault: Option<Fault>) {
        self.shared().lock().faults.always = fault;
    }

    /// Refreshes that neither [`next`](Self::next) nor [`always`](Self::always) claims meet this mix.
    pub fn chaos(&self, chaos: Chaos) {
        self.shared().lock().faults.chaos = chaos;
    }

    /// No request meets a fault any more, unless new ones are asked for.
    pub fn forget_faults(&self) {
        let mut shared = self.shared().lock();
        shared.faults.queue.clear();
        shared.faults.always = None;
        shared.faults.chaos = Chaos::default();
    }

    /// Lets the requests go that hang now.
    pub fn release(&self) {
        let presented = self.shared().lock().ledger.presentations().len();
        self.release_first(presented);
    }

    /// The same for those of the first `presented` [`presentations`](Self::presentations) alone.
    pub fn release_first(&self, presented: usize) {
        self.shared().released.send_modify(|release| release.go = release.go.max(presented));
    }

    /// Drops those of the first `presented` [`presentations`](Self::presentations) that hang now: their
    /// connections are closed without an answer, and what was not processed never is.
    pub fn abandon_first(&self, presented: usize) {
        self.shared().released.send_modify(|release| release.abandoned = release.abandoned.max(presented));
    }

    /// The revocation endpoint answers with this status instead of working, until changed.
    pub fn fail_revocations(&self, status: Option<u16>) {
        self.shared().lock().revocation_status = status;
    }

    /// How often each fault was injected.
    pub fn faults_injected(&self) -> BTreeMap<&'static str, u64> {
        self.shared().lock().faults.injected.clone()
    }

    /// Complete POSTs to the token endpoint, processed or not.
    pub fn requests(&self) -> u64 {
        self.shared().lock().requests
    }

    /// Complete POSTs to the revocation endpoint.
    pub fn revocations(&self) -> u64 {
        self.shared().lock().revocations
    }

    /// Every refresh token presented so far, in the order of arrival.
    ///
    /// The log is kept for as long as the server runs.
    pub fn presentations(&self) -> Vec<Presentation> {
        self.presentations_after(0)
    }

    /// The same without the first `known` of them.
    pub fn presentations_after(&self, known: usize) -> Vec<Presentation> {
        self.shared().lock().ledger.presentations().get(known..).unwrap_or_default().to_vec()
    }

    /// Which token this is; `None` if it was never issued here.
    pub fn token_id(&self, refresh_token: &RefreshToken) -> Option<TokenId> {
        self.shared().lock().ledger.id(refresh_token.expose_secret())
    }

    /// How often a spent token was presented outside a grace and processed: at a strict provider each
    /// of these costs a family.
    pub fn duplicate_spends(&self) -> u64 {
        self.shared().lock().ledger.duplicate_spends()
    }

    /// What this refresh token is worth now.
    pub fn standing(&self, refresh_token: &RefreshToken) -> Standing {
        let now = self.shared().now();
        self.shared().lock().ledger.standing(refresh_token.expose_secret(), now)
    }

    /// The newest refresh token of the user's latest consent, dead or alive: what a client that lost
    /// nothing holds, if it has seen the latest answer.
    pub fn newest(&self, user: &str) -> Option<RefreshToken> {
        self.shared().lock().ledger.newest(user)
    }

    /// When this access token died by its lifetime, a refresh or the end of its family; the epoch if it
    /// was never issued here, `None` if it is alive.
    pub fn access_died_at(&self, access_token: &AccessToken) -> Option<SystemTime> {
        let now = self.shared().now();
        self.shared().lock().ledger.access_died_at(access_token.expose_secret(), now).map(SystemTime::from)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.0.address)
    }

    fn shared(&self) -> &IdpShared {
        &self.0.shared
    }
}

impl fmt::Debug for SimulatedIdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let profile = self.profile();
        f.debug_struct("SimulatedIdp")
            .field("profile", &profile.name())
            .field("address", &self.0.address)
            .finish_non_exhaustive()
    }
}
