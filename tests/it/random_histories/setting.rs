//! The identity providers of the histories, and how they are configured.

use std::time::Duration;

use token_supervisor::{
    Idp, RefreshSettings, Rotation,
    testing::{Kind, Profile},
};

pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) profile: fn() -> Profile,
    pub(super) configured: fn(Idp) -> Idp,
    pub(super) settings: fn() -> RefreshSettings,
}

pub(super) const SETTINGS: [Setting; 12] = [
    plain("strict", || Profile::oauth2(Kind::Strict)),
    plain("reject", || Profile::oauth2(Kind::Reject)),
    plain("same pair", || Profile::oauth2(Kind::SamePair { grace: LONG })),
    plain("last wins", || Profile::oauth2(Kind::LastWins { grace: LONG })),
    plain("retry safe", || Profile::oauth2(Kind::RetrySafe)),
    // Rotation ends the old access token.
    plain("gitlab", Profile::gitlab),
    plain("github", Profile::github),
    // Doubts are probed by introspection.
    plain("keycloak", Profile::keycloak),
    // A grace so short that the common times do not fit into it.
    Setting {
        settings: || {
            let settings = RefreshSettings::default().lease(seconds(6)).send_window(seconds(2));
            settings.settle(seconds(10)).attempt_timeout(seconds(8))
        },
        ..plain("short grace", || Profile::oauth2(Kind::SamePair { grace: seconds(30) }))
    },
    // A grace shorter than the lease, of which nobody knows.
    Setting {
        configured: |idp| idp.reuse_grace(Duration::ZERO),
        ..plain("unknown grace", || Profile::oauth2(Kind::LastWins { grace: seconds(10) }))
    },
    plain("not rotating", || Profile::oauth2(Kind::NotRotating)),
    Setting {
        configured: |idp| idp.rotation(Rotation::Never),
        ..plain("never rotating", || Profile::oauth2(Kind::NotRotating))
    },
];

impl Setting {
    /// Whether an answer that was lost after processing can cost the grant: nobody can ask for it again, or perhaps
    /// not in time.
    pub(super) fn forgives(&self) -> bool {
        let kind = (self.profile)().kind;
        kind == Kind::RetrySafe || kind.grace().is_some_and(|grace| grace >= LONG)
    }

    /// Whether access tokens can die before their end without anybody's wish.
    pub(super) fn ends_access_tokens(&self) -> bool {
        let profile = (self.profile)();
        profile.ends_old_access || !(self.forgives() || matches!(profile.kind, Kind::Reject | Kind::NotRotating))
    }

    /// Whether a request without answer may simply be repeated.
    pub(super) fn may_repeat(&self) -> bool {
        self.name == "never rotating"
    }

    pub(super) fn answers_in_forms(&self) -> bool {
        self.name == "github"
    }

    /// Whether it may begin to rotate.
    pub(super) fn may_rotate(&self) -> bool {
        self.name == "not rotating"
    }
}

const fn plain(name: &'static str, profile: fn() -> Profile) -> Setting {
    Setting { name, profile, configured: |idp| idp, settings: RefreshSettings::default }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Longer than any history.
const LONG: Duration = seconds(10_000_000);
