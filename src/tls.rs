//! A TLS connector for ureq, with the caller's rustls configuration: roots and client certificate.
//!
//! ureq's own connector supports one kind of roots at a time and only the name in the URL, and rebuilds its configuration
//! for each connection of a request with settings of its own, as all of ours have.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, StreamOwned, WantsVerifier};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

/// Returns the configuration of a new connection.
type Configure = dyn Fn() -> Result<Arc<ClientConfig>, ureq::Error> + Send + Sync;

/// Wraps connections to `https` URLs in TLS.
pub(crate) struct Tls {
    configure: Box<Configure>,
    name: Option<ServerName<'static>>,
}

impl Tls {
    /// Calls `configure` for each new connection. The certificate must be for `name`, if given, else for the URL's host.
    pub(crate) fn new(
        name: Option<ServerName<'static>>,
        configure: impl Fn() -> Result<Arc<ClientConfig>, ureq::Error> + Send + Sync + 'static,
    ) -> Self {
        Tls { configure: Box::new(configure), name }
    }
}

/// ring's ciphers, TLS 1.2 and 1.3.
pub(crate) fn config_builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the ring provider has cipher suites of TLS 1.2 and 1.3")
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, TlsStream>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                ServerName::try_from(host.to_string()).map_err(|_| ureq::Error::Tls("the host is not a DNS name"))?
            }
        };
        let mut connection = ClientConnection::new((self.configure)()?, name)?;
        let mut socket = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        socket.set_timeout(details.timeout);
        // Handshake now, so that its errors count as connection errors.
        connection.complete_io(&mut socket)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(TlsStream { buffers, stream: StreamOwned::new(connection, socket) })))
    }
}

/// A TLS connection.
pub(crate) struct TlsStream {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsStream")
    }
}

impl Transport for TlsStream {
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
