//! Repositories that are not open to everybody: TLS with certificates on both sides, tokens, proxies; what
//! `check` says when one of them is wrong, and what a device does while they are renewed.

/// Through proxies, and where what the device shows must not go.
mod ways;
/// Files that change under a running device, and a network that comes late.
mod while_running;

use crate::support::certificates::{Authority, Dates};
use crate::support::device::Repository;
use crate::support::secure_web::Server;
use crate::support::{Config, Edgewarden};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A secret file for its owner alone, put in its place at once.
pub fn secret(path: &Path, text: &str) -> PathBuf {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(new, path).unwrap();
    path.to_owned()
}

/// What `check` finds about one subject: its level and its words.
pub fn checked(repository: &str, subject: &str, environment: &[(&str, &str)]) -> (String, String) {
    let config = Config::new(&format!(
        "[device]\nid = \"bench-1\"\n[repository]\n{repository}\n[[pipeline]]\nsource = {{ kind = \"synthetic\" }}\n"
    ));
    let output = Edgewarden::command()
        .args(["check", "--json", "--config"])
        .arg(config.path())
        // The machine's own would be met instead of the test's.
        .env_remove("HTTPS_PROXY")
        .env_remove("https_proxy")
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .env_remove("ALL_PROXY")
        .env_remove("all_proxy")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = report["findings"].as_array().unwrap().iter().find(|finding| finding["subject"] == subject);
    let found = found.unwrap_or_else(|| panic!("nothing on {subject} in {report:#}"));
    let text = |key: &str| found[key].as_str().unwrap().to_owned();
    println!("{}: {}", text("level"), text("detail"));
    (text("level"), text("detail"))
}

/// The keys of a repository: its pinned root, its address, and more.
pub fn keys(repository: &Repository, url: &str, more: &[(&str, &Path)]) -> String {
    let root = repository.publisher.pinned_root();
    let mut text = format!("root = \"{}\"\nurl = \"{url}\"\n", root.display());
    for (key, path) in more {
        text += &format!("{key} = \"{}\"\n", path.display());
    }
    text
}

#[test]
fn check_names_what_is_wrong_with_certificates() {
    let repository = Repository::with(&["v1"]);
    let (servers, devices, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let files = repository.folder();
    let host = servers.sign("localhost", Dates::Good);
    let device = devices.sign("press-7", Dates::Good);
    let old_device = devices.sign("press-7-old", Dates::Over);
    let stranger = strangers.sign("press-7", Dates::Good);
    let plain = Server::https(&files, &host, None);
    let over = Server::https(&files, &servers.sign("localhost", Dates::Over), None);
    let other = Server::https(&files, &servers.sign("models.example", Dates::Good), None);
    let closed = Server::https(&files, &host, Some(&devices.cert()));
    let clear = Server::http(&files);
    let ca = servers.cert();
    let at = |server: &Server| format!("https://localhost:{}/", server.port);
    let shown = |pair: &'_ crate::support::certificates::Pair| (pair.cert.clone(), pair.key.clone());
    let [good_pair, old_pair, strange_pair] = [&device, &old_device, &stranger].map(shown);
    let mixed = (device.cert.clone(), stranger.key.clone());
    for (server, authority, pair, level, words) in [
        (&plain, Some(&ca), None, "ok", &["signed, 1 releases"][..]),
        (&plain, None, None, "fail", &["nobody trusted here", "repository.ca_file"]),
        (&plain, Some(&strangers.cert()), None, "fail", &["nobody trusted here", "repository.ca_file"]),
        (&over, Some(&ca), None, "fail", &["the server's certificate has expired", "renewed", "clock"]),
        (&other, Some(&ca), None, "fail", &["for another host", "repository.url"]),
        (&closed, Some(&ca), Some(&good_pair), "ok", &["signed"]),
        (&closed, Some(&ca), None, "fail", &["wants a client certificate", "repository.cert_file"]),
        (&closed, Some(&ca), Some(&old_pair), "fail", &["this device's certificate has expired", "renew"]),
        (&closed, Some(&ca), Some(&strange_pair), "fail", &["does not take this device's certificate"]),
        (&closed, Some(&ca), Some(&mixed), "fail", &["is not the certificate of the key"]),
        (&clear, Some(&ca), None, "fail", &["does not speak TLS", "port"]),
    ] {
        let mut more: Vec<(&str, &Path)> = Vec::new();
        more.extend(authority.map(|file| ("ca_file", file.as_path())));
        if let Some((cert, key)) = pair {
            more.extend([("cert_file", cert.as_path()), ("key_file", key.as_path())]);
        }
        let (found, detail) = checked(&keys(&repository, &at(server), &more), "repository", &[]);
        assert_eq!(found, level, "{detail}");
        assert!(words.iter().all(|word| detail.contains(word)), "{words:?}: {detail}");
    }
    let pair = [("cert_file", old_device.cert.as_path()), ("key_file", &old_device.key)];
    let (level, detail) = checked(&keys(&repository, &at(&closed), &pair), "repository.cert_file", &[]);
    assert!(level == "fail" && detail.contains("expired on 2021-01-01"), "{detail}");

    // A system without any authority, and one that was told of one.
    let bare = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nonexistent")];
    let (level, detail) = checked(&keys(&repository, &at(&plain), &[]), "repository", &bare);
    assert!(level == "fail" && detail.contains("apt install ca-certificates"), "{detail}");
    let (level, detail) = checked(&keys(&repository, &at(&plain), &[("ca_file", &ca)]), "repository", &bare);
    assert_eq!(level, "ok", "{detail}");
}

#[test]
fn check_names_what_is_wrong_with_tokens_names_and_files() {
    let repository = Repository::with(&["v1"]);
    let servers = Authority::new();
    let web = Server::https(&repository.folder(), &servers.sign("localhost", Dates::Good), None);
    let url = format!("https://localhost:{}/", web.port);
    let (folder, ca) = (repository.dir.path(), servers.cert());
    let right = secret(&folder.join("right"), "tok-1.A_b~+/=\n");
    let wrong = secret(&folder.join("wrong"), "tok-2");
    let two = secret(&folder.join("two"), "tok 1");
    let open = secret(&folder.join("open"), "tok-1.A_b~+/=");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let absent = folder.join("absent");
    for (control, token, level, words) in [
        (json!({ "token": "tok-1.A_b~+/=" }), Some(&right), "ok", &["signed"][..]),
        (json!({ "token": "tok-1.A_b~+/=" }), None, "fail", &["401", "set repository.token_file"]),
        (json!({ "token": "tok-1.A_b~+/=" }), Some(&wrong), "fail", &["401", "renew it in", "/wrong"]),
        (json!({ "status": 403 }), Some(&right), "fail", &["403", "let this device read"]),
        (json!({ "status": 500 }), None, "fail", &["500", "web server's log"]),
        (json!({}), Some(&open), "fail", &["repository.token_file", "chmod 600"]),
        (json!({}), Some(&two), "fail", &["more than a token"]),
        (json!({}), Some(&absent), "fail", &["No such file", "LoadCredential="]),
    ] {
        web.tell(control);
        let mut more: Vec<(&str, &Path)> = vec![("ca_file", &ca)];
        more.extend(token.map(|file| ("token_file", file.as_path())));
        let (found, detail) = checked(&keys(&repository, &url, &more), "repository", &[]);
        assert_eq!(found, level, "{detail}");
        assert!(words.iter().all(|word| detail.contains(word)), "{words:?}: {detail}");
        assert!(!detail.contains("tok-"), "a secret is said: {detail}");
    }
    let named = keys(&repository, "https://nobody.invalid/", &[("ca_file", &ca)]);
    let (level, detail) = checked(&named, "repository", &[]);
    assert_eq!(level, "fail");
    assert!(detail.contains("host name in repository.url") && detail.contains("name server"), "{detail}");
    let nobody = keys(&repository, "https://localhost:1/", &[("ca_file", &ca)]);
    let (_, detail) = checked(&nobody, "repository", &[]);
    assert!(detail.contains("refused") && detail.contains("nothing listens there"), "{detail}");
}
