//! The TLS configuration that all AWS connections share: the built-in roots, plus those of a CA bundle.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::aws::error::AwsError;
use crate::tls::{Tls, config_builder};

/// The largest bundle accepted, in bytes; a Linux distribution's is about 200 KB.
const BUNDLE_LIMIT: u64 = 8 * 1024 * 1024;

/// TLS that trusts the built-in roots and those of `bundle` (a path and the setting that names it). Errors: a bundle that
/// cannot be read or holds no certificate.
pub(crate) fn tls(bundle: Option<(&Path, &str)>) -> Result<Tls, AwsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some((path, place)) = bundle {
        for certificate in read_bundle(path, place)? {
            // A distribution's bundle may hold a root too old for rustls; the others are still good.
            if let Err(error) = roots.add(certificate) {
                log::debug!("ignoring a certificate of {}: {error}", path.display());
            }
        }
    }
    let config = Arc::new(config_builder().with_root_certificates(roots).with_no_client_auth());
    Ok(Tls::new(None, move || Ok(Arc::clone(&config))))
}

fn read_bundle(path: &Path, place: &str) -> Result<Vec<CertificateDer<'static>>, AwsError> {
    let fault = |why: &str| {
        AwsError::Setup(format!(
            "cannot use {} ({place}): {why}; it must be a file of PEM certificates",
            path.display()
        ))
    };
    let size = std::fs::metadata(path).map_err(|error| fault(&error.kind().to_string()))?.len();
    if size > BUNDLE_LIMIT {
        return Err(fault("it is larger than 8 MiB"));
    }
    let bytes = std::fs::read(path).map_err(|error| fault(&error.kind().to_string()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(fault("it holds no certificate")),
        Err(_) => Err(fault("it is not PEM")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::testing::Folder;

    #[test]
    fn an_unusable_bundle_is_reported_with_its_setting() {
        let folder = Folder::new();
        let empty = folder.file("empty.pem", "");
        let broken = folder.file("broken.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
        for (path, expected) in [("/nonexistent.pem", "not found"), (&empty, "no certificate"), (&broken, "not PEM")] {
            let error = tls(Some((Path::new(path), "AWS_CA_BUNDLE"))).expect_err(expected).to_string();
            assert!(error.contains(expected) && error.contains("AWS_CA_BUNDLE") && error.contains(path), "{error}");
        }
        assert!(tls(None).is_ok());
    }
}
