//! Any single bit changes in any file that a killed process left: no token is lost without a word, none is wrong, and
//! nothing panics. Each change is noticed by the start, by the read that meets it, or by the check of the whole store;
//! or it changes nothing that is used.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use token_supervisor::{
    Keyring, RefreshToken, TokenKey, TokenSupervisor,
    testing::{Point, Profile, StoreFault, integrity},
};

use crate::{
    skip::variable,
    support::{World, copy_files, eventually, within},
};

/// How many bits are changed, one at a time (300).
const FLIPS: &str = "TOKEN_SUPERVISOR_TEST_FLIPS";
const SEED: &str = "TOKEN_SUPERVISOR_TEST_SEED";

const USERS: usize = 8;

/// What a killed process left, and the token that each grant must have at the end.
struct Left {
    world: World,
    tokens: Vec<(TokenKey, RefreshToken)>,
    /// As after a kill, where the database's log has everything, and as after an end in which the store took nothing more,
    /// where the database has it.
    folders: [TempDir; 2],
}

impl Left {
    /// Some grants are as connected, some were refreshed, and the response of the last one is in the journal alone.
    async fn new() -> Self {
        let world = World::new(Profile::keycloak());
        let panics = |point| assert!(point != Point::Journaled, "injected: an attempt");
        world.keyring.write_new(world.folder.path().join("tokens.keys")).unwrap();
        let supervisor = world.builder().at_points(panics).start().await.unwrap();
        let keys: Vec<_> = (0..USERS).map(|user| TokenKey::at("idp").user(format!("user-{user}"))).collect();
        for key in &keys {
            within(supervisor.connect(key, world.sim.consent(key.user()))).await.unwrap();
        }
        world.clock.advance(Duration::from_secs(60));
        for key in &keys[USERS / 2..USERS - 1] {
            within(supervisor.refresh_now(key)).await.unwrap();
        }
        supervisor.testing().store_fault(StoreFault::CommitsFail);
        let caller = tokio::spawn({
            let (supervisor, key) = (supervisor.clone(), keys[USERS - 1].clone());
            async move { supervisor.refresh_now(&key).await }
        });
        eventually("its response is in the journal", || supervisor.testing().journal_pending() == 1).await;
        caller.abort();
        // As after a kill: the process has not closed its files.
        let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        copy_files(world.folder.path(), folders[0].path());
        let tokens = keys.iter().map(|key| (key.clone(), world.sim.newest(key.user()).unwrap())).collect();
        within(supervisor.shutdown(Duration::from_secs(5))).await;
        copy_files(world.folder.path(), folders[1].path());
        Self { world, tokens, folders }
    }

    /// Changes a bit in a copy and looks at everything; returns how it was noticed.
    async fn flipped(&self, folder: &TempDir, file: &Path, bit: u64) -> &'static str {
        let copy = TempDir::new().unwrap();
        copy_files(folder.path(), copy.path());
        let path = copy.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();

        let Ok(keyring) = Keyring::from_file(copy.path().join("tokens.keys")) else { return "start" };
        let store = copy.path().join("tokens.db");
        let builder =
            TokenSupervisor::builder().store(format!("sqlite://{}", store.display())).keyring(keyring.clone());
        let started = builder.idp("idp", self.world.sim.idp()).clock(&self.world.clock).on_demand().start().await;
        let Ok(supervisor) = started else { return "start" };
        let mut noticed = (!supervisor.damaged_journals().is_empty()).then_some("start");
        let mut missing = Vec::new();
        for (key, token) in &self.tokens {
            // The journal's entries go to the store at the start.
            let flushed = || supervisor.testing().journal_pending() == 0;
            if noticed.is_none() {
                tokio::time::timeout(Duration::from_secs(2), eventually("stored", flushed)).await.ok();
            }
            match supervisor.testing().stored_refresh_token(key).await {
                Err(_) => noticed = noticed.or(Some("read")),
                Ok(Some(stored)) if stored == *token => {}
                Ok(found) => missing.push((key, found.is_some())),
            }
        }
        within(supervisor.shutdown(Duration::from_secs(5))).await;
        let findings = integrity(&store, &keyring);
        noticed = noticed.or(findings.as_ref().map_or(true, |findings| !findings.is_empty()).then_some("check"));
        assert!(
            missing.is_empty() || noticed.is_some(),
            "bit {bit} of {}: lost without a word: {missing:?}",
            file.display()
        );
        noticed.unwrap_or("nothing that is used")
    }
}

fn files_of(folder: &Path) -> Vec<(PathBuf, u64)> {
    let names = ["tokens.db", "tokens.db-wal", "tokens.db-last", "tokens.keys"].map(PathBuf::from);
    let journal = fs::read_dir(folder.join("tokens.journal")).unwrap();
    let journal = journal.map(|file| Path::new("tokens.journal").join(file.unwrap().file_name()));
    let all = names.into_iter().chain(journal).filter_map(|name| {
        let bits = folder.join(&name).metadata().ok()?.len() * 8;
        Some((name, bits))
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_changed_bit_loses_a_token_without_a_word() {
    let flips = variable(FLIPS).map_or(300, |flips| flips.parse::<u64>().expect("a number of bits"));
    let mut random = variable(SEED).map_or(1, |seed| seed.parse::<u64>().expect("the seed, a number"));
    let left = Left::new().await;
    let files = left.folders.each_ref().map(|folder| files_of(folder.path()));
    let choices: Vec<_> =
        left.folders.iter().zip(&files).flat_map(|(in_it, all)| all.iter().map(move |of| (in_it, of))).collect();
    let mut noticed = std::collections::BTreeMap::new();
    for flip in 0..flips {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Each file as often as the others, however small it is.
        let (folder, (file, bits)) = choices[(flip % choices.len() as u64) as usize];
        let by = left.flipped(folder, file, (random >> 16) % bits).await;
        *noticed.entry((file.extension().unwrap().display().to_string(), by)).or_insert(0) += 1;
    }
    println!("{noticed:?}");
    assert!(["db-wal", "journal", "keys"].iter().all(|file| noticed.contains_key(&((*file).to_owned(), "start"))));
}
