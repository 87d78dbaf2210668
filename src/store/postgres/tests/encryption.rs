//! TLS with a server that has a certificate of a private authority.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::*;

/// Creates an authority, and a certificate that it signed for the name `localhost`.
fn certificates(folder: &Path) -> Vec<String> {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(folder).args(arguments.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "openssl {arguments}");
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"));
    openssl(&format!("req {key} -subj /CN=localhost -keyout server.key -out server.csr"));
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem");
    let at = folder.display();
    vec!["ssl=on".to_owned(), format!("ssl_cert_file={at}/server.pem"), format!("ssl_key_file={at}/server.key")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_encrypted_and_its_server_verified() {
    if server::shared().is_none() {
        return;
    }
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        return skip::without("openssl", "the program openssl is not installed");
    }
    let mut authority = None;
    let server = server::Server::start_on_loopback(|folder| {
        authority = Some(folder.join("ca.pem"));
        certificates(folder)
    });
    let (server, authority) = (server.unwrap(), authority.unwrap());
    let trusted = |host: &str| format!("{}&sslrootcert={}", server.url_at(host), authority.display());
    let open = |url: &str| PostgresStore::open(url, Migrate::Auto, by_hand(), codes());

    let url = trusted("localhost");
    let place = TestStore { store: open(&url).unwrap(), url, clock: by_hand() };
    place.connected("alice", 1).await;
    let is_encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let is_encrypted = statement::sql::<diesel::sql_types::Bool>(is_encrypted);
    assert!(is_encrypted.get_result::<bool>(&mut place.connection().await).await.unwrap());

    for (url, why) in [
        // The certificate is for another name.
        (trusted("127.0.0.1"), "not valid for name"),
        // The platform does not know the authority.
        (server.url_at("localhost"), "certificate"),
        (format!("{}&sslrootcert=/no/such/file", server.url_at("localhost")), "cannot be read"),
        (
            format!("{}&sslrootcert={}", server.url_at("localhost"), authority.with_file_name("names").display()),
            "cannot be read",
        ),
    ] {
        let error = open(&url).err().unwrap().to_string();
        assert!(error.contains(why), "{url}: {error}");
    }
    // A server without TLS is not used without.
    let plain = server::Server::start_on_loopback(|_| Vec::new()).unwrap();
    let error = open(&plain.url_at("localhost")).err().unwrap().to_string();
    assert!(error.contains("TLS"), "{error}");
    open(&format!("{}&sslmode=disable", plain.url_at("localhost"))).unwrap();
}
