//! What calls of AWS trust: the roots built in, and those of a bundle beside them, in one configuration that all
//! connections share.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::aws::error::Error;
use crate::tls::{Tls, config_builder};

/// The largest bundle that is read, in bytes; that of a Linux distribution has some 200 KB.
const BUNDLE_LIMIT: u64 = 8 * 1024 * 1024;

/// TLS that trusts the roots built in and those of `bundle`, which comes with the setting that names it. Errors: a
/// bundle that cannot be read or holds no certificate.
pub(crate) fn tls(bundle: Option<(&Path, &str)>) -> Result<Tls, Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some((path, place)) = bundle {
        for certificate in read(path, place)? {
            // A distribution's bundle may hold a root that is too old to be understood: the others still count.
            if let Err(error) = roots.add(certificate) {
                log::debug!("a certificate of {} is left out: {error}", path.display());
            }
        }
    }
    let config = Arc::new(config_builder().with_root_certificates(roots).with_no_client_auth());
    Ok(Tls::new(None, move || Ok(Arc::clone(&config))))
}

fn read(path: &Path, place: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let fault = |why: &str| {
        Error::Setup(format!("cannot use {} ({place}): {why}; it must be a file of PEM certificates", path.display()))
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
    fn a_bundle_that_cannot_be_used_is_named_with_its_setting() {
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
