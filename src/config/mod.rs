//! The configuration of the program: a file, the environment over it, and checks of the whole.
//!
//! Embedders do not need it: [`Config::builder`] returns the [`Builder`] that an embedder writes by hand.
//!
//! ```
//! use token_supervisor::config::Config;
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("token-supervisor.toml");
//! # std::fs::write(&path, Config::template(Some("github")).unwrap())?;
//! # let environment = [("GITHUB_CLIENT_ID", "client"), ("GITHUB_CLIENT_SECRET", "ts-test-secret-client")];
//! # let environment = environment.map(|(name, value)| (name.into(), value.into()));
//! // In a program: Config::load(None, std::env::vars_os())
//! let config = Config::load(Some(&path), environment)?;
//! assert_eq!(config.server().bind[0].to_string(), "127.0.0.1:8080");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `node` turns the file, with the environment laid over it, into a tree in which each value knows its place; `section`
//! returns the values by name, and `field` reads each as its type; `server`, `idp` and `refresh` know the settings and check
//! those that depend on each other. To add a setting, read it where its section is read.
//!
//! Invariants: unknown settings are refused; all problems are reported together, each with its place and without its
//! value; a [`Config`] that exists has passed every check that needs nothing but itself.

mod error;
mod exposure;
mod field;
mod idp;
mod node;
mod preset;
mod refresh;
mod reload;
mod schema;
mod section;
mod server;
mod source;
mod template;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, ffi::OsString, fmt, path::Path, path::PathBuf, time::Duration};

pub use self::{
    error::{ConfigError, ConfigProblem, Origin},
    exposure::ExposedFile,
    reload::{Changes, Reloader},
    server::{Bind, ServerSettings},
};
use self::{
    section::{Section, SectionReading},
    source::{Environment, PLACES, Source, ValueFiles},
};
pub use crate::apikey::{ApiKey, Scope};
use crate::{
    error::Error,
    idp::Idp,
    journal,
    keyring::Keyring,
    store::{self, Migrate},
    supervisor::{Builder, Limits, RefreshSettings, TokenSupervisor},
};

/// A configuration that was read and fits together.
#[derive(Clone)]
pub struct Config {
    file: Option<PathBuf>,
    deployment: Option<String>,
    server: ServerSettings,
    store: String,
    migrate: Migrate,
    journal: PathBuf,
    keyring: PathBuf,
    refresh: RefreshSettings,
    limits: Limits,
    retention: Retention,
    log: Log,
    /// Each complete: with the times of `[refresh]` where it has none.
    idps: BTreeMap<String, Idp>,
    shown: Vec<Shown>,
    files: ValueFiles,
}

/// A setting as it is shown to operators.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shown {
    /// Its name, such as `server.bind`.
    pub path: String,
    /// Its value; of a secret `***`.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
}

/// For how long what is no longer needed is kept, in days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// What happened to a grant (90).
    pub timeline_days: usize,
    /// Grants that were disconnected (30).
    pub tombstone_days: usize,
}

/// What the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Log {
    /// How a line is written.
    pub format: LogFormat,
    /// How users are named in it.
    pub user: LogUser,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// Lines of text.
    Text,
    /// For machines.
    Json,
}

/// How users are named in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogUser {
    /// By a digest.
    Hash,
    /// As they are.
    Plain,
}

impl Config {
    /// Reads the file at `path`, or else at `$TOKEN_SUPERVISOR_CONFIG`, `./token-supervisor.toml` or
    /// `/etc/token-supervisor/config.toml`, and what `environment` says instead of it
    /// (`TOKEN_SUPERVISOR__SECTION__KEY`). Without a file the environment alone may say everything.
    ///
    /// Paths in the file are relative to its folder, those in the environment to the working directory.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let source = Source::find(path, Environment::new(environment), &PLACES)?;
        Self::read(&source, &source.text)
    }

    /// Returns the file that [`load`](Self::load) reads, without reading it; `None` if everything comes from the environment.
    ///
    /// # Errors
    /// There is no such file.
    pub fn find(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Option<PathBuf>, ConfigError> {
        Ok(Source::find(path, Environment::new(environment), &PLACES)?.path)
    }

    /// Reads `text` as if it stood in the file of `source`.
    fn read(source: &Source, text: &str) -> Result<Self, ConfigError> {
        let mut tree = node::parse(text, source.path.as_deref().unwrap_or(Path::new("")))?;
        node::override_by(&source.environment, &mut tree)?;
        let folder = source.path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let mut reading = SectionReading::new(&source.environment, folder);
        let mut config = reading.read(tree, Self::read_all);
        let SectionReading { files, problems, shown, .. } = reading;
        ConfigError::unless_empty(problems)?;
        (config.file, config.shown, config.files) = (source.path.clone(), shown, files);
        Ok(config)
    }

    fn read_all(all: &mut Section<'_, '_>) -> Self {
        let mut deployment = None;
        all.read("deployment", &mut deployment);
        let (store, migrate) = all.section("store", read_store);
        // A server has no folder beside which the journal could be.
        let beside = store::sqlite_path(&store).map(store::journal_beside);
        let is_beside = beside.is_some();
        let beside = beside.unwrap_or_else(|| PathBuf::from("token-supervisor.journal"));
        let mut journal = (!is_beside || all.is_shown("store.url", &store)).then(|| beside.clone());
        let mut keep_hours = 48;
        all.section("journal", |section| {
            if section.has("dir") || !is_beside {
                section.read_path("dir", &mut journal, |folder, dir| dir.as_ref().map(|dir| folder.join(dir)));
            } else {
                // Beside the store.
                section.read("dir", &mut journal);
            }
            section.read("keep_hours", &mut keep_hours);
        });
        let journal = journal.unwrap_or(beside);
        let keyring = all.section("keyring", |section| {
            let mut file = PathBuf::from("token-supervisor.keys");
            section.read_path("file", &mut file, |folder, file| folder.join(file));
            file
        });
        let refresh = all.section("refresh", refresh::read);
        let mut limits = all.section("limits", read_limits);
        limits.history_kept = hours(keep_hours);
        let retention = all.section("retention", |section| {
            let mut retention = Retention { timeline_days: 90, tombstone_days: 30 };
            section.read("timeline_days", &mut retention.timeline_days);
            section.read("tombstone_days", &mut retention.tombstone_days);
            retention
        });
        let log = all.section("log", |section| {
            let mut log = Log { format: LogFormat::Text, user: LogUser::Hash };
            section.read("format", &mut log.format);
            section.read("user", &mut log.user);
            log
        });
        let mut idps = BTreeMap::new();
        all.named("idp", idp::valid_name, |name, section| {
            idps.insert(name.to_owned(), idp::read(section, &refresh));
        });
        let server = all.section("server", |section| server::read(section, |idp| idps.contains_key(idp)));
        for later in ["connect", "webhook"] {
            all.not_yet(later);
        }
        let (file, shown, files) = (None, Vec::new(), ValueFiles::new());
        Self {
            file,
            deployment,
            server,
            store,
            migrate,
            journal,
            keyring,
            refresh,
            limits,
            retention,
            log,
            idps,
            shown,
            files,
        }
    }

    /// What starts a supervisor with these settings.
    ///
    /// # Errors
    /// The key ring cannot be read; the error has the setting that points there.
    pub fn builder(&self) -> Result<Builder, ConfigError> {
        let builder = TokenSupervisor::builder()
            .store(&self.store)
            .migrate(self.migrate)
            .journal(&self.journal)
            .keyring(self.read_keyring()?)
            .refresh(self.refresh.clone())
            .limits(self.limits)
            .plain_users(self.log.user == LogUser::Plain)
            .tombstones_kept(days(self.retention.tombstone_days));
        let builder = match &self.deployment {
            Some(name) => builder.deployment(name),
            None => builder,
        };
        Ok(self.idps().fold(builder, |builder, (name, idp)| builder.idp(name, idp.clone())))
    }

    /// Checks what the settings point at: whether the key ring can be read. All else was checked when they were read,
    /// or is when the supervisor starts.
    ///
    /// # Errors
    /// What is wrong, and the setting that points there.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.read_keyring().map(drop)
    }

    fn read_keyring(&self) -> Result<Keyring, ConfigError> {
        let path = "keyring.file";
        Keyring::from_file(&self.keyring).map_err(|error| {
            let shown = self.shown.iter().find(|shown| shown.path == path);
            ConfigError::one(shown.map_or(Origin::Default, |shown| shown.origin.clone()), path, error.to_string())
        })
    }

    /// The names of the migrations that the store's schema lacks: all of them where there is no schema yet. Changes nothing,
    /// and may be asked while a supervisor runs. Blocks.
    ///
    /// # Errors
    /// The store cannot be read, or a newer version wrote it.
    pub fn pending_migrations(&self) -> Result<Vec<String>, Error> {
        store::pending_migrations(&self.store)
    }

    /// Checks every page of the store and every row, and looks for damaged journals that were set aside. Returns the
    /// defects; nothing of a store that does not exist. Changes nothing, and can be called while a supervisor runs. Blocks,
    /// for seconds with many hundred thousand grants.
    ///
    /// # Errors
    /// The keyring cannot be read, or the store cannot be opened.
    pub fn integrity(&self) -> Result<Vec<String>, Error> {
        let mut wrong = Vec::new();
        if self.store_file().is_none_or(Path::exists) {
            let keyring = self.read_keyring().map_err(|error| Error::Configuration(error.to_string()))?;
            wrong = store::integrity(&self.store, &keyring)?;
        }
        wrong.extend(journal::set_aside(&self.journal).into_iter().map(|damaged| {
            let path = damaged.display();
            format!("{path} is a damaged journal: responses in its damaged part are not stored; put back a good copy, or remove it")
        }));
        Ok(wrong)
    }

    /// Brings the store's schema up to date, as a supervisor does when it starts, and creates a store and a journal that do
    /// not exist. Blocks.
    ///
    /// # Errors
    /// The store or the journal cannot be opened, or a process has it.
    pub fn migrate(&self) -> Result<(), Error> {
        store::migrate(&self.store)?;
        Ok(journal::create_folder(&self.journal)?)
    }

    /// The file that was read; none if everything came from the environment.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The settings in effect, and where each came from. No secret is among them.
    pub fn show(&self) -> &[Shown] {
        &self.shown
    }

    /// The name of this deployment; see [`Builder::deployment`].
    pub fn deployment(&self) -> Option<&str> {
        self.deployment.as_deref()
    }

    /// The server's settings.
    pub fn server(&self) -> &ServerSettings {
        &self.server
    }

    /// The store's URL. It may have a password within.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// The store's file; none of a PostgreSQL store.
    pub fn store_file(&self) -> Option<&Path> {
        store::sqlite_path(&self.store).map(Path::new)
    }

    /// The journal's folder.
    pub fn journal(&self) -> &Path {
        &self.journal
    }

    /// The key file.
    pub fn keyring(&self) -> &Path {
        &self.keyring
    }

    /// For how long what is no longer needed is kept.
    pub fn retention(&self) -> Retention {
        self.retention
    }

    /// What the log looks like.
    pub fn log(&self) -> Log {
        self.log
    }

    /// The identity providers in the order of their names.
    pub fn idps(&self) -> impl Iterator<Item = (&str, &Idp)> {
        self.idps.iter().map(|(name, idp)| (name.as_str(), idp))
    }
}

fn read_store(section: &mut Section<'_, '_>) -> (String, Migrate) {
    let mut url = "sqlite://token-supervisor.db".to_owned();
    section.read_path("url", &mut url, |folder, url| store::sqlite_url_within(folder, url));
    if store::is_postgres(&url) {
        if let Err(Error::Configuration(wrong)) = store::check_url(&url) {
            section.wrong("url", wrong);
        }
    } else if matches!(store::sqlite_path(&url), None | Some("" | ":memory:")) {
        let form = "must be sqlite://PATH, such as sqlite://token-supervisor.db, or postgres://USER@HOST/DATABASE";
        section.wrong("url", form);
    }
    let mut migrate = Migrate::default_of(&url);
    section.read("migrate", &mut migrate);
    (url, migrate)
}

fn hours(hours: usize) -> Duration {
    Duration::from_secs((hours as u64).saturating_mul(3_600))
}

fn days(days: usize) -> Duration {
    Duration::from_secs((days as u64).saturating_mul(24 * 3_600))
}

fn read_limits(section: &mut Section<'_, '_>) -> Limits {
    let mut limits = Limits::default();
    section.read("waiters_per_grant", &mut limits.waiters_per_grant);
    section.read("requests_in_flight", &mut limits.requests_in_flight);
    section.read("idle_after_seconds", &mut limits.idle_after);
    section.read("sweep_every_seconds", &mut limits.sweep_every);
    section.read("served_unheard_seconds", &mut limits.served_unheard);
    if limits.sweep_every.is_zero() {
        section.wrong("sweep_every_seconds", "must be longer than 0");
    }
    limits
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.shown).finish()
    }
}
