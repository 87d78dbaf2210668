//! The sockets that the server listens on.

#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::{io, net::TcpListener, path::PathBuf};

use token_supervisor::{
    config::Bind,
    web::{Api, Server},
};

use crate::{Exit, Failure};

/// Everything that is listened on. Nothing is answered yet.
pub(super) struct Listeners {
    tcp: Vec<TcpListener>,
    #[cfg(unix)]
    unix: Vec<UnixListener>,
    /// In the order of those.
    sockets: Sockets,
}

/// The files of Unix sockets; they go when this does.
#[derive(Default)]
pub(super) struct Sockets(Vec<PathBuf>);

impl Drop for Sockets {
    fn drop(&mut self) {
        for path in &self.0 {
            std::fs::remove_file(path).ok();
        }
    }
}

impl Listeners {
    /// # Errors
    /// Something else listens at one of them, or the operating system refuses it.
    pub(super) fn bind(all: &[Bind]) -> Result<Self, Failure> {
        let mut listeners = Self {
            tcp: Vec::new(),
            #[cfg(unix)]
            unix: Vec::new(),
            sockets: Sockets::default(),
        };
        for bind in all {
            let bound = match bind {
                Bind::Tcp(address) => TcpListener::bind(address).map(|listener| listeners.tcp.push(listener)),
                #[cfg(unix)]
                Bind::Unix(path) => unix::bind(path).map(|listener| {
                    listeners.unix.push(listener);
                    listeners.sockets.0.push(path.clone());
                }),
                _ => Err(io::ErrorKind::Unsupported.into()),
            };
            bound.map_err(|error| refused(bind, &error))?;
        }
        Ok(listeners)
    }

    /// Where they listen, as a client is told: with the ports that were chosen.
    pub(super) fn addresses(&self) -> Result<Vec<String>, Failure> {
        let tcp = self.tcp.iter().map(|listener| Ok(format!("http://{}", listener.local_addr()?)));
        let unix = self.sockets.0.iter().map(|path| Ok(format!("unix:{}", path.display())));
        tcp.chain(unix).collect()
    }

    /// Answers requests from now on.
    pub(super) fn serve(self, api: &Api) -> Result<(Vec<Server>, Sockets), Failure> {
        let mut servers = Vec::new();
        if !self.tcp.is_empty() {
            servers.push(Server::start(api.clone(), self.tcp)?);
        }
        #[cfg(unix)]
        for listener in self.unix {
            servers.push(Server::start_trusting(api.clone(), listener)?);
        }
        Ok((servers, self.sockets))
    }
}

fn refused(bind: &Bind, error: &io::Error) -> Failure {
    let next = match error.kind() {
        io::ErrorKind::AddrInUse => "stop what listens there, or choose another address: server.bind",
        io::ErrorKind::PermissionDenied => "choose a port above 1023, or a folder that you may write to: server.bind",
        _ => "choose an address of this machine: server.bind",
    };
    Failure::new(Exit::Failed, format!("cannot listen at {bind}: {error}"), next)
}

#[cfg(unix)]
mod unix {
    use std::{
        fs, io,
        os::unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
        path::Path,
    };

    /// A socket for this user alone, in the place of one that nobody listens at any more.
    pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        if fs::symlink_metadata(path).is_ok_and(|there| !is_socket(&there)) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else is there"));
        }
        // In a folder that nobody else may enter: at its place it never had another mode.
        let folder = tempfile::Builder::new().prefix(".").tempdir_in(path.parent().unwrap_or(Path::new("/")))?;
        let hidden = folder.path().join("s");
        let listener = UnixListener::bind(&hidden)?;
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))?;
        fs::rename(&hidden, path)?;
        Ok(listener)
    }

    fn is_socket(file: &fs::Metadata) -> bool {
        use std::os::unix::fs::FileTypeExt as _;
        file.file_type().is_socket()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_socket_is_its_owners_alone_and_takes_the_place_of_a_dead_one() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ts.sock");
            let first = bind(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            drop(first);
            let _second = bind(&path).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
        }

        #[test]
        fn a_file_is_left_alone() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("notes");
            fs::write(&path, "mine").unwrap();
            assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        }
    }
}
