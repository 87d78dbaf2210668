//! The HTTP API over the demo's grants, so that programs can request their tokens while the demo runs.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;
use token_supervisor::{
    TokenKey,
    web::{ApiKey, ApiKeys, Scope, Server, api},
};

use super::world::World;
use crate::{
    CliFailure, Exit,
    cli::{apikey::NewApiKey, quoted},
};

/// The running server, and the file with its API key.
pub(super) struct Served {
    server: Server,
    address: SocketAddr,
    key_file: PathBuf,
    /// The grant of the printed request.
    grant: TokenKey,
}

/// Opens the port before anything else is started; 0 means any free port.
pub(super) fn listen(port: u16) -> Result<TcpListener, CliFailure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::AddrInUse => format!("port {port} of 127.0.0.1 is in use by another program"),
            _ => format!("port {port} of 127.0.0.1 cannot be opened: {error}"),
        };
        CliFailure::new(Exit::Failed, text, "choose another port, or omit --port for any free port")
    })
}

impl Served {
    pub(super) fn start(listener: TcpListener, world: &World) -> Result<Self, CliFailure> {
        let key = NewApiKey::new()?;
        let key_file = write(&key, world.folder.path())?;
        let scopes = [Scope::Token, Scope::Grant, Scope::Admin, Scope::Metrics];
        let key = scopes.into_iter().fold(ApiKey::from_secret("demo", &key.text), ApiKey::scope);
        let address = listener.local_addr()?;
        let server = Server::start(api(world.supervisor.clone(), ApiKeys::new([key])), [listener])?;
        Ok(Self { server, address, key_file, grant: world.pairs[0].key.clone() })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns a request to try, ready to paste. It names the key's file, not the key: the output may end up in a log.
    pub(super) fn lines(&self) -> String {
        let (url, key_file) = (self.url(), self.key_file.display().to_string());
        let (idp, user) = (self.grant.idp(), self.grant.user());
        format!(
            "server  {url}   key {key_file}\n\
             try     curl --noproxy '*' -H \"Authorization: Bearer $(cat {})\" \\\n\
             {:10}{url}/v1/grants/{idp}/{user}/token",
            quoted(&key_file),
            "",
        )
    }

    /// Completes open requests and accepts no others.
    pub(super) async fn stop(self) -> Result<(), CliFailure> {
        Ok(self.server.stop().await?)
    }
}

/// Writes the key to a file that only its owner can read, as `tempfile` creates it.
fn write(key: &NewApiKey, folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join("api.key");
    let mut file = NamedTempFile::new_in(folder)?;
    writeln!(file, "{}", &*key.text)?;
    file.persist_noclobber(&path)?;
    Ok(path)
}
