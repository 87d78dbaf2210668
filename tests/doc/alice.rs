// Hidden setup that examples of the documentation include: a supervisor of a simulated GitLab where alice is connected.

use std::error::Error;

use token_supervisor::{
    Keyring, TokenKey, TokenSupervisor,
    testing::{Profile, SimulatedIdp},
};

pub(crate) fn with_alice(
    example: impl AsyncFnOnce(TokenSupervisor, TokenKey, SimulatedIdp) -> Result<(), Box<dyn Error>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = async {
        let (folder, simulated) = (tempfile::tempdir()?, SimulatedIdp::start(Profile::gitlab())?);
        let supervisor = TokenSupervisor::builder()
            .store(format!("sqlite://{}/tokens.db", folder.path().display()))
            .keyring(Keyring::generate())
            .idp("gitlab", simulated.idp())
            .start()
            .await?;
        let alice = TokenKey::at("gitlab").user("alice");
        supervisor.connect(&alice, simulated.consent("alice")).await?;
        example(supervisor.clone(), alice, simulated).await?;
        supervisor.shutdown(std::time::Duration::from_secs(5)).await;
        Ok::<(), Box<dyn Error>>(())
    };
    runtime.block_on(all).unwrap();
}
