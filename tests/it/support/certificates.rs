//! Certificates for tests, made by OpenSSL: authorities, and what they sign for a host or a device, also with
//! dates that are over.

use std::path::{Path, PathBuf};
use std::process::Command;

/// When a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dates {
    /// Now.
    Good,
    /// Some years ago.
    Over,
}

/// A certificate authority in a folder of its own.
pub struct Authority {
    folder: tempfile::TempDir,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: PathBuf,
    /// The key, mode 0600.
    pub key: PathBuf,
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

const CONFIGURATION: &str = "\
[ca]\ndefault_ca = d\n\
[d]\ndatabase = index.txt\nnew_certs_dir = .\nrand_serial = yes\ndefault_md = sha256\npolicy = p\n\
unique_subject = no\ncertificate = ca.pem\nprivate_key = ca.key\nx509_extensions = e\n\
[p]\ncommonName = supplied\n[e]\n";

impl Authority {
    /// A new one, which nobody trusts yet.
    pub fn new() -> Self {
        Self::named("test-authority")
    }

    /// One of another name, so that none of the others can be taken for its issuer.
    pub fn named(name: &str) -> Self {
        let authority = Self { folder: tempfile::tempdir().expect("a folder") };
        std::fs::write(authority.path("ca.cnf"), CONFIGURATION).expect("write ca.cnf");
        std::fs::write(authority.path("index.txt"), "").expect("write index.txt");
        authority.openssl(&format!("req -x509 {KEY} -keyout ca.key -out ca.pem -subj /CN={name} -days 2"));
        authority
    }

    /// Its own certificate.
    pub fn cert(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The lines with which a mosquitto's listener shows this certificate, and trusts those of this authority.
    pub fn listener(&self, server: &Pair) -> String {
        let [ca, cert, key] =
            [&self.cert(), &server.cert, &server.key].map(|path| path.display().to_string());
        format!("cafile {ca}\ncertfile {cert}\nkeyfile {key}")
    }

    /// Signs a certificate for a host name, or for a device by that name.
    pub fn sign(&self, name: &str, dates: Dates) -> Pair {
        let file = |kind: &str| format!("{name}-{dates:?}.{kind}");
        let [key, request, cert, extensions] = ["key", "csr", "pem", "ext"].map(file);
        let san = match name.parse::<std::net::IpAddr>() {
            Ok(address) => format!("IP:{address}"),
            Err(_) => format!("DNS:{name}"),
        };
        let text = format!("subjectAltName={san}\nbasicConstraints=CA:FALSE\n");
        std::fs::write(self.path(&extensions), text).expect("write the extensions");
        self.openssl(&format!("req {KEY} -keyout {key} -out {request} -subj /CN={name}"));
        let span = match dates {
            Dates::Good => "-days 2",
            Dates::Over => "-startdate 20200101000000Z -enddate 20210101000000Z",
        };
        self.openssl(&format!(
            "ca -batch -notext -config ca.cnf -in {request} -out {cert} -extfile {extensions} {span}"
        ));
        Pair { cert: self.path(&cert), key: self.path(&key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        openssl(self.folder.path(), arguments);
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl")
        .current_dir(folder)
        .args(arguments.split_whitespace())
        .output()
        .expect("openssl runs; install it with: apt install openssl");
    assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}
