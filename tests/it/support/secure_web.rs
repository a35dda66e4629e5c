//! A web server with TLS and proxies, each a Python process of its own (`secure_web.py`), so that the other
//! side of a handshake is OpenSSL.

use super::certificates::Pair;
use super::root;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Serves files.
    Web,
    /// An HTTP proxy.
    Proxy,
    /// A SOCKS5 proxy.
    Socks,
}

/// A running server; ends with the value.
pub struct Server {
    /// Its port on loopback.
    pub port: u16,
    folder: tempfile::TempDir,
    child: Child,
}

impl Server {
    /// A web server with this certificate; with `devices`, only those whom that authority has signed for are
    /// let in.
    pub fn https(files: &Path, pair: &Pair, devices: Option<&Path>) -> Self {
        let options = json!({ "folder": files, "cert": pair.cert, "key": pair.key, "client_ca": devices });
        Self::start(Kind::Web, options)
    }

    /// The same, which also lets in whoever shows no certificate.
    pub fn https_asking(files: &Path, pair: &Pair, devices: &Path) -> Self {
        let options = json!({
            "folder": files, "cert": pair.cert, "key": pair.key, "client_ca": devices, "must": false,
        });
        Self::start(Kind::Web, options)
    }

    /// A web server in the clear.
    pub fn http(files: &Path) -> Self {
        Self::start(Kind::Web, json!({ "folder": files }))
    }

    /// A proxy.
    pub fn proxy(kind: Kind) -> Self {
        Self::start(kind, json!({}))
    }

    fn start(kind: Kind, mut options: Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (control, log) = (folder.path().join("control"), folder.path().join("log"));
        std::fs::write(&control, "{}").expect("write the control file");
        std::fs::write(&log, "").expect("write the log");
        options["kind"] = format!("{kind:?}").to_lowercase().into();
        options["control"] = control.to_str().expect("a text path").into();
        options["log"] = log.to_str().expect("a text path").into();
        let mut child = Command::new("python3")
            .arg(root().join("tests/it/support/secure_web.py"))
            .arg(options.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Of handshakes that fail, as they shall.
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 starts; install it with: apt install python3");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        out.read_line(&mut line).expect("the server's port");
        let port = line.trim().parse().expect("the server's port");
        Self { port, folder, child }
    }

    /// From now on it does this: `token`, `status`, `client`, `redirect`; of proxies `login`, `refuse`, `hosts`.
    pub fn tell(&self, control: Value) {
        let new = self.path("new");
        std::fs::write(&new, control.to_string()).expect("write the control file");
        std::fs::rename(new, self.path("control")).expect("replace the control file");
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("log")).expect("read the log");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
