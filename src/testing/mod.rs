//! Support for tests and demonstrations: a simulated identity provider with the quirks and faults of
//! real ones, and a clock to advance by hand.
//!
//! [`SimulatedIdp`] serves HTTP/1.1 on a port of 127.0.0.1, from its own thread. A [`Profile`] says
//! which provider it imitates, a [`Kind`] what a second use of a refresh token does, and a [`Fault`]
//! what goes wrong. Afterwards, [`SimulatedIdp::presentations`] lists what the client sent, and
//! [`SimulatedIdp::standing`] says whether the tokens that the client kept are still valid.
//! [`SimulatedIdp::api_url`] is the URL of a resource server that takes the access tokens.
//!
//! ```
//! use token_supervisor::testing::{Profile, SimulatedIdp, Standing};
//!
//! let idp = SimulatedIdp::start(Profile::gitlab())?;
//! let grant = idp.consent("alice"); // the grant to connect
//! assert_eq!(idp.requests(), 0);
//! # let _ = grant;
//! # assert_eq!(idp.standing(&"made up".into()), Standing::Unknown);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Every secret made here starts with `ts-test-secret-`, so that a test can look for leaks.
//!
//! Read `family` first (kinds and their ledger, without I/O), then `fault`, `profile` (data) and `endpoint`.
//! A new profile is a table in `profile::wire`; a new fault is a variant that `endpoint` handles.

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

#[cfg(feature = "sqlite")]
pub use self::control::integrity;
pub use self::control::{Control, Kept, Point, StoreFault, kept, stored_refresh_token};
pub(crate) use self::hooks::Hooks;
use self::{answer::SimulatedResponse, server::IdpServer, state::IdpShared};
pub use self::{
    family::Standing,
    fault::{Canned, Chaos, Fault, Oddity},
    presentation::{Outcome, Presentation, TokenId},
    profile::{Kind, Profile},
};
pub use crate::clock::ManualClock;
use crate::model::{AccessToken, Expiry, Grant, RefreshToken};
use crate::{Idp, Rotation, presets};

/// A simulated identity provider. Clones share one server; dropping the last clone stops it.
///
/// The provider's clock starts at the time of the given one and then runs evenly: a step of the wall
/// clock affects the program under test, not the provider.
#[derive(Clone)]
pub struct SimulatedIdp(Arc<IdpServer>);

impl SimulatedIdp {
    /// Starts a provider that uses the system clock.
    ///
    /// # Errors
    /// The port cannot be opened, or the thread or its runtime cannot be created.
    pub fn start(profile: Profile) -> io::Result<Self> {
        IdpServer::start(profile, None).map(Arc::new).map(Self)
    }

    /// Starts a provider whose time passes only when `clock` is advanced.
    ///
    /// Once a request is in the log, its timers run: the clock may be advanced at once.
    ///
    /// # Errors
    /// The port cannot be opened, or the thread or its runtime cannot be created.
    pub fn start_with_clock(profile: Profile, clock: &ManualClock) -> io::Result<Self> {
        IdpServer::start(profile, Some(clock)).map(Arc::new).map(Self)
    }

    /// Returns the settings for a supervisor: the matching preset with the URLs of this server.
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
        let (introspects, has_userinfo) = (idp.introspection_url.is_some(), idp.userinfo_url.is_some());
        let idp = idp.token_url(self.token_url()).revocation_url(self.revocation_url());
        let idp = if introspects { idp.introspection_url(self.introspection_url()) } else { idp };
        let idp = if has_userinfo { idp.userinfo_url(self.userinfo_url()) } else { idp };
        idp.reuse_grace(grace).retry_safe(profile.kind == Kind::RetrySafe)
    }

    /// Returns the profile that the provider was started with.
    pub fn profile(&self) -> &Profile {
        &self.shared().profile
    }

    /// Returns the URL of the token endpoint (POST, `grant_type=refresh_token`).
    pub fn token_url(&self) -> String {
        self.url(endpoint::TOKEN)
    }

    /// Returns the URL of the revocation endpoint (RFC 7009).
    pub fn revocation_url(&self) -> String {
        self.url(endpoint::REVOKE)
    }

    /// Returns the URL of the introspection endpoint (RFC 7662): `{"active": …}`, without spending a token.
    pub fn introspection_url(&self) -> String {
        self.url(endpoint::INTROSPECT)
    }

    /// Returns the URL of a resource: `{"user": …, "login": …}` for a valid access token, 401 for any other.
    pub fn userinfo_url(&self) -> String {
        self.url(resource::USER)
    }

    /// Returns the base URL of a resource server like GitHub's API: `/user` returns the user of the access token,
    /// `/user/repos` the user's repositories. Both respond 401 to an invalid token.
    pub fn api_url(&self) -> String {
        self.url("")
    }

    /// Simulates a user's consent: starts a token family and returns the grant for an application to connect.
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

    /// Simulates a user's consent: starts a token family and returns the raw body of the token response.
    pub fn consent_answer(&self, user: &str) -> Vec<u8> {
        let now = self.shared().now();
        let answer = self.shared().lock().ledger.consent(user, now);
        SimulatedResponse::tokens(self.profile(), &answer, None, None).body
    }

    /// Ends every token family of the user, as an administrator does.
    pub fn end_family(&self, user: &str) {
        let now = self.shared().now();
        self.shared().lock().ledger.end_family(user, now);
    }

    /// Changes the kind, e.g. to a provider that starts to rotate.
    pub fn set_kind(&self, kind: Kind) {
        self.shared().lock().ledger.set_kind(kind);
    }

    /// Injects this fault into the next refresh that no earlier call has claimed.
    pub fn next(&self, fault: Fault) {
        self.shared().lock().faults.queue.push_back(fault);
    }

    /// Injects this fault into every refresh until changed, except those that [`next`](Self::next) claims.
    pub fn always(&self, fault: Option<Fault>) {
        self.shared().lock().faults.always = fault;
    }

    /// Injects this mix into refreshes that neither [`next`](Self::next) nor [`always`](Self::always) claims.
    pub fn chaos(&self, chaos: Chaos) {
        self.shared().lock().faults.chaos = chaos;
    }

    /// Removes all faults that were set so far.
    pub fn forget_faults(&self) {
        let mut shared = self.shared().lock();
        shared.faults.queue.clear();
        shared.faults.always = None;
        shared.faults.chaos = Chaos::default();
    }

    /// Lets the requests proceed that hang now.
    pub fn release(&self) {
        let presented = self.shared().lock().ledger.presentations().len();
        self.release_first(presented);
    }

    /// Like [`release`](Self::release), for requests among the first `presented`
    /// [`presentations`](Self::presentations) only.
    pub fn release_first(&self, presented: usize) {
        self.shared().released.send_modify(|release| release.go = release.go.max(presented));
    }

    /// Drops the requests among the first `presented` [`presentations`](Self::presentations) that hang now:
    /// closes their connections without a response, and never processes those that were not processed yet.
    pub fn abandon_first(&self, presented: usize) {
        self.shared().released.send_modify(|release| release.abandoned = release.abandoned.max(presented));
    }

    /// Makes the revocation endpoint respond with this status instead of revoking, until changed.
    pub fn fail_revocations(&self, status: Option<u16>) {
        self.shared().lock().revocation_status = status;
    }

    /// Makes the introspection endpoint respond with this status instead of an answer, until changed.
    pub fn fail_introspections(&self, status: Option<u16>) {
        self.shared().lock().introspection_status = status;
    }

    /// Returns how often each fault was injected.
    pub fn faults_injected(&self) -> BTreeMap<&'static str, u64> {
        self.shared().lock().faults.injected.clone()
    }

    /// Returns the number of complete POSTs to the token endpoint, processed or not.
    pub fn requests(&self) -> u64 {
        self.shared().lock().requests
    }

    /// Returns the number of complete POSTs to the revocation endpoint.
    pub fn revocations(&self) -> u64 {
        self.shared().lock().revocations
    }

    /// Returns the number of complete POSTs to the introspection endpoint.
    pub fn introspections(&self) -> u64 {
        self.shared().lock().introspections
    }

    /// Returns every refresh token presented so far, in the order of arrival.
    ///
    /// The log is kept for as long as the server runs.
    pub fn presentations(&self) -> Vec<Presentation> {
        self.presentations_after(0)
    }

    /// Returns the presentations after the first `known`.
    pub fn presentations_after(&self, known: usize) -> Vec<Presentation> {
        self.shared().lock().ledger.presentations().get(known..).unwrap_or_default().to_vec()
    }

    /// Returns the token's ID; `None` if the token was never issued here.
    pub fn token_id(&self, refresh_token: &RefreshToken) -> Option<TokenId> {
        self.shared().lock().ledger.id(refresh_token.expose_secret())
    }

    /// Returns how often a spent token was presented outside a grace period and processed: at a strict
    /// provider, each time ends a family.
    pub fn duplicate_spends(&self) -> u64 {
        self.shared().lock().ledger.duplicate_spends()
    }

    /// Returns the current standing of this refresh token.
    pub fn standing(&self, refresh_token: &RefreshToken) -> Standing {
        let now = self.shared().now();
        self.shared().lock().ledger.standing(refresh_token.expose_secret(), now)
    }

    /// Returns the newest refresh token of the user's latest consent, valid or not: the one that a client
    /// holds if it received every response.
    pub fn newest(&self, user: &str) -> Option<RefreshToken> {
        self.shared().lock().ledger.newest(user)
    }

    /// Returns when this access token became invalid by expiry, a refresh or the end of its family; the
    /// epoch if it was never issued here, `None` if it is valid.
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
