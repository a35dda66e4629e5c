//! How a repository is reached: certificates, token, proxy.

use super::{SMALLEST, faults, read};
use crate::config::settings::{AccessSettings, ProxySettings};
use std::path::Path;

fn repository(keys: &str) -> String {
    format!("{SMALLEST}[repository]\n{keys}\n")
}

fn access(keys: &str) -> AccessSettings {
    read(&repository(keys)).unwrap().repository.unwrap().access
}

#[test]
fn certificates_a_token_and_a_proxy_are_read() {
    assert_eq!(access("url = \"https://h/\""), AccessSettings::default());
    let all = access(
        "url = \"https://h/\"\nca_file = \"ca.pem\"\ncert_file = \"c.pem\"\nkey_file = \"credential:key\"\n\
         token_file = \"token\"\nproxy = \"socks5h://p:1080\"\nproxy_username = \"u\"\n\
         proxy_password_file = \"/p\"\nno_proxy = [\"lan\", \"10.0.0.0/8\", \"::1\", \".a.b\", \"*\"]",
    );
    assert_eq!(all.tls.ca_file.as_deref(), Some(Path::new("/etc/edgewarden/ca.pem")));
    let (cert, key) = all.tls.client.unwrap();
    assert_eq!(cert, Path::new("/etc/edgewarden/c.pem"));
    assert_eq!(key, Path::new("/run/credentials/edgewarden.service/key"));
    assert_eq!(all.token_file.as_deref(), Some(Path::new("/etc/edgewarden/token")));
    let ProxySettings::Through { url, login, no_proxy } = all.proxy else { panic!("{:?}", all.proxy) };
    assert_eq!((url.as_str(), no_proxy.len()), ("socks5h://p:1080", 5));
    assert_eq!(login, Some(("u".to_owned(), "/p".into())));
    assert_eq!(access("url = \"http://h/\"\nproxy = \"none\"").proxy, ProxySettings::Direct);
    for loopback in ["http://127.0.0.1:8080/", "http://localhost/", "http://[::1]/"] {
        assert!(access(&format!("url = \"{loopback}\"\ntoken_file = \"t\"")).token_file.is_some());
    }
}

#[test]
fn each_fault_of_access_names_its_remedy() {
    for (keys, wanted) in [
        ("url = \"https://h/\"\ncert_file = \"a\"", "repository.key_file: is missing"),
        ("url = \"https://h/\"\nkey_file = \"a\"", "repository.cert_file: is missing"),
        ("url = \"http://h/\"\nca_file = \"a\"", "repository.url: is without TLS"),
        ("url = \"file:///srv/\"\nca_file = \"a\"", "repository.url: is without TLS"),
        ("url = \"http://h/\"\ntoken_file = \"a\"", "repository.url: would send the token in the clear"),
        ("url = \"http://127.0.0.1.example.com/\"\ntoken_file = \"a\"", "in the clear"),
        ("token_file = \"a\"", "in the clear"),
        ("url = \"https://h/\"\ntoken = \"hunter2\"", "repository.token: a secret does not belong"),
        ("url = \"https://h/\"\nproxy = \"ftp://p\"", "repository.proxy: \"ftp://p\" is no proxy"),
        ("url = \"https://h/\"\nproxy = \"p:3128\"", "repository.proxy: \"p:3128\" is no proxy"),
        (
            "url = \"https://h/\"\nproxy = \"http://u:hunter2@p\"",
            "use proxy_username and proxy_password_file",
        ),
        ("url = \"https://h/\"\nproxy = \"http://p/x\"", "is no proxy; write it like http://proxy"),
        (
            "url = \"https://h/\"\nproxy = \"http://p\"\nproxy_username = \"u\"",
            "proxy_password_file: is missing",
        ),
        (
            "url = \"https://h/\"\nproxy = \"http://p\"\nproxy_password_file = \"f\"",
            "proxy_username: is missing",
        ),
        ("url = \"https://h/\"\nno_proxy = [\"lan\"]", "repository.proxy: is missing or \"none\""),
        (
            "url = \"https://h/\"\nproxy = \"http://p\"\nno_proxy = [\"http://lan\"]",
            "no_proxy: \"http://lan\" is no host",
        ),
        ("url = \"file:///srv/\"\nproxy = \"http://p\"", "repository.proxy: is only for"),
    ] {
        let faults = faults(&repository(keys));
        assert_eq!(faults.len(), 1, "{keys}: {faults:?}");
        assert!(faults[0].contains(wanted), "{keys}: {faults:?}");
        assert!(!faults[0].contains("hunter2"));
    }
}

#[test]
fn faults_of_access_are_told_with_the_others() {
    let text =
        repository("url = \"http://h/\"\ncert_file = \"a\"\ntoken_file = \"t\"\nretries = -1\nproxy = 5");
    assert_eq!(faults(&text).len(), 4, "{:#?}", faults(&text));
}

#[test]
fn what_setup_was_told_is_left_to_setup() {
    let setup = |list: &str| format!("{SMALLEST}[setup]\nwithout = {list}\n");
    assert_eq!(read(&setup("[\"broker\", \"camera\"]")).unwrap(), read(SMALLEST).unwrap());
    assert!(faults(&setup("[\"coffee\"]"))[0].contains("\"coffee\" is not known"));
}
