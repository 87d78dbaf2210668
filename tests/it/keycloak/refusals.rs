//! Every way in which Keycloak says no, and what callers and operators hear of it.

use reqwest::StatusCode;
use tempfile::TempDir;
use token_supervisor::{Cause, Error, TokenSupervisor, presets};

use super::{
    key,
    server::{CLIENT, CLIENT_SECRET, Consent, Keycloak},
    start,
};
use crate::support::{stop, within};

/// What goes wrong with a grant.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    WrongSecret,
    UnknownClient,
    Garbage,
    Spent,
    LoggedOut,
    UserDisabled,
    OfflineRevoked,
}

use Trouble::{Garbage, LoggedOut, OfflineRevoked, Spent, UnknownClient, UserDisabled, WrongSecret};

/// Each with what the refresh endpoint says to it; the first two are ours to mend.
const ALL: [(Trouble, &str); 7] = [
    (WrongSecret, "unauthorized_client (401)"),
    (UnknownClient, "invalid_client (401)"),
    (Garbage, "invalid_grant (400)"),
    (Spent, "invalid_grant (400)"),
    (LoggedOut, "invalid_grant (400)"),
    (UserDisabled, "invalid_grant (400)"),
    (OfflineRevoked, "invalid_grant (400)"),
];

pub(super) async fn are_told_with_their_evidence(server: &Keycloak) {
    let user = server.add_user("refused").await;
    for (trouble, evidence) in ALL {
        let folder = TempDir::new().unwrap();
        let secret = if trouble == WrongSecret { "ts-test-secret-wrong" } else { CLIENT_SECRET };
        let supervisor = start(server, &folder, secret).await;
        let scope = if trouble == OfflineRevoked { "openid offline_access" } else { "openid" };
        let consent = server.consent("refused", scope).await;
        arrange(server, &supervisor, &user, trouble, consent).await;
        let error = within(supervisor.refresh_now(&key())).await.unwrap_err();
        let ours = matches!(trouble, WrongSecret | UnknownClient);
        match &error {
            Error::Unavailable { cause: Cause::ClientRefused, .. } if ours => {}
            Error::ReconnectRequired { reason, .. } if !ours && reason == "invalid_grant" => {}
            _ => panic!("{trouble:?}: {error}"),
        }
        let status = within(supervisor.status(&key())).await.unwrap();
        assert_eq!(status.evidence.unwrap().to_string(), evidence, "{trouble:?}");
        stop(supervisor).await;
        if trouble == UserDisabled {
            server.enable(&user, true).await;
        }
    }
}

async fn arrange(server: &Keycloak, supervisor: &TokenSupervisor, user: &str, trouble: Trouble, consent: Consent) {
    match trouble {
        WrongSecret => {}
        UnknownClient => {
            let unknown = presets::keycloak(server.url(), "app", "nobody", CLIENT_SECRET);
            supervisor.set_idp("sso", unknown).unwrap();
        }
        Garbage => {
            let garbage = consent.grant.refresh_token("ts-test-secret-garbage");
            within(supervisor.connect(&key(), garbage)).await.unwrap();
            return;
        }
        // By somebody else, who does not tell.
        Spent => assert_eq!(server.refresh(&consent.refresh_token).await, StatusCode::OK),
        LoggedOut => assert_eq!(server.log_out(&consent.refresh_token).await, StatusCode::NO_CONTENT),
        UserDisabled => server.enable(user, false).await,
        OfflineRevoked => {
            server.admin(reqwest::Method::DELETE, &format!("/users/{user}/consents/{CLIENT}"), None).await;
        }
    }
    within(supervisor.connect(&key(), consent.grant)).await.unwrap();
}
