//! TLS for ureq's connections, by a configuration of rustls that its owner makes: what is trusted, and who we are.
//!
//! ureq's own connector knows only one kind of roots at a time and the name in the URL, and builds its configuration anew
//! for each connection of a request that has settings of its own, as all of ours have.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, StreamOwned, WantsVerifier};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

/// Where the configuration of a new connection comes from.
type Configure = dyn Fn() -> Result<Arc<ClientConfig>, ureq::Error> + Send + Sync;

/// Wraps connections to `https` URLs in TLS.
pub(crate) struct Tls {
    configure: Box<Configure>,
    name: Option<ServerName<'static>>,
}

impl Tls {
    /// Asks `configure` for each new connection. The other side must be `name`, where there is one, else the URL's host.
    pub(crate) fn new(
        name: Option<ServerName<'static>>,
        configure: impl Fn() -> Result<Arc<ClientConfig>, ureq::Error> + Send + Sync + 'static,
    ) -> Self {
        Tls { configure: Box::new(configure), name }
    }
}

/// The start of every configuration: ring's ciphers, TLS 1.2 and 1.3.
pub(crate) fn config() -> ConfigBuilder<ClientConfig, WantsVerifier> {
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
    type Out = Either<In, Stream>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_string()).map_err(|_| ureq::Error::Tls("the host is no DNS name"))?,
        };
        let mut connection = ClientConnection::new((self.configure)()?, name)?;
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
