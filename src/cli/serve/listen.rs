//! The sockets that the server listens on.
//!
//! Invariant: the file of a Unix socket is at its place only while this process has the store, so that of two starts the
//! one that goes on has its socket there; and no process takes away another one's.

use std::{fmt, io, net::TcpListener};

use futures_util::future::{join_all, select_all};
use token_supervisor::{
    config::Bind,
    web::{Api, Server},
};

use crate::{CliFailure, Exit};

/// Everything that is listened on. Nothing is answered yet.
#[derive(Default)]
pub(super) struct Listeners {
    tcp: Vec<TcpListener>,
    #[cfg(unix)]
    unix: Vec<unix::Hidden>,
}

/// What answers requests.
#[derive(Default)]
pub(super) struct Serving {
    servers: Vec<Server>,
    #[cfg(unix)]
    sockets: Vec<unix::Socket>,
}

impl Listeners {
    /// # Errors
    /// Something else listens at one of them, or the operating system refuses it.
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

    /// Where they listen, as a client is told: with the ports that were chosen.
    pub(super) fn addresses(&self) -> Result<Vec<String>, CliFailure> {
        let tcp = self.tcp.iter().map(|listener| Ok(format!("http://{}", listener.local_addr()?)));
        #[cfg(unix)]
        let tcp = tcp.chain(self.unix.iter().map(|socket| Ok(socket.address().to_string())));
        tcp.collect()
    }

    /// Answers requests from now on.
    ///
    /// # Errors
    /// The operating system refuses it. What answers already is in `serving` all the same.
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
    /// Waits until one of the servers has ended, although nobody stopped it.
    pub(super) async fn ended(&self) {
        select_all(self.servers.iter().map(|server| Box::pin(server.ended()))).await;
    }

    /// Takes no more connections, answers what is under way, and takes the sockets' files away.
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
    CliFailure::new(Exit::Failed, format!("the HTTP server failed: {why}"), "start it again; its log may say more")
}

fn refused(bind: &Bind, error: &io::Error) -> CliFailure {
    let next = match error.kind() {
        io::ErrorKind::AddrInUse => "stop what listens there, or choose another address: server.bind",
        io::ErrorKind::PermissionDenied => "choose a port above 1023, or a folder that you may write to: server.bind",
        io::ErrorKind::NotFound => "make the folder, or choose another one: server.bind",
        io::ErrorKind::InvalidInput => "choose a shorter path: server.bind",
        _ => "choose an address of this machine: server.bind",
    };
    CliFailure::new(Exit::Failed, format!("cannot listen at {bind}: {error}"), next)
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

    /// A socket for this user alone, not yet at its place.
    pub(super) struct Hidden {
        /// Nobody else may enter it: at its place the socket never had another mode.
        folder: TempDir,
        listener: UnixListener,
        path: PathBuf,
    }

    /// The file of a socket; it goes when this does.
    pub(super) struct Socket {
        path: PathBuf,
        /// Which file it is, of which device.
        file: (u64, u64),
    }

    impl Hidden {
        /// # Errors
        /// Somebody listens at the path, something else is there, or the operating system refuses it.
        pub(super) fn bind(path: &Path) -> io::Result<Self> {
            SocketAddr::from_pathname(path)?;
            free(path)?;
            let parent = path.parent().unwrap_or(Path::new("/"));
            if !parent.is_dir() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "its folder is missing"));
            }
            // Its name is short: paths of sockets are. Of an error only its kind is told: the whole names this folder.
            let folder = tempfile::Builder::new().prefix(".").rand_bytes(2).tempdir_in(parent);
            let folder = folder.map_err(|error| io::Error::from(error.kind()))?;
            let listener = UnixListener::bind(folder.path().join(NAME))?;
            fs::set_permissions(folder.path().join(NAME), fs::Permissions::from_mode(0o600))?;
            Ok(Self { folder, listener, path: path.to_owned() })
        }

        /// Where it will be.
        pub(super) fn address(&self) -> Bind {
            Bind::Unix(self.path.clone())
        }

        /// Puts it at its place, in that of one that nobody listens at any more.
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

    /// Of the socket in its folder.
    const NAME: &str = "s";

    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
    }

    /// Whether a socket may be put there.
    fn free(path: &Path) -> io::Result<()> {
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        if fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else is there"));
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
        fn a_socket_is_its_owners_alone_and_takes_the_place_of_a_dead_one() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ts.sock");
            let (first, socket) = shown(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(shown(&path).err().unwrap().kind(), io::ErrorKind::AddrInUse);
            drop(first);
            let (_second, successor) = shown(&path).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
            drop(socket);
            assert!(path.exists(), "it is another one's now");
            drop(successor);
            assert!(!path.exists());
        }

        #[test]
        fn of_two_starts_the_one_that_goes_on_has_its_socket_there() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ts.sock");
            let (one, other) = (Hidden::bind(&path).unwrap(), Hidden::bind(&path).unwrap());
            assert!(!path.exists(), "nobody has the store yet");
            let (_listener, _socket) = one.show().unwrap();
            drop(other);
            assert!(UnixStream::connect(&path).is_ok());
        }

        #[test]
        fn a_file_is_left_alone() {
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
        fn a_path_may_be_as_long_as_a_socket_takes() {
            let folder = tempfile::tempdir().unwrap();
            let longest = 107 - "/ts.sock".len();
            let deep = folder.path().join("x".repeat(longest - folder.path().as_os_str().len() - 1));
            let missing = Hidden::bind(&deep.join("ts.sock")).err().unwrap();
            assert_eq!((missing.kind(), &*missing.to_string()), (io::ErrorKind::NotFound, "its folder is missing"));
            fs::create_dir(&deep).unwrap();
            shown(&deep.join("ts.sock")).unwrap();
            assert_eq!(Hidden::bind(&deep.join("too-long.sock")).err().unwrap().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
