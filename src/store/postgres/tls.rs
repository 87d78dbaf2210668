//! TLS of connections: always with verification of the server's certificate and name.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::Verifier;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::PostgresAddress;
use crate::error::Error;

/// Returns what opens TLS to the server: with the authorities of the file that the URL names, or of the platform.
///
/// # Errors
/// The file cannot be read or has no certificate, or the platform has no authorities.
pub(super) fn connector(address: &PostgresAddress) -> Result<MakeRustlsConnect, Error> {
    let provider = Arc::new(default_provider());
    let failed = |error: rustls::Error| Error::Configuration(format!("TLS to {address} cannot be set up: {error}"));
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let config = config.map_err(failed)?;
    let config = match &address.root_certificates {
        Some(path) => {
            let wrong = |why: &dyn std::fmt::Display| {
                let path = path.display();
                Error::Configuration(format!(
                    "the certificates in {path}, which sslrootcert of the store's URL names, cannot be read: {why}; name a \
                     PEM file with the certificate of the server's authority"
                ))
            };
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
            }
            if roots.is_empty() {
                return Err(wrong(&"it has none"));
            }
            config.with_root_certificates(roots)
        }
        None => {
            let verifier = Verifier::new(provider).map_err(failed)?;
            // The method's name warns of verifiers that accept anything; this one is the platform's own.
            config.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}
