//! Proxies of both kinds, named in the configuration or by the environment; and redirects, after which nobody
//! else is shown the token or the certificate.

use super::{checked, keys, secret};
use crate::support::certificates::{Authority, Dates};
use crate::support::device::Repository;
use crate::support::secure_web::{Kind, Server};
use edgewarden::config::settings::{AccessSettings, RepositorySettings, TlsSettings};
use edgewarden::domain::{Reason, ReasonCode};
use edgewarden::trust::transport::Transport;
use edgewarden::update::http::HttpTransport;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

const TIMESTAMP: &str = "metadata/timestamp.json";

#[test]
fn a_repository_is_reached_through_a_proxy() {
    let repository = Repository::with(&["v1"]);
    let servers = Authority::new();
    // A name that only the proxies know: who gets there came through one.
    let web = Server::https(&repository.folder(), &servers.sign("models.test", Dates::Good), None);
    let clear = Server::http(&repository.folder());
    let (http, socks) = (Server::proxy(Kind::Proxy), Server::proxy(Kind::Socks));
    let hosts = json!({ "models.test": ["127.0.0.1", web.port], "clear.test": ["127.0.0.1", clear.port] });
    let folder = repository.dir.path();
    let password = secret(&folder.join("password"), "geheim:7\n");
    let wrong = secret(&folder.join("wrong"), "falsch");
    let ca = servers.cert();
    let at_http = format!("proxy = \"http://127.0.0.1:{}\"", http.port);
    let at_socks = format!("proxy = \"socks5h://127.0.0.1:{}\"", socks.port);
    let login =
        |file: &PathBuf| format!("proxy_username = \"pi\"\nproxy_password_file = \"{}\"", file.display());
    let (right, wrong) = (login(&password), login(&wrong));
    let env = format!("http://127.0.0.1:{}", http.port);
    let env = env.as_str();
    let direct = r#"proxy = "none""#;
    let not_that = r#"no_proxy = ["models.test"]"#;
    let (secure, plain) = ("https://models.test/", "http://clear.test/");
    for (url, proxy, more, environment, asks, level, words) in [
        (secure, at_http.as_str(), "", None, false, "ok", "signed"),
        (plain, &at_http, "", None, false, "ok", "signed"),
        (secure, &at_socks, "", None, false, "ok", "signed"),
        (secure, &at_http, "", None, true, "fail", "wants a user and a password (407"),
        (plain, &at_http, "", None, true, "fail", "wants a user and a password (407"),
        (secure, &at_http, &wrong, None, true, "fail", "does not take this user and password (407"),
        (secure, &at_http, &right, None, true, "ok", "signed"),
        (plain, &at_http, &right, None, true, "ok", "signed"),
        (secure, &at_socks, &right, None, true, "ok", "signed"),
        (secure, &at_socks, &wrong, None, true, "fail", "check repository.proxy"),
        (secure, "", "", Some(("HTTPS_PROXY", env)), false, "ok", "signed"),
        (secure, "", "", Some(("https_proxy", env)), false, "ok", "signed"),
        (plain, "", "", Some(("ALL_PROXY", env)), false, "ok", "signed"),
        // Not through it: nobody else knows the name.
        (secure, "", "", None, false, "fail", "host name in repository.url"),
        (secure, direct, "", Some(("HTTPS_PROXY", env)), false, "fail", "host name in repository.url"),
        (secure, &at_http, not_that, None, false, "fail", "host name in repository.url"),
    ] {
        for server in [&http, &socks] {
            let login = if asks { json!("pi:geheim:7") } else { json!(null) };
            server.tell(json!({ "hosts": hosts, "login": login }));
        }
        let authority: &[_] = if url == secure { &[("ca_file", ca.as_path())] } else { &[] };
        let text = format!("{}{proxy}\n{more}", keys(&repository, url, authority));
        let environment: Vec<_> = environment.into_iter().collect();
        let (found, detail) = checked(&text, "repository", &environment);
        assert_eq!(found, level, "{text}: {detail}");
        assert!(detail.contains(words), "{text}: {words}: {detail}");
        assert!(!detail.contains("geheim") && !detail.contains("falsch"), "{detail}");
    }
    // The name went to the proxy as it is.
    assert!(socks.asked().iter().all(|line| line["by"] == "name"), "{:?}", socks.asked());
    http.tell(json!({ "refuse": true }));
    let text = format!("{}{at_http}", keys(&repository, secure, &[("ca_file", &ca)]));
    let (_, detail) = checked(&text, "repository", &[]);
    assert!(detail.contains("does not let this device through") && detail.contains("no_proxy"), "{detail}");
}

fn transport(url: &str, access: AccessSettings) -> HttpTransport {
    let settings = RepositorySettings {
        url: None,
        root: PathBuf::new(),
        stall_timeout: Duration::from_secs(20),
        retries: 1,
        rate_limit: 0,
        access,
    };
    HttpTransport::new(&url.parse().unwrap(), &settings).unwrap()
}

async fn get(transport: &HttpTransport) -> Result<Option<Vec<u8>>, Reason> {
    transport.get(TIMESTAMP, 1 << 20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_device_shows_goes_to_its_repository_alone() {
    let repository = Repository::with(&["v1"]);
    let (servers, devices) = (Authority::new(), Authority::new());
    let (host, device) = (servers.sign("localhost", Dates::Good), devices.sign("press-7", Dates::Good));
    let start = || Server::https_asking(&repository.folder(), &host, &devices.cert());
    let (own, other) = (start(), start());
    let clear = Server::http(&repository.folder());
    let token = secret(&repository.dir.path().join("token"), "tok-1");
    let at = |server: &Server| format!("https://localhost:{}", server.port);
    let client = Some((device.cert.clone(), device.key.clone()));
    let access = AccessSettings {
        tls: TlsSettings { ca_file: Some(servers.cert()), client },
        token_file: Some(token.clone()),
        ..AccessSettings::default()
    };
    let way = transport(&format!("{}/", at(&own)), access);
    assert!(!format!("{way:?}").contains("tok-1"), "{way:?}");

    own.tell(json!({ "redirect": at(&other) }));
    assert!(get(&way).await.unwrap().is_some());
    let shown = |server: &Server| {
        let last = server.asked().pop().unwrap();
        (last["token"].as_str().map(str::to_owned), last["client"].as_str().map(str::to_owned))
    };
    assert_eq!(shown(&own), (Some("Bearer tok-1".into()), Some("press-7".into())));
    assert_eq!(shown(&other), (None, None));
    // Another port of the same host is another server, and a name in the address is nobody's login.
    own.tell(json!({ "redirect": format!("https://user:pass@localhost:{}", other.port) }));
    assert!(get(&way).await.unwrap().is_some());
    assert_eq!(shown(&other), (None, None));

    // Encryption is not given up on the way.
    own.tell(json!({ "redirect": format!("http://localhost:{}", clear.port) }));
    let reason = get(&way).await.unwrap_err();
    assert_eq!(reason.code, ReasonCode::RepositoryUnreachable);
    assert!(reason.detail.contains("redirected from https to http"), "{reason}");
    assert_eq!(clear.asked().len(), 0);

    // Back to where it came from.
    other.tell(json!({ "redirect": at(&own) }));
    own.tell(json!({ "redirect": at(&other) }));
    assert!(get(&way).await.unwrap_err().detail.contains("too many redirects"));
    assert_eq!(shown(&other), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_clear_stays_on_this_machine() {
    let repository = Repository::with(&["v1"]);
    let (clear, proxy) = (Server::http(&repository.folder()), Server::proxy(Kind::Proxy));
    clear.tell(json!({ "token": "tok-1" }));
    let access = AccessSettings {
        token_file: Some(secret(&repository.dir.path().join("token"), "tok-1")),
        proxy: edgewarden::config::settings::ProxySettings::Through {
            url: format!("http://127.0.0.1:{}", proxy.port).parse().unwrap(),
            login: None,
            no_proxy: Vec::new(),
        },
        ..AccessSettings::default()
    };
    let way = transport(&format!("http://127.0.0.1:{}/", clear.port), access);
    assert!(get(&way).await.unwrap().is_some());
    assert_eq!(proxy.asked(), Vec::<serde_json::Value>::new(), "nothing went through the proxy");
}
