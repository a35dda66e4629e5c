//! The broker of the story: mosquitto on a free loopback port, or one that the user names.

use anyhow::{Context, bail};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use url::Url;

/// Longest wait for mosquitto to listen.
const PATIENCE: Duration = Duration::from_secs(15);
/// Another program may take the free port first; so often another one is tried.
const TRIES: usize = 5;

/// A broker that answers; a started one ends when this is dropped.
pub struct Broker {
    /// `mqtt://host:port`
    pub url: Url,
    /// For people: what it is.
    pub description: String,
    child: Option<Child>,
}

impl Broker {
    /// One that runs already.
    pub fn existing(url: Url) -> Self {
        Self { description: format!("the broker at {url}"), url, child: None }
    }

    /// Starts mosquitto with its files in `folder`.
    ///
    /// # Errors
    /// Where mosquitto is not installed, with the remedy, or does not start, with its own words.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let program = find().context(
            "mosquitto, the MQTT broker, is not installed: run ./packaging/setup.sh or 'apt install mosquitto', \
             or name a broker with --broker mqtt://HOST:PORT",
        )?;
        fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
        let mut last = None;
        for _ in 0..TRIES {
            match Self::try_start(&program, folder) {
                Ok(broker) => return Ok(broker),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("mosquitto did not start")))
    }

    fn try_start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        let config = folder.join("mosquitto.conf");
        let log = folder.join("mosquitto.log");
        // Queues that hold all results of a pause of the listener, so that none is dropped here.
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 10000\n"
        );
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let output = File::create(&log).with_context(|| format!("write {}", log.display()))?;
        let mut child = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("share mosquitto's log")?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let began = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            let ended = child.try_wait().context("watch mosquitto")?;
            if ended.is_some() || began.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                let said = fs::read_to_string(&log).unwrap_or_default();
                bail!("mosquitto does not listen on {address}: {}", said.trim().replace('\n', "; "));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let url = Url::parse(&format!("mqtt://{address}")).context("name the broker")?;
        Ok(Self { description: format!("mosquitto on {address}"), url, child: Some(child) })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// mosquitto in the PATH, or where Debian puts it outside the PATH of users.
fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"].map(PathBuf::from))
        .map(|folder| folder.join("mosquitto"))
        .find(|file| file.is_file())
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port on 127.0.0.1")?;
    Ok(listener.local_addr().context("find a free port on 127.0.0.1")?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_broker_listens_and_ends_with_its_value() {
        if find().is_none() {
            eprintln!("skipped: mosquitto is not installed");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(folder.path()).unwrap();
        let address = broker.url.socket_addrs(|| None).unwrap()[0];
        assert!(TcpStream::connect(address).is_ok());
        drop(broker);
        assert!(TcpStream::connect(address).is_err());
    }
}
