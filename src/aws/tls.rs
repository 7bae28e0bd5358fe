//! TLS for ureq's connections: the built-in roots, and those of a bundle beside them, in one configuration that all
//! connections share.
//!
//! ureq's own connector knows only one of the two kinds of roots at a time, and builds its configuration anew for
//! each connection of a request that has settings of its own, as all of ours have.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use super::error::Error;

/// The largest bundle that is read, in bytes; that of a Linux distribution has some 200 KB.
const BUNDLE_LIMIT: u64 = 8 * 1024 * 1024;

/// Wraps connections to `https` URLs in TLS.
pub(crate) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// TLS that trusts the roots built in and those of `bundle`, which comes with the setting that names it. Errors: a
    /// bundle that cannot be read or holds no certificate.
    pub(crate) fn new(bundle: Option<(&Path, &str)>) -> Result<Self, Error> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some((path, place)) = bundle {
            for certificate in read(path, place)? {
                // A distribution's bundle may hold a root that is too old to be understood: the others still count.
                if let Err(error) = roots.add(certificate) {
                    log::debug!("a certificate of {} is left out: {error}", path.display());
                }
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the ring provider has cipher suites of TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Tls(Arc::new(config)))
    }
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

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, Stream>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_string()).map_err(|_| ureq::Error::Tls("the host is no DNS name"))?;
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name)?;
        let mut socket = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        socket.set_timeout(details.timeout);
        // The handshake, so that its faults are told as faults of the connection.
        connection.complete_io(&mut socket)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Stream { buffers, stream: StreamOwned::new(connection, socket) })))
    }
}

/// A connection inside TLS.
pub(crate) struct Stream {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl Transport for Stream {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        std::io::Write::write_all(&mut self.stream, &self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = std::io::Read::read(&mut self.stream, self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
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
            let error = Tls::new(Some((Path::new(path), "AWS_CA_BUNDLE"))).expect_err(expected).to_string();
            assert!(error.contains(expected) && error.contains("AWS_CA_BUNDLE") && error.contains(path), "{error}");
        }
        assert!(Tls::new(None).is_ok());
    }
}
