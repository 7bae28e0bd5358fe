//! TLS to Consul: CAs and client certificate from Consul's own variables (`SetupTLSConfig` in Consul's `api/api.go`).
//!
//! The files are read again for each new connection, so that a renewed certificate takes effect. While they are unusable the
//! previous configuration stays in use, because certificate and key cannot be replaced atomically.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::QueryError;
use crate::environment::Environment;
use crate::log::Episode;
use crate::tls::{Tls, config_builder};

const CA: &str = "CONSUL_CACERT";
const CA_DIR: &str = "CONSUL_CAPATH";
const CERTIFICATE: &str = "CONSUL_CLIENT_CERT";
const KEY: &str = "CONSUL_CLIENT_KEY";
const NAME: &str = "CONSUL_TLS_SERVER_NAME";
/// Whether to verify the agent's certificate.
pub(super) const VERIFY: &str = "CONSUL_HTTP_SSL_VERIFY";

const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// Limits of the search below [`CA_DIR`].
const MAX_ENTRIES: usize = 10_000;
const MAX_DEPTH: usize = 8;

pub(super) struct TlsAccess {
    files: TlsPaths,
    name: Option<ServerName<'static>>,
    loaded: Mutex<Loaded>,
}

struct TlsPaths {
    ca: Option<PathBuf>,
    ca_dir: Option<PathBuf>,
    /// Certificate and key.
    pair: Option<(PathBuf, PathBuf)>,
    verify: bool,
}

#[derive(PartialEq)]
struct TlsMaterial {
    /// `None` for the public CAs.
    ca: Option<Vec<CertificateDer<'static>>>,
    pair: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

struct Loaded {
    current: Option<(TlsMaterial, Arc<ClientConfig>)>,
    episode: Episode,
}

impl TlsAccess {
    pub(super) fn from(env: &Environment) -> Result<Self, QueryError> {
        let path = |variable| env.get(variable).map(PathBuf::from);
        let pair = match (path(CERTIFICATE), path(KEY)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(incomplete_pair(CERTIFICATE, KEY)),
            (None, Some(_)) => return Err(incomplete_pair(KEY, CERTIFICATE)),
        };
        let files = TlsPaths {
            ca: path(CA),
            ca_dir: path(CA_DIR),
            pair,
            verify: env.get(VERIFY).map_or(Ok(true), parse_bool)?,
        };
        let name = env.get(NAME).map(server_name).transpose()?;
        let loaded = Loaded { current: None, episode: Episode::new("Consul TLS").target(module_path!()) };
        let access = TlsAccess { files, name, loaded: Mutex::new(loaded) };
        // Fail at startup rather than in the first turn.
        access.config()?;
        Ok(access)
    }

    pub(super) fn verifies(&self) -> bool {
        self.files.verify
    }

    pub(super) fn connector(self) -> Tls {
        let name = self.name.clone();
        Tls::new(name, move || self.config().map_err(|cause| ureq::Error::Other(Box::new(SetupError(cause)))))
    }

    /// The configuration from the files, or the previous one while they are unusable.
    fn config(&self) -> Result<Arc<ClientConfig>, QueryError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let Loaded { current, episode } = &mut *loaded;
        let fresh = self.files.read().and_then(|contents| match &current {
            Some((previous, config)) if *previous == contents => Ok(Arc::clone(config)),
            _ => {
                let config = Arc::new(self.files.configure(&contents)?);
                *current = Some((contents, Arc::clone(&config)));
                Ok(config)
            }
        });
        match (fresh, current) {
            (Ok(config), _) => {
                episode.report(None);
                Ok(config)
            }
            (Err(cause), Some((_, config))) => {
                if let QueryError::Setup(text) = &cause {
                    episode.report(Some((text, &format!("{text}; keeping the previous configuration"))));
                }
                Ok(Arc::clone(config))
            }
            (Err(cause), None) => Err(cause),
        }
    }
}

impl TlsPaths {
    fn read(&self) -> Result<TlsMaterial, QueryError> {
        let ca = match (&self.ca, &self.ca_dir) {
            (Some(path), _) => Some(certificates(CA, path)?),
            (None, Some(path)) => Some(certificates_below(path)?),
            (None, None) => None,
        };
        let pair = match &self.pair {
            Some((certificate, key)) => Some((certificates(CERTIFICATE, certificate)?, private_key(key)?)),
            None => None,
        };
        Ok(TlsMaterial { ca, pair })
    }

    fn configure(&self, contents: &TlsMaterial) -> Result<ClientConfig, QueryError> {
        let builder = config_builder();
        let builder = if self.verify {
            let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            if let Some(ca) = &contents.ca {
                roots = RootCertStore::empty();
                let (added, _) = roots.add_parsable_certificates(ca.iter().cloned());
                if added == 0 {
                    let (variable, path) = match (&self.ca, &self.ca_dir) {
                        (None, Some(path)) => (CA_DIR, path.as_path()),
                        (path, _) => (CA, path.as_deref().unwrap_or(Path::new(""))),
                    };
                    return Err(setup_error(variable, path, "contains no valid certificate"));
                }
            }
            builder.with_root_certificates(roots)
        } else {
            let provider = Arc::clone(builder.crypto_provider());
            builder.dangerous().with_custom_certificate_verifier(Arc::new(NoVerification(provider)))
        };
        let (Some((certificate, key)), Some((_, path))) = (&contents.pair, &self.pair) else {
            return Ok(builder.with_no_client_auth());
        };
        builder.with_client_auth_cert(certificate.clone(), key.clone_key()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                setup_error(KEY, path, &format!("is not the key of the certificate in {CERTIFICATE}"))
            }
            error => setup_error(KEY, path, &format!("does not work with the certificate in {CERTIFICATE}: {error}")),
        })
    }
}

fn incomplete_pair(set: &str, missing: &str) -> QueryError {
    QueryError::Setup(format!("{set} is set but {missing} is not: set both, certificate and key"))
}

fn setup_error(variable: &str, path: &Path, text: &str) -> QueryError {
    QueryError::Setup(format!("{variable} {}: {text}", path.display()))
}

/// Accepts what Consul's tools accept (Go's `strconv.ParseBool`).
fn parse_bool(text: &str) -> Result<bool, QueryError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(QueryError::Setup(format!("{VERIFY} is {text:?}, expected true or false"))),
    }
}

/// A host name or address. A port is dropped, as Consul's tools do.
fn server_name(text: &str) -> Result<ServerName<'static>, QueryError> {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { text }
        }
        _ => text,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned())
        .map_err(|_| QueryError::Setup(format!("{NAME} is {text:?}, expected the name in the agent's certificate")))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("larger than 8 MiB"));
    }
    // The PEM parser does not recognise a first line that starts with a byte order mark.
    Ok(bytes.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(bytes))
}

fn certificates(variable: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, QueryError> {
    let pem = read(path).map_err(|error| {
        setup_error(
            variable,
            path,
            &format!("cannot read the certificates: {error}: check the path and its permissions"),
        )
    })?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(setup_error(variable, path, "contains no certificate: expected a PEM file")),
        Err(error) => Err(setup_error(variable, path, &format!("is not a PEM file: {error}"))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, QueryError> {
    let pem = read(path).map_err(|error| {
        setup_error(KEY, path, &format!("cannot read the key: {error}: check the path and its permissions"))
    })?;
    // The parser's error may quote the file, so it is not shown.
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| setup_error(KEY, path, "contains no usable private key: expected a PEM file without a passphrase"))
}

/// The certificates of all files below a directory. Other files are skipped, since such directories often contain hashes,
/// revocation lists and READMEs.
fn certificates_below(dir: &Path) -> Result<Vec<CertificateDer<'static>>, QueryError> {
    let (mut files, mut left) = (Vec::new(), MAX_ENTRIES);
    collect_files(dir, MAX_DEPTH, &mut left, &mut files).map_err(|error| {
        setup_error(CA_DIR, dir, &format!("cannot read the directory: {error}: check the path and its permissions"))
    })?;
    files.sort();
    let mut certificates: Vec<CertificateDer<'static>> = Vec::new();
    for file in &files {
        match self::certificates(CA_DIR, file) {
            Ok(more) => certificates.extend(more),
            Err(cause) => log::debug!("skipped: {cause:?}"),
        }
    }
    if certificates.is_empty() {
        return Err(setup_error(CA_DIR, dir, "contains no certificate: expected a directory of PEM files"));
    }
    Ok(certificates)
}

fn collect_files(dir: &Path, depth: usize, left: &mut usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let too_many = || io::Error::other(format!("more than {MAX_ENTRIES} files"));
        *left = left.checked_sub(1).ok_or_else(too_many)?;
        // Links to directories are skipped, as in Consul's tools; they could form a cycle.
        if entry.file_type()?.is_dir() {
            if depth > 0 {
                collect_files(&entry.path(), depth - 1, left, files)?;
            }
        } else if entry.path().is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Carries a setup failure through ureq.
#[derive(Debug)]
pub(super) struct SetupError(pub(super) QueryError);

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for SetupError {}

impl fmt::Debug for TlsAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsAccess")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(env: &[(&str, &str)]) -> String {
        match TlsAccess::from(&Environment::from(env.iter().copied())) {
            Err(QueryError::Setup(text)) => text,
            other => panic!("no fault: {other:?}"),
        }
    }

    /// A temporary directory, removed on drop.
    struct TempDir(PathBuf);

    impl TempDir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hsdo-consul-tls-{}-{name}", std::process::id()));
            fs::create_dir_all(path.join("empty/below")).expect("a directory");
            TempDir(path)
        }

        fn file(&self, name: &str, text: &[u8]) -> String {
            fs::write(self.0.join(name), text).expect("a file");
            self.path(name)
        }

        fn path(&self, name: &str) -> String {
            self.0.join(name).to_str().expect("a plain path").to_owned()
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn unusable_settings_are_reported() {
        let dir = TempDir::new("faults");
        let other = dir.file("other", b"no certificate at all\n");
        let broken = dir.file("broken", b"-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n");
        let nonsense = dir.file("nonsense", b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n");
        let secret = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let encrypted = dir.file("encrypted", secret);
        let empty = dir.path("empty");
        let whole = dir.path("");
        let cases: [(&[(&str, &str)], &str); 13] = [
            (&[(CA, "/nowhere/ca.pem")], "CONSUL_CACERT /nowhere/ca.pem: cannot read the certificates: No such file"),
            (&[(CA, &other)], "contains no certificate: expected a PEM file"),
            (&[(CA, &broken)], "is not a PEM file"),
            (&[(CA, &nonsense)], "contains no valid certificate"),
            (&[(CA_DIR, "/nowhere")], "CONSUL_CAPATH /nowhere: cannot read the directory: No such file"),
            (&[(CA_DIR, &empty)], "contains no certificate: expected a directory of PEM files"),
            (&[(CA_DIR, &whole)], "contains no valid certificate"),
            (&[(CERTIFICATE, &nonsense)], "CONSUL_CLIENT_CERT is set but CONSUL_CLIENT_KEY is not: set both"),
            (&[(KEY, &nonsense)], "CONSUL_CLIENT_KEY is set but CONSUL_CLIENT_CERT is not: set both"),
            (
                &[(CERTIFICATE, &nonsense), (KEY, "/nowhere")],
                "CONSUL_CLIENT_KEY /nowhere: cannot read the key: No such file",
            ),
            (&[(CERTIFICATE, &nonsense), (KEY, &encrypted)], "expected a PEM file without a passphrase"),
            (&[(VERIFY, "no")], "CONSUL_HTTP_SSL_VERIFY is \"no\", expected true or false"),
            (
                &[(NAME, "con sul")],
                "CONSUL_TLS_SERVER_NAME is \"con sul\", expected the name in the agent's certificate",
            ),
        ];
        for (env, expected) in cases {
            let text = fault(env);
            assert!(text.contains(expected) && !text.contains("c2VjcmV0") && !text.contains('\n'), "{env:?}: {text}");
        }
        // The file takes precedence, and the directory is not read.
        assert!(fault(&[(CA, &other), (CA_DIR, "/nowhere")]).starts_with("CONSUL_CACERT"));
    }

    #[test]
    fn booleans_and_names_are_parsed_as_in_consuls_tools() {
        for (text, expected) in [("1", true), ("t", true), ("True", true), ("0", false), ("f", false), ("FALSE", false)]
        {
            assert_eq!(parse_bool(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("server.dc1.consul", "server.dc1.consul"),
            ("server.dc1.consul:8501", "server.dc1.consul"),
            ("127.0.0.1:8501", "127.0.0.1"),
            ("[::1]:8501", "::1"),
            ("::1", "::1"),
        ] {
            assert_eq!(server_name(text).expect("a name").to_str(), expected, "{text}");
        }
    }
}
