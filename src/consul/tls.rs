//! TLS to Consul: whom to believe and who we are, by Consul's own variables (`api/api.go` of Consul, `SetupTLSConfig`).
//!
//! The files are read again for each new connection, so that a certificate that was renewed counts from then on. What was
//! read before is used on while they cannot be used: two files are not exchanged in one moment.

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

use super::error::Cause;
use crate::environment::Environment;
use crate::log::Episode;
use crate::tls::{Tls, config_builder};

const CA: &str = "CONSUL_CACERT";
const CA_FOLDER: &str = "CONSUL_CAPATH";
const CERTIFICATE: &str = "CONSUL_CLIENT_CERT";
const KEY: &str = "CONSUL_CLIENT_KEY";
const NAME: &str = "CONSUL_TLS_SERVER_NAME";
/// Whether the other side has to prove that it is Consul.
pub(super) const VERIFY: &str = "CONSUL_HTTP_SSL_VERIFY";

/// The largest file of certificates, in bytes.
const LARGEST: u64 = 8 * 1024 * 1024;
/// The most files and folders that [`CA_FOLDER`] may hold, and how deep they are looked for.
const MOST_ENTRIES: usize = 10_000;
const DEEPEST: usize = 8;

/// What the variables say.
pub(super) struct TlsAccess {
    files: Files,
    name: Option<ServerName<'static>>,
    held: Mutex<Held>,
}

struct Files {
    ca: Option<PathBuf>,
    ca_folder: Option<PathBuf>,
    /// Certificate and key.
    pair: Option<(PathBuf, PathBuf)>,
    verify: bool,
}

/// What the files held.
#[derive(PartialEq)]
struct Contents {
    /// `None` for the CAs that browsers trust.
    ca: Option<Vec<CertificateDer<'static>>>,
    pair: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// The configuration in use, and whether the files can be used now.
struct Held {
    now: Option<(Contents, Arc<ClientConfig>)>,
    episode: Episode,
}

impl TlsAccess {
    /// Reads the variables, and the files that they name.
    pub(super) fn from(env: &Environment) -> Result<Self, Cause> {
        let path = |variable| env.get(variable).map(PathBuf::from);
        let pair = match (path(CERTIFICATE), path(KEY)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(half(CERTIFICATE, KEY)),
            (None, Some(_)) => return Err(half(KEY, CERTIFICATE)),
        };
        let files =
            Files { ca: path(CA), ca_folder: path(CA_FOLDER), pair, verify: env.get(VERIFY).map_or(Ok(true), truth)? };
        let name = env.get(NAME).map(server_name).transpose()?;
        let held = Held { now: None, episode: Episode::new("Consul TLS").target(module_path!()) };
        let access = TlsAccess { files, name, held: Mutex::new(held) };
        // Said at start rather than in the first turn.
        access.config()?;
        Ok(access)
    }

    /// Whether the other side has to prove that it is Consul.
    pub(super) fn verifies(&self) -> bool {
        self.files.verify
    }

    /// What wraps the connections.
    pub(super) fn connector(self) -> Tls {
        let name = self.name.clone();
        Tls::new(name, move || self.config().map_err(|cause| ureq::Error::Other(Box::new(Fault(cause)))))
    }

    /// The configuration by the files as they are now, else as they were.
    fn config(&self) -> Result<Arc<ClientConfig>, Cause> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Held { now, episode } = &mut *held;
        let fresh = self.files.read().and_then(|contents| match &now {
            Some((known, config)) if *known == contents => Ok(Arc::clone(config)),
            _ => {
                let config = Arc::new(self.files.configure(&contents)?);
                *now = Some((contents, Arc::clone(&config)));
                Ok(config)
            }
        });
        match (fresh, now) {
            (Ok(config), _) => {
                episode.report(None);
                Ok(config)
            }
            (Err(cause), Some((_, config))) => {
                if let Cause::Setup(text) = &cause {
                    episode.report(Some((text, &format!("{text}; what was read before is used on"))));
                }
                Ok(Arc::clone(config))
            }
            (Err(cause), None) => Err(cause),
        }
    }
}

impl Files {
    fn read(&self) -> Result<Contents, Cause> {
        let ca = match (&self.ca, &self.ca_folder) {
            (Some(path), _) => Some(certificates(CA, path)?),
            (None, Some(path)) => Some(certificates_below(path)?),
            (None, None) => None,
        };
        let pair = match &self.pair {
            Some((certificate, key)) => Some((certificates(CERTIFICATE, certificate)?, private_key(key)?)),
            None => None,
        };
        Ok(Contents { ca, pair })
    }

    fn configure(&self, contents: &Contents) -> Result<ClientConfig, Cause> {
        let builder = config_builder();
        let builder = if self.verify {
            let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            if let Some(ca) = &contents.ca {
                roots = RootCertStore::empty();
                let (taken, _) = roots.add_parsable_certificates(ca.iter().cloned());
                if taken == 0 {
                    let (variable, path) = match (&self.ca, &self.ca_folder) {
                        (None, Some(path)) => (CA_FOLDER, path.as_path()),
                        (path, _) => (CA, path.as_deref().unwrap_or(Path::new(""))),
                    };
                    return Err(wrong(variable, path, "holds no certificate that can be understood"));
                }
            }
            builder.with_root_certificates(roots)
        } else {
            let provider = Arc::clone(builder.crypto_provider());
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        };
        let (Some((certificate, key)), Some((_, path))) = (&contents.pair, &self.pair) else {
            return Ok(builder.with_no_client_auth());
        };
        builder.with_client_auth_cert(certificate.clone(), key.clone_key()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                wrong(KEY, path, &format!("is not the key of the certificate in {CERTIFICATE}"))
            }
            error => wrong(KEY, path, &format!("cannot be used with the certificate in {CERTIFICATE}: {error}")),
        })
    }
}

fn half(set: &str, missing: &str) -> Cause {
    Cause::Setup(format!("{set} is set and {missing} is not: set both, a certificate is of no use without its key"))
}

fn wrong(variable: &str, path: &Path, text: &str) -> Cause {
    Cause::Setup(format!("{variable} {}: {text}", path.display()))
}

/// The words that Consul's tools take (Go's `strconv.ParseBool`).
fn truth(text: &str) -> Result<bool, Cause> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Cause::Setup(format!("{VERIFY} is {text:?}, expected true or false"))),
    }
}

/// A name, or an address; a port behind it is left out, as Consul's tools do.
fn server_name(text: &str) -> Result<ServerName<'static>, Cause> {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { text }
        }
        _ => text,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned())
        .map_err(|_| Cause::Setup(format!("{NAME} is {text:?}, expected the name in the agent's certificate")))
}

/// A file, of which no more is read than any real one holds.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 8 MiB"));
    }
    // A byte order mark hides the line after it.
    Ok(bytes.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).unwrap_or(bytes))
}

fn certificates(variable: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Cause> {
    let pem = read(path).map_err(|error| {
        wrong(variable, path, &format!("cannot read the certificates: {error}: check the path and its rights"))
    })?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(wrong(variable, path, "holds no certificate: expected a PEM file")),
        Err(error) => Err(wrong(variable, path, &format!("is no PEM file: {error}"))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Cause> {
    let pem = read(path)
        .map_err(|error| wrong(KEY, path, &format!("cannot read the key: {error}: check the path and its rights")))?;
    // The error may quote the file.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        wrong(KEY, path, "holds no private key that can be used: expected a PEM file without a passphrase")
    })
}

/// The certificates of all files in the folder and below. Files that hold none are left out, since such folders have
/// hashes, lists and READMEs among them.
fn certificates_below(folder: &Path) -> Result<Vec<CertificateDer<'static>>, Cause> {
    let (mut files, mut left) = (Vec::new(), MOST_ENTRIES);
    collect(folder, DEEPEST, &mut left, &mut files).map_err(|error| {
        wrong(CA_FOLDER, folder, &format!("cannot read the folder: {error}: check the path and its rights"))
    })?;
    files.sort();
    let mut certificates: Vec<CertificateDer<'static>> = Vec::new();
    for file in &files {
        match self::certificates(CA_FOLDER, file) {
            Ok(more) => certificates.extend(more),
            Err(cause) => log::debug!("left out: {cause:?}"),
        }
    }
    if certificates.is_empty() {
        return Err(wrong(CA_FOLDER, folder, "holds no certificate: expected a folder of PEM files"));
    }
    Ok(certificates)
}

fn collect(folder: &Path, depth: usize, left: &mut usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let too_many = || io::Error::other(format!("it holds more than {MOST_ENTRIES} files"));
        *left = left.checked_sub(1).ok_or_else(too_many)?;
        // A link to a folder is left out, as Consul's tools do: its files stand elsewhere, or go in a circle.
        if entry.file_type()?.is_dir() {
            if depth > 0 {
                collect(&entry.path(), depth - 1, left, files)?;
            }
        } else if entry.path().is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Believes whoever answers.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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

/// A fault of the set-up on its way through ureq.
#[derive(Debug)]
pub(super) struct Fault(pub(super) Cause);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Fault {}

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
            Err(Cause::Setup(text)) => text,
            other => panic!("no fault: {other:?}"),
        }
    }

    /// A folder of its own, removed with this.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hsdo-consul-tls-{}-{name}", std::process::id()));
            fs::create_dir_all(path.join("empty/below")).expect("a folder");
            Folder(path)
        }

        fn file(&self, name: &str, text: &[u8]) -> String {
            fs::write(self.0.join(name), text).expect("a file");
            self.path(name)
        }

        fn path(&self, name: &str) -> String {
            self.0.join(name).to_str().expect("a plain path").to_owned()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let folder = Folder::new("faults");
        let other = folder.file("other", b"no certificate at all\n");
        let broken = folder.file("broken", b"-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n");
        let nonsense = folder.file("nonsense", b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n");
        let secret = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let encrypted = folder.file("encrypted", secret);
        let empty = folder.path("empty");
        let whole = folder.path("");
        let cases: [(&[(&str, &str)], &str); 13] = [
            (&[(CA, "/nowhere/ca.pem")], "CONSUL_CACERT /nowhere/ca.pem: cannot read the certificates: No such file"),
            (&[(CA, &other)], "holds no certificate: expected a PEM file"),
            (&[(CA, &broken)], "is no PEM file"),
            (&[(CA, &nonsense)], "holds no certificate that can be understood"),
            (&[(CA_FOLDER, "/nowhere")], "CONSUL_CAPATH /nowhere: cannot read the folder: No such file"),
            (&[(CA_FOLDER, &empty)], "holds no certificate: expected a folder of PEM files"),
            (&[(CA_FOLDER, &whole)], "holds no certificate that can be understood"),
            (&[(CERTIFICATE, &nonsense)], "CONSUL_CLIENT_CERT is set and CONSUL_CLIENT_KEY is not: set both"),
            (&[(KEY, &nonsense)], "CONSUL_CLIENT_KEY is set and CONSUL_CLIENT_CERT is not: set both"),
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
        // The file wins over the folder, which is then not looked at.
        assert!(fault(&[(CA, &other), (CA_FOLDER, "/nowhere")]).starts_with("CONSUL_CACERT"));
    }

    #[test]
    fn words_and_names_are_read_as_consuls_tools_do() {
        for (text, expected) in [("1", true), ("t", true), ("True", true), ("0", false), ("f", false), ("FALSE", false)]
        {
            assert_eq!(truth(text), Ok(expected), "{text}");
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
