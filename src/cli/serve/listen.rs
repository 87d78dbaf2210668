//! The sockets that the server listens on.
//!
//! Invariants: the file of a Unix socket exists at its path only while this process has the store open, so that of two
//! processes that start, the one with the store has its socket there. No process removes the socket of another.

use std::{fmt, io, net::TcpListener};

use futures_util::future::{join_all, select_all};
use token_supervisor::{
    config::Bind,
    web::{Api, Server},
};

use crate::{CliFailure, Exit};

/// The bound sockets, before requests are answered.
#[derive(Default)]
pub(super) struct Listeners {
    tcp: Vec<TcpListener>,
    #[cfg(unix)]
    unix: Vec<unix::Hidden>,
}

/// The running HTTP servers.
#[derive(Default)]
pub(super) struct Serving {
    servers: Vec<Server>,
    #[cfg(unix)]
    sockets: Vec<unix::Socket>,
}

impl Listeners {
    /// # Errors
    /// Another program listens on one of the addresses, or the operating system refuses it.
    pub(super) fn bind(all: &[Bind]) -> Result<Self, CliFailure> {
        let mut listeners = Self::default();
        for bind in all {
            let bound = match bind {
                Bind::Tcp(address) => TcpListener::bind(address).map(|listener| listeners.tcp.push(listener)),
                #[cfg(unix)]
                Bind::Unix(path) => unix::Hidden::bind(path).map(|socket| listeners.unix.push(socket)),
                _ => Err(io::ErrorKind::Unsupported.into()),
            };
            bound.map_err(|error| refused(bind, &error))?;
        }
        Ok(listeners)
    }

    /// Returns the addresses as clients use them, with the ports that the operating system chose.
    pub(super) fn addresses(&self) -> Result<Vec<String>, CliFailure> {
        let tcp = self.tcp.iter().map(|listener| Ok(format!("http://{}", listener.local_addr()?)));
        #[cfg(unix)]
        let tcp = tcp.chain(self.unix.iter().map(|socket| Ok(socket.address().to_string())));
        tcp.collect()
    }

    /// Starts the servers.
    ///
    /// # Errors
    /// The operating system refuses it. Servers that have started are in `serving` all the same.
    pub(super) fn serve(self, api: &Api, serving: &mut Serving) -> Result<(), CliFailure> {
        if !self.tcp.is_empty() {
            serving.servers.push(Server::start(api.clone(), self.tcp)?);
        }
        #[cfg(unix)]
        for hidden in self.unix {
            let bind = hidden.address();
            let (listener, socket) = hidden.show().map_err(|error| refused(&bind, &error))?;
            serving.sockets.push(socket);
            serving.servers.push(Server::start_trusting(api.clone(), listener)?);
        }
        Ok(())
    }
}

impl Serving {
    /// Waits until a server has ended without being stopped.
    pub(super) async fn ended(&self) {
        select_all(self.servers.iter().map(|server| Box::pin(server.ended()))).await;
    }

    /// Accepts no more connections, answers open requests, and removes the socket files.
    pub(super) async fn stop(self) -> Result<(), CliFailure> {
        let stopped = join_all(self.servers.into_iter().map(Server::stop)).await;
        #[cfg(unix)]
        drop(self.sockets);
        let stopped: io::Result<()> = stopped.into_iter().collect();
        stopped.map_err(|error| {
            tracing::error!(%error, "the HTTP server failed");
            failed(error)
        })
    }
}

pub(super) fn failed(why: impl fmt::Display) -> CliFailure {
    CliFailure::new(Exit::Failed, format!("the HTTP server failed: {why}"), "start it again; its log has the cause")
}

fn refused(bind: &Bind, error: &io::Error) -> CliFailure {
    let next = match error.kind() {
        io::ErrorKind::AddrInUse => "stop the program that listens there, or set server.bind to another address",
        io::ErrorKind::PermissionDenied => "set server.bind to a port above 1023, or to a folder that you can write to",
        io::ErrorKind::NotFound => "create the folder, or set server.bind to another one",
        io::ErrorKind::InvalidInput => "set server.bind to a shorter path",
        io::ErrorKind::AlreadyExists => "remove the file, or set server.bind to another path",
        _ => "set server.bind to an address of this machine",
    };
    CliFailure::new(Exit::Failed, format!("cannot listen on {bind}: {error}"), next)
}

#[cfg(unix)]
mod unix {
    use std::{
        fs, io,
        os::unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::{SocketAddr, UnixListener, UnixStream},
        },
        path::{Path, PathBuf},
    };

    use tempfile::TempDir;
    use token_supervisor::config::Bind;

    /// A socket that only this user can open, not yet moved to its path.
    pub(super) struct Hidden {
        /// Only this user can enter it, so the socket has mode 0600 before anybody else can see it.
        folder: TempDir,
        listener: UnixListener,
        path: PathBuf,
    }

    /// The file of a socket; removed when this is dropped.
    pub(super) struct Socket {
        path: PathBuf,
        /// The device and the inode of the file.
        file: (u64, u64),
    }

    impl Hidden {
        /// # Errors
        /// Another program listens on the path, a file that is no socket exists there, or the operating system refuses it.
        pub(super) fn bind(path: &Path) -> io::Result<Self> {
            SocketAddr::from_pathname(path)?;
            free(path)?;
            let parent = path.parent().unwrap_or(Path::new("/"));
            if !parent.is_dir() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "its folder does not exist"));
            }
            // The name is short because socket paths are. Only the kind of an error is reported: its text has the name.
            let folder = tempfile::Builder::new().prefix(".").rand_bytes(2).tempdir_in(parent);
            let folder = folder.map_err(|error| io::Error::from(error.kind()))?;
            let listener = UnixListener::bind(folder.path().join(NAME))?;
            fs::set_permissions(folder.path().join(NAME), fs::Permissions::from_mode(0o600))?;
            Ok(Self { folder, listener, path: path.to_owned() })
        }

        /// Returns the final address.
        pub(super) fn address(&self) -> Bind {
            Bind::Unix(self.path.clone())
        }

        /// Moves the socket to its path and replaces one that no program listens on.
        ///
        /// # Errors
        /// As [`bind`](Self::bind).
        pub(super) fn show(self) -> io::Result<(UnixListener, Socket)> {
            free(&self.path)?;
            let hidden = self.folder.path().join(NAME);
            let file = identity(&hidden)?;
            fs::rename(hidden, &self.path)?;
            Ok((self.listener, Socket { path: self.path, file }))
        }
    }

    impl Drop for Socket {
        fn drop(&mut self) {
            if identity(&self.path).is_ok_and(|file| file == self.file) {
                fs::remove_file(&self.path).ok();
            }
        }
    }

    /// The file name of the socket in the hidden folder.
    const NAME: &str = "s";

    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
    }

    /// Checks that a socket may be created at the path.
    fn free(path: &Path) -> io::Result<()> {
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        if fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "another file exists there"));
        }
        Ok(())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn shown(path: &Path) -> io::Result<(UnixListener, Socket)> {
            Hidden::bind(path)?.show()
        }

        #[test]
        fn a_socket_is_readable_only_by_its_owner_and_replaces_a_dead_one() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ts.sock");
            let (first, socket) = shown(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(shown(&path).err().unwrap().kind(), io::ErrorKind::AddrInUse);
            drop(first);
            let (_second, successor) = shown(&path).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the hidden folder is removed");
            drop(socket);
            assert!(path.exists(), "it belongs to the successor");
            drop(successor);
            assert!(!path.exists());
        }

        #[test]
        fn a_start_that_fails_leaves_the_socket_of_the_other() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ts.sock");
            let (one, other) = (Hidden::bind(&path).unwrap(), Hidden::bind(&path).unwrap());
            assert!(!path.exists(), "no process has the store open yet");
            let (_listener, _socket) = one.show().unwrap();
            drop(other);
            assert!(UnixStream::connect(&path).is_ok());
        }

        #[test]
        fn a_file_that_is_no_socket_is_kept() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("notes");
            let hidden = Hidden::bind(&path).unwrap();
            fs::write(&path, "mine").unwrap();
            for refused in [Hidden::bind(&path).err().unwrap(), hidden.show().err().unwrap()] {
                assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        }

        #[test]
        fn a_path_may_be_as_long_as_a_socket_address() {
            let folder = tempfile::tempdir().unwrap();
            let longest = 107 - "/ts.sock".len();
            let deep = folder.path().join("x".repeat(longest - folder.path().as_os_str().len() - 1));
            let missing = Hidden::bind(&deep.join("ts.sock")).err().unwrap();
            assert_eq!((missing.kind(), &*missing.to_string()), (io::ErrorKind::NotFound, "its folder does not exist"));
            fs::create_dir(&deep).unwrap();
            shown(&deep.join("ts.sock")).unwrap();
            assert_eq!(Hidden::bind(&deep.join("too-long.sock")).err().unwrap().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
