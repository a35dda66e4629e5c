//! A real mosquitto on a free port of loopback with a configuration of its own, ended by its pid.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A guard against hanging, not a measure.
const PATIENCE: Duration = Duration::from_secs(120);

/// How the broker is set up besides its port.
#[derive(Debug, Default, Clone)]
pub struct Setup {
    /// User and password that are asked for; anybody is let in when `None`.
    pub login: Option<(&'static str, &'static str)>,
    /// More lines for `mosquitto.conf`; `{dir}` stands for the broker's folder.
    pub lines: Vec<&'static str>,
    /// Files for the broker's folder: name and text.
    pub files: Vec<(&'static str, &'static str)>,
}

/// A running broker; ends with the value.
#[derive(Debug)]
pub struct Mosquitto {
    /// Its port on 127.0.0.1; the same over restarts.
    pub port: u16,
    /// Its folder.
    pub dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts a broker that lets anybody in and keeps nothing on disk.
    pub fn start() -> Self {
        Self::with(&Setup::default())
    }

    /// Starts a broker.
    pub fn with(setup: &Setup) -> Self {
        // Between finding a free port and listening on it somebody else may take it: try again.
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let port = free_port();
            configure(dir.path(), port, setup);
            let mut broker = Self { port, dir, child: None };
            if broker.launch() {
                return broker;
            }
        }
        panic!("mosquitto did not start five times; see its output above");
    }

    /// The URL for an operator.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Ends the broker at once: connections are cut, and what it held in memory is gone.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        self.stop();
        let end = Instant::now() + PATIENCE;
        while !self.launch() {
            assert!(Instant::now() < end, "mosquitto did not start again on port {}", self.port);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Another password, which counts from the next [`Mosquitto::restart`] on.
    pub fn change_password(&self, user: &str, password: &str) {
        set_password(&self.dir.path().join("passwords"), user, password);
    }

    /// True once it listens, false when it ended instead.
    fn launch(&mut self) -> bool {
        let mut child = Command::new(program("mosquitto"))
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.dir.path().join("log")).expect("a log file"))
            .spawn()
            .expect("mosquitto starts; install it with: apt install mosquitto");
        let end = Instant::now() + PATIENCE;
        loop {
            if child.try_wait().expect("mosquitto's state").is_some() {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                eprintln!("mosquitto ended: {log}");
                return false;
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                self.child = Some(child);
                return true;
            }
            assert!(Instant::now() < end, "mosquitto does not listen on port {}", self.port);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that nobody listens on at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn configure(dir: &Path, port: u16, setup: &Setup) {
    let mut text = format!("listener {port} 127.0.0.1\npersistence false\nlog_type error\n");
    // Started by root it would become another user, who may not read this folder.
    text += "user root\n";
    match setup.login {
        None => text += "allow_anonymous true\n",
        Some((user, password)) => {
            let file = dir.join("passwords");
            set_password(&file, user, password);
            text += &format!("allow_anonymous false\npassword_file {}\n", file.display());
        }
    }
    for (name, content) in &setup.files {
        std::fs::write(dir.join(name), content).expect("a file for the broker");
    }
    for line in &setup.lines {
        text += &line.replace("{dir}", &dir.display().to_string());
        text.push('\n');
    }
    std::fs::write(dir.join("mosquitto.conf"), text).expect("mosquitto.conf");
}

/// Makes a file of passwords with this one.
fn set_password(file: &Path, user: &str, password: &str) {
    let made = Command::new(program("mosquitto_passwd"))
        .args(["-b", "-c"])
        .arg(file)
        .args([user, password])
        .stderr(Stdio::null())
        .status()
        .expect("mosquitto_passwd runs");
    assert!(made.success(), "mosquitto_passwd failed");
}

/// Debian keeps daemons in `/usr/sbin`, which is not on everybody's path.
fn program(name: &str) -> PathBuf {
    let daemon = Path::new("/usr/sbin").join(name);
    if daemon.exists() { daemon } else { PathBuf::from(name) }
}
