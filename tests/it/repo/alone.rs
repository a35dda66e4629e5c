//! One person's way with one key.

use super::{Desk, tree};
use std::os::unix::fs::PermissionsExt;

fn begun() -> Desk {
    let desk = Desk::new();
    desk.good("repo init fleet");
    let bundle = desk.bundle("finder", "1.0.0");
    desk.good(&format!("repo publish fleet {bundle}"));
    desk
}

#[test]
fn one_key_does_everything_in_two_commands() {
    let desk = begun();
    let mode = |name| std::fs::metadata(desk.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("fleet-keys"), mode("fleet-keys/signing.pem")), (0o700, 0o600));
    let list = desk.json("repo list fleet");
    let offer = &list["releases"][0];
    assert_eq!((offer["release"].as_str(), offer["role"].as_str()), (Some("finder@1.0.0"), Some("targets")));
    assert_eq!(offer["signed_by"].as_array().unwrap().len(), 1, "{offer}");
    for role in list["roles"].as_array().unwrap() {
        assert_eq!((&role["threshold"], &role["signed_by"]), (&1.into(), &offer["signed_by"]), "{role}");
    }
    assert!(desk.good("repo list fleet").contains("finder@1.0.0"));
    assert!(desk.good("repo check fleet").contains("1 release that a device takes"));
    assert!(desk.good("repo pending fleet").contains("Nothing waits"));
    desk.good("repo refresh fleet");
    desk.good("repo export fleet finder@1.0.0 -o finder.bundle");
    desk.good("bundle verify finder.bundle --root fleet/metadata/1.root.json");
    // A key by its bare name, here.
    desk.good("repo key new here.pem");
    desk.good("repo key show here.pub");
    // Also with a key from the outside and a program that has it.
    let _ = desk.key("alice");
    desk.good("repo key add fleet targets alice/alice.pub");
    std::fs::remove_file(desk.path("alice/alice.pub")).unwrap();
    desk.bad("repo key add fleet targets alice/alice.pub", 1, "alice/alice.pub");
}

#[test]
fn a_delisted_release_is_gone_and_its_files_are_told_as_left_over() {
    let desk = begun();
    let second = desk.bundle("finder", "1.1.0");
    desk.good(&format!("repo publish fleet {second}"));
    assert_eq!(desk.json("repo delist fleet finder@1.0.0")["state"], "live");
    assert_eq!(desk.releases(), ["finder@1.1.0"]);
    desk.bad("repo delist fleet finder@1.0.0", 1, "finder@1.0.0");
    desk.bad("repo export fleet finder@1.0.0", 1, "finder@1.0.0");
    let checked = desk.good("repo check fleet");
    assert!(checked.contains("named by no list"), "{checked}");
    // On the list again, as it was.
    desk.good("repo publish fleet finder-1.0.0");
    assert_eq!(desk.releases(), ["finder@1.0.0", "finder@1.1.0"]);
    assert!(!desk.good("repo check fleet").contains("named by no list"));
}

#[test]
fn a_check_tells_by_its_exit_status_what_must_be_done() {
    let desk = begun();
    let root = "--root fleet/metadata/1.root.json";
    let found = |line: &str, code: i32, severity: &str, words: &str| {
        let line = format!("{line} --json");
        let ended = desk.run(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(ended.code, Some(code), "{line}: {}{}", ended.stdout, ended.stderr);
        let findings = serde_json::from_str::<serde_json::Value>(&ended.stdout).unwrap()["findings"].clone();
        let found = findings.as_array().unwrap().iter().find(|one| one["severity"] == severity);
        let detail = found.unwrap_or_else(|| panic!("{line}: {findings}"))["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{line}: {detail}");
    };
    found(&format!("repo check fleet {root} --days 100"), 1, "bad", "expires on");
    let whole = tree(&desk.path("fleet"));
    for (path, bytes) in &whole {
        let name = path.strip_prefix(desk.path("fleet")).unwrap().to_str().unwrap();
        let mut changed = bytes.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        std::fs::write(path, changed).unwrap();
        match name.split('/').next().unwrap() {
            "blobs" => found("repo check fleet", 1, "bad", "not the one that was signed"),
            // Older metadata is asked for by nobody.
            "metadata" if name.starts_with("metadata/1.") && !name.contains("root") => {
                desk.good("repo check fleet");
            }
            "deltas" if name.ends_with(".json") => {
                // What is not understood of it is passed over; nobody signs it.
                assert_ne!(desk.run(&["repo", "check", "fleet"]).code, Some(2), "{name}");
            }
            "deltas" => found("repo check fleet", 1, "bad", "run `edgewarden repo deltas`"),
            _ => {
                let ended = desk.run(&["repo", "check", "fleet"]);
                assert_eq!(ended.code, Some(2), "{name}: {}{}", ended.stdout, ended.stderr);
            }
        }
        std::fs::write(path, bytes).unwrap();
    }
    let blob = whole.keys().find(|path| path.to_string_lossy().contains("/blobs/")).unwrap();
    std::fs::remove_file(blob).unwrap();
    found("repo check fleet", 1, "bad", "publish its bundle folder again");
    desk.good("repo publish fleet finder-1.0.0");
    desk.good(&format!("repo check fleet {root}"));
    let stranger = Desk::new();
    stranger.good("repo init fleet");
    std::fs::copy(stranger.path("fleet/metadata/1.root.json"), desk.path("other.json")).unwrap();
    found("repo check fleet --root other.json", 2, "refused", "signature");
}

#[test]
fn a_key_that_others_can_read_and_a_folder_of_others_are_refused_with_the_remedy() {
    let desk = begun();
    let key = desk.path("fleet-keys/signing.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    desk.bad("repo refresh fleet", 1, "chmod 600");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    desk.bad("repo publish fleet finder-1.0.0 --keys nowhere", 1, "--keys");
    desk.bad("repo sign fleet", 1, "nothing waits");
    desk.bad("repo key new fleet-keys/signing.pub", 64, "signing.pub");
    let stranger = Desk::new();
    stranger.good("repo init fleet");
    std::fs::copy(stranger.path("fleet-keys/signing.pem"), &key).unwrap();
    let second = desk.bundle("finder", "2.0.0");
    desk.bad(&format!("repo publish fleet {second}"), 1, "none of its keys may sign");
    desk.bad("repo refresh fleet", 1, "0 of them are at hand");
    assert_eq!(desk.releases(), ["finder@1.0.0"]);
}

#[test]
fn the_last_key_of_a_role_and_thresholds_that_cannot_be_are_refused() {
    let desk = begun();
    let before = tree(&desk.path("fleet"));
    let id = desk.json("repo key show fleet-keys/signing.pem")["id"].as_str().unwrap().to_owned();
    desk.key("alice");
    for (line, code, words) in [
        (format!("repo key revoke fleet root {id}"), 1, "needs 1 of 0 keys"),
        ("repo key revoke fleet root 0123456789ab".to_owned(), 1, "names none"),
        ("repo key revoke fleet root x".to_owned(), 64, "hexadecimal"),
        ("repo key add fleet root fleet-keys/signing.pem".to_owned(), 1, "private key"),
        ("repo key add fleet nobody alice/alice.pub".to_owned(), 1, "role nobody"),
        ("repo key add fleet root,targets alice/alice.pub --threshold 3".to_owned(), 1, "needs 3 of 2"),
        ("repo root rotate fleet --threshold root=0".to_owned(), 1, "needs 0 of 1"),
        ("repo delegate fleet root --paths a --key alice/alice.pub".to_owned(), 1, "another"),
        ("repo delegate fleet Acme --paths a --key alice/alice.pub".to_owned(), 1, "a-z"),
        ("repo delegate fleet acme --paths a/b --key alice/alice.pub".to_owned(), 1, "names of models"),
        ("repo delegate fleet acme --paths a --key alice/alice.pub --threshold 2".to_owned(), 1, "2 of 1"),
        ("repo delegate fleet acme --remove".to_owned(), 1, "none of this name"),
        ("repo publish fleet finder-1.0.0 --delegation acme".to_owned(), 1, "role acme"),
    ] {
        desk.bad(&line, code, words);
    }
    assert_eq!(tree(&desk.path("fleet")), before);
    desk.bad("repo init other --threshold root=2 --role-key root=alice/alice.pub", 1, "needs 2 of 1");
}

/// A program that signs by openssl with the key of `prog/`, and kills whoever asked it when the role is
/// `deadly`.
fn program(deadly: &str) -> [String; 4] {
    let command = format!(
        "if [ \"$EDGEWARDEN_ROLE\" = {deadly} ]; then kill -9 $PPID; fi; exec openssl pkeyutl -sign -rawin -in /dev/stdin -inkey prog/prog.pem"
    );
    ["--signer".into(), command, "--signer-key".into(), "prog/prog.pub".into()]
}

#[test]
fn a_publisher_that_is_killed_leaves_the_old_repository_whole_and_can_go_on() {
    let desk = Desk::new();
    desk.key("prog");
    desk.good("repo init fleet --role-key targets,snapshot,timestamp=prog/prog.pub");
    let run = |desk: &Desk, words: &[&str], deadly: &str| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).chain(program(deadly)).collect();
        desk.run(&words)
    };
    // Its first list waited for the program.
    assert_eq!(run(&desk, &["repo", "sign", "fleet"], "nobody").code, Some(0));
    let first = desk.bundle("finder", "1.0.0");
    assert_eq!(run(&desk, &["repo", "publish", "fleet", &first], "nobody").code, Some(0));
    let second = desk.bundle("finder", "2.0.0");
    for deadly in ["targets", "snapshot", "timestamp"] {
        let desk = desk.copy();
        let metadata = tree(&desk.path("fleet/metadata"));
        let ended = run(&desk, &["repo", "publish", "fleet", &second], deadly);
        assert_eq!(ended.code, None, "it was killed: {}", ended.stderr);
        let after = tree(&desk.path("fleet/metadata"));
        assert_eq!(after.values().collect::<Vec<_>>(), metadata.values().collect::<Vec<_>>());
        assert_eq!(desk.releases(), ["finder@1.0.0"], "{deadly}");
        desk.good("repo check fleet");
        let ended = run(&desk, &["repo", "publish", "fleet", &second], "nobody");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(desk.releases(), ["finder@1.0.0", "finder@2.0.0"]);
        assert!(!desk.good("repo check fleet").contains("note"), "{deadly}");
    }
}

#[test]
fn a_program_that_does_not_sign_is_told_and_nothing_is_published() {
    let desk = begun();
    desk.key("prog");
    desk.good("repo key add fleet targets prog/prog.pub --threshold 2 --sign-with prog/prog.pem");
    let second = desk.bundle("finder", "2.0.0");
    for (command, words) in [("false", "it failed"), ("echo x", "no signature"), ("sleep 60", "within 1 s")] {
        let words_of =
            ["repo", "publish", "fleet", &second, "--signer", command, "--signer-key", "prog/prog.pub"];
        let ended = desk.run(&[&words_of[..], &["--signer-timeout", "1"]].concat());
        assert_eq!(ended.code, Some(1), "{command}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{command}: {}", ended.stderr);
    }
    assert_eq!(desk.releases(), ["finder@1.0.0"]);
    desk.bad("repo refresh fleet --signer true", 64, "--signer-key");
}

#[test]
fn a_refresh_that_was_published_does_not_fail_for_what_it_warns_of() {
    let desk = Desk::new();
    desk.good("repo init fleet");
    let bundle = desk.bundle("finder", "1.0.0");
    desk.good(&format!("repo publish fleet {bundle}"));
    for manifest in tree(&desk.path("fleet/targets")).keys() {
        std::fs::remove_file(manifest).unwrap();
    }
    let ended = desk.run(&["repo", "refresh", "fleet"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("Signed timestamp 3"), "{}", ended.stdout);
    assert!(ended.stderr.contains("warning: ") && ended.stderr.contains("repo check"), "{}", ended.stderr);
}
