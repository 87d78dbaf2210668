//! Keeps a token in a file, for programs that read their credentials from one.

use std::{
    convert::Infallible,
    path::Path,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use token_supervisor::{TokenKey, api::TokenBody};
use zeroize::Zeroizing;

use crate::cli::{
    CliFailure, Exit, Out,
    backend::Backend,
    private_file,
    show::note,
    time::{for_people, pause},
};

/// The pause before a failed request for a token is retried.
const AGAIN: Duration = Duration::from_secs(5);

/// A file that holds a token in the format that `form` produces.
pub(super) struct TokenFile<'a, F> {
    pub(super) path: &'a Path,
    pub(super) key: &'a TokenKey,
    pub(super) form: F,
    pub(super) out: Out,
}

/// The report of a token that was written.
#[derive(Serialize)]
struct Written<'a> {
    file: &'a Path,
    generation: u64,
    #[serde(with = "token_supervisor::api::time::optional")]
    expires_at: Option<SystemTime>,
}

impl<F: Fn(&TokenBody) -> Zeroizing<String>> TokenFile<'_, F> {
    /// Writes the token. A reader sees either the whole old file or the whole new one.
    pub(super) fn write(&self, token: &TokenBody) -> Result<(), CliFailure> {
        private_file::replace(self.path, (self.form)(token).as_bytes())?;
        let TokenBody { generation, expires_at, .. } = *token;
        self.out.result(&Written { file: self.path, generation, expires_at }, || {
            let end =
                expires_at.map_or_else(|| "expiry unknown".to_owned(), |end| format!("expires {}", for_people(end)));
            format!("{}: generation {generation}, {end}\n", self.path.display())
        })
    }

    /// Waits for the token after this generation and writes it. Returns the generation that the file then holds.
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

    /// Writes each token that follows this one. Returns when no further token can be had without the user. While the
    /// server or the identity provider fails, the file keeps its content.
    pub(super) async fn keep_fresh(
        &self,
        backend: &Backend,
        mut generation: u64,
        ask: impl AsyncFn() -> Result<TokenBody, CliFailure>,
    ) -> Result<Infallible, CliFailure> {
        let mut failing = false;
        loop {
            match self.next(backend, generation, &ask).await {
                Ok(written) => {
                    if std::mem::take(&mut failing) {
                        note("requests for tokens succeed again");
                    }
                    generation = written;
                }
                Err(failure) if matches!(failure.exit, Exit::Later | Exit::Failed) => {
                    if !std::mem::replace(&mut failing, true) {
                        note(&format!("{}; the file is unchanged; retrying", failure.text));
                    }
                    pause(AGAIN).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}
