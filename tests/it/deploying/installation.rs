//! The files of `deploy/compose` in a folder of their own, as processes of this machine instead of containers.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use token_supervisor::testing::{Profile, SimulatedIdp};

use super::{deploy, text};
use crate::{cli::Ran, real_time::polled_async, served::Served};

const SECRET: &str = "ts-test-secret-client";

/// A copy of the folder in which `init` was run. Its database is a store on the tests' PostgreSQL server.
pub(super) struct Installation {
    pub(super) folder: TempDir,
    pub(super) idp: SimulatedIdp,
    pub(super) api_key: String,
}

impl Installation {
    pub(super) fn new(database: &str) -> Self {
        let folder = TempDir::new().unwrap();
        for file in ["init", "nginx.conf", "config/config.toml"] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text(deploy().join("compose").join(file))).unwrap();
        }
        let idp = SimulatedIdp::start(Profile::github().client("your-client-id", SECRET)).unwrap();
        let mut installation = Self { folder, idp, api_key: String::new() };
        let said = installation.init();
        assert_eq!(said.code, 0, "{said:?}");
        installation.api_key = text(installation.path("api-key")).trim_end().to_owned();
        fs::write(installation.path("secrets/database-url"), database).unwrap();
        // Where they are in a container.
        let config = installation.path("config/config.toml");
        let secrets = installation.path("secrets");
        fs::write(&config, text(&config).replace("/run/secrets", secrets.to_str().unwrap())).unwrap();
        installation
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `init`, with this program instead of its image.
    pub(super) fn init(&self) -> Ran {
        let mut init = Command::new("bash");
        init.arg("init").current_dir(&self.folder).env("TOKEN_SUPERVISOR", env!("CARGO_BIN_EXE_token-supervisor"));
        init.env("GITHUB_CLIENT_ID", "your-client-id").env("GITHUB_CLIENT_SECRET", SECRET);
        Ran::new(init.output().unwrap())
    }

    /// A command in the container of this replica.
    pub(super) fn command(&self, replica: usize, args: &[&str]) -> Command {
        let mut command = crate::cli::program(self.folder.path(), args);
        command.arg("--config").arg(self.path("config/config.toml"));
        for (name, value) in text(self.path(".env")).lines().map(|line| line.split_once('=').unwrap()) {
            let name = if name == "DEPLOYMENT" { "TOKEN_SUPERVISOR__DEPLOYMENT" } else { name };
            command.env(name, value);
        }
        command.env("TOKEN_SUPERVISOR__JOURNAL__DIR", self.path(&format!("journal/{replica}")));
        command.env("TOKEN_SUPERVISOR__IDP__GITHUB__TOKEN_URL", self.idp.token_url());
        command
    }

    pub(super) fn serve(&self, replica: usize, bind: &str) -> Result<Served, String> {
        let mut command = self.command(replica, &["serve", "--json"]);
        command.env("TOKEN_SUPERVISOR__SERVER__BIND", bind);
        Served::start(command)
    }

    /// Starts nginx in front of these replicas, in the order of the file.
    pub(super) async fn nginx(&self, replicas: &[&str]) -> Nginx {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = self.path("nginx");
        fs::create_dir(&folder).unwrap();
        // First, because the other folders may be below it.
        let mut config = replaced(&text(self.path("nginx.conf")), "/tmp/", &format!("{}/", folder.display()));
        for (number, replica) in (11..).zip(replicas) {
            config = replaced(&config, &format!("10.213.77.{number}:8080"), replica);
        }
        config = replaced(&config, "listen 8443 ", &format!("listen 127.0.0.1:{port} "));
        config = replaced(&config, "/run/secrets", self.path("secrets").to_str().unwrap());
        let path = folder.join("nginx.conf");
        fs::write(&path, config).unwrap();
        let checked = Command::new("nginx").args(["-e", "stderr", "-t", "-c"]).arg(&path).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        Nginx::start(&path, &folder, port).await
    }
}

/// Replaces a text that must be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

/// A running nginx. It ends with this, or when the process of the tests ends, however that ends.
pub(super) struct Nginx {
    shell: Child,
    folder: PathBuf,
    pub(super) url: String,
}

/// Stops nginx when the standard input ends.
const SCRIPT: &str = "nginx -e stderr -c \"$1\" -g 'daemon off;' > \"$2/out\" 2> \"$2/err\" & nginx=$!; \
                      read -r word; kill -TERM $nginx; wait $nginx";

impl Nginx {
    async fn start(config: &Path, folder: &Path, port: u16) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "sh"]).arg(config).arg(folder).stdin(Stdio::piped());
        let url = format!("https://127.0.0.1:{port}");
        let nginx = Self { shell: shell.spawn().unwrap(), folder: folder.to_owned(), url };
        let listens = async || nginx.client().get(format!("{}/livez", nginx.url)).send().await.ok();
        polled_async("nginx listens", Duration::from_secs(30), listens).await;
        nginx
    }

    /// A client with connections of its own. The certificate is the one that `init` made for tests.
    pub(super) fn client(&self) -> reqwest::Client {
        reqwest::Client::builder().no_proxy().danger_accept_invalid_certs(true).build().unwrap()
    }

    /// Returns the access log and the error log so far.
    pub(super) fn logs(&self) -> (String, String) {
        (text(self.folder.join("out")), text(self.folder.join("err")))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.shell.stdin.take() {
            stdin.write_all(b"\n").ok();
        }
        self.shell.wait().ok();
    }
}
