//! A token in a file, and kept fresh there: for programs that read their credentials from one.

use std::{
    convert::Infallible,
    io::{self, Write as _},
    path::Path,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use token_supervisor::{TokenKey, api::TokenBody};
use zeroize::Zeroizing;

use crate::cli::{
    CliFailure, Exit, Out,
    backend::Backend,
    show::note,
    time::{self, for_people, pause},
};

/// How soon it is tried again what did not work.
const AGAIN: Duration = Duration::from_secs(5);

/// A file that holds a token, as `form` writes it.
pub(super) struct TokenFile<'a, F> {
    pub(super) path: &'a Path,
    pub(super) key: &'a TokenKey,
    pub(super) form: F,
    pub(super) out: Out,
}

/// What is said of a token that was written.
#[derive(Serialize)]
struct Written<'a> {
    file: &'a Path,
    generation: u64,
    #[serde(with = "time::optional")]
    expires_at: Option<SystemTime>,
}

impl<F: Fn(&TokenBody) -> Zeroizing<String>> TokenFile<'_, F> {
    /// Whoever reads it sees the token before or this one, whole.
    pub(super) fn write(&self, token: &TokenBody) -> Result<(), CliFailure> {
        replace(self.path, (self.form)(token).as_bytes()).map_err(|error| {
            CliFailure::new(
                Exit::Failed,
                format!("cannot write {}: {error}", self.path.display()),
                "see that its folder is there, and that you may write there",
            )
        })?;
        let TokenBody { generation, expires_at, .. } = *token;
        self.out.result(&Written { file: self.path, generation, expires_at }, || {
            let end = expires_at.map_or_else(|| "end unknown".to_owned(), |end| format!("expires {}", for_people(end)));
            format!("{}: token g{generation}, {end}\n", self.path.display())
        })
    }

    /// Waits for the token after that of this generation, and writes it; the generation of what stands there then.
    async fn next(
        &self,
        backend: &Backend,
        generation: u64,
        ask: impl AsyncFn() -> Result<TokenBody, CliFailure>,
    ) -> Result<u64, CliFailure> {
        backend.changed(self.key, generation).await?;
        let token = ask().await?;
        if token.generation != generation || !self.path.exists() {
            self.write(&token)?;
        }
        Ok(token.generation)
    }

    /// Writes each token that follows this one. Ends when there will be none without the user; while the server or the
    /// identity provider is in trouble, the file stays as it is.
    pub(super) async fn keep_fresh(
        &self,
        backend: &Backend,
        mut generation: u64,
        ask: impl AsyncFn() -> Result<TokenBody, CliFailure>,
    ) -> Result<Infallible, CliFailure> {
        let mut in_trouble = false;
        loop {
            match self.next(backend, generation, &ask).await {
                Ok(written) => {
                    if std::mem::take(&mut in_trouble) {
                        note("it works again");
                    }
                    generation = written;
                }
                Err(failure) if matches!(failure.exit, Exit::Later | Exit::Failed) => {
                    if !std::mem::replace(&mut in_trouble, true) {
                        note(&format!("{}; the file stays as it is, and it is tried again", failure.text));
                    }
                    pause(AGAIN).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// By a rename, so that nobody ever reads half of it. For its owner alone, whatever was there.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Readable by its owner alone, as `tempfile` makes it.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
