//! A team: two of three sign the root and the releases, each at a place of their own; the key folder beside
//! the repository can only renew what expires soon.

use super::{Desk, tree};

const SIGNERS: [&str; 3] = ["alice", "bob", "carol"];

/// A repository that was begun by Alice and Bob.
fn begun() -> (Desk, [String; 3]) {
    let desk = Desk::new();
    let ids = SIGNERS.map(|name| desk.key(name));
    let keys: Vec<String> =
        SIGNERS.iter().map(|name| format!("--role-key root,targets={name}/{name}.pub")).collect();
    let begun = desk.json(&format!("repo init fleet {} --threshold root,targets=2", keys.join(" ")));
    assert_eq!(begun["outcome"]["state"], "waiting");
    assert!(!desk.path("fleet/metadata/1.root.json").exists(), "nothing is served before it is signed");
    desk.bad("repo publish fleet x", 1, "not begun yet");
    desk.sign_at("alice");
    assert_eq!(desk.back_from("alice"), "waiting");
    desk.sign_at("bob");
    let said = desk.good("repo sign fleet --request bob/pending.json");
    assert!(said.contains("fleet/metadata/1.root.json  (copy it to each device"), "{said}");
    desk.good("repo check fleet --root fleet/metadata/1.root.json");
    (desk, ids)
}

/// Has two people sign what waits, one after the other.
fn signed_by(desk: &Desk, names: [&str; 2]) {
    desk.sign_at(names[0]);
    assert_eq!(desk.back_from(names[0]), "waiting");
    desk.sign_at(names[1]);
    assert_eq!(desk.back_from(names[1]), "live");
}

#[test]
fn two_of_three_publish_at_different_places_and_times() {
    let (desk, ids) = begun();
    let bundle = desk.bundle("finder", "1.0.0");
    let before = tree(&desk.path("fleet/metadata"));
    assert_eq!(desk.json(&format!("repo publish fleet {bundle}"))["state"], "waiting");
    assert_eq!(tree(&desk.path("fleet/metadata")), before);
    let pending = desk.json("repo pending fleet");
    assert_eq!((&pending["missing"][0]["have"], &pending["missing"][0]["threshold"]), (&0.into(), &2.into()));
    // Both get it at once, and what each of them sees is what will be published.
    desk.sign_at("carol");
    desk.sign_at("alice");
    let shown = desk.good("repo sign --request carol/pending.json --root fleet/metadata/1.root.json --show");
    assert!(shown.contains("adds finder@1.0.0, SHA-256 "), "{shown}");
    desk.bad(
        "repo sign --request carol/pending.json --root fleet/metadata/1.root.json --sign-with carol/carol.pem",
        1,
        "no signature was added",
    );
    assert_eq!(desk.back_from("alice"), "waiting");
    assert_eq!(desk.releases(), Vec::<String>::new());
    desk.bad(&format!("repo publish fleet {bundle}"), 1, "a change waits");
    // What is online goes on meanwhile.
    desk.good("repo refresh fleet");
    assert_eq!(desk.back_from("carol"), "live");
    assert_eq!(desk.releases(), ["finder@1.0.0"]);
    let offer = &desk.json("repo list fleet")["releases"][0];
    let mut signers = [ids[0].clone(), ids[2].clone()];
    signers.sort();
    assert_eq!(offer["signed_by"], serde_json::json!(signers));
    desk.good("repo check fleet --root fleet/metadata/1.root.json");
    assert!(desk.good("repo pending fleet").contains("Nothing waits"));
    // The same from the same desk.
    let second = desk.bundle("finder", "2.0.0");
    desk.good(&format!("repo publish fleet {second} --sign-with bob/bob.pem --sign-with alice/alice.pem"));
    assert_eq!(desk.releases(), ["finder@1.0.0", "finder@2.0.0"]);
}

#[test]
fn one_stolen_key_publishes_nothing_whoever_has_the_repository_and_its_key_folder() {
    let (desk, ids) = begun();
    let thief = desk.copy();
    for name in ["bob", "carol"] {
        std::fs::remove_dir_all(thief.path(name)).unwrap();
    }
    let before = tree(&thief.path("fleet/metadata"));
    let evil = thief.bundle("evil", "6.6.6");
    for line in [
        format!("repo publish fleet {evil} --sign-with alice/alice.pem"),
        "repo root rotate fleet --threshold root,targets=1 --sign-with alice/alice.pem".to_owned(),
        format!("repo key revoke fleet root,targets {} --sign-with alice/alice.pem --threshold 1", ids[1]),
        "repo key add fleet targets fleet-keys/own.pub --threshold 1 --sign-with alice/alice.pem".to_owned(),
    ] {
        if line.contains("own.pub") {
            thief.good("repo key new fleet-keys/own.pem");
        }
        assert_eq!(thief.json(&line)["state"], "waiting", "{line}");
        // Neither her key again nor one of their own changes that.
        thief.bad("repo sign fleet --sign-with alice/alice.pem", 1, "no signature was added");
        assert_eq!(tree(&thief.path("fleet/metadata")), before, "{line}");
        thief.good("repo pending fleet --discard");
    }
    // A signature by a stranger, filed under Bob's name, does not count.
    thief.good(&format!("repo publish fleet {evil} --sign-with alice/alice.pem"));
    let path = thief.path("fleet-keys/pending.json");
    let mut change: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let signatures = change["roles"]["targets"]["signatures"].as_array_mut().unwrap();
    let forged = serde_json::json!({ "keyid": ids[1], "sig": signatures[0]["sig"] });
    signatures.push(forged);
    std::fs::write(&path, change.to_string()).unwrap();
    thief.bad("repo sign fleet", 1, "no signature was added");
    // Nor does it to lower the threshold in the file.
    change["roots"][0]["signed"]["roles"]["targets"]["threshold"] = 1.into();
    std::fs::write(&path, change.to_string()).unwrap();
    let ended = thief.run(&["repo", "sign", "fleet"]);
    assert_ne!(ended.code, Some(0), "{}", ended.stdout);
    assert_eq!(tree(&thief.path("fleet/metadata")), before);
}

#[test]
fn a_signer_elsewhere_refuses_a_request_that_was_tampered_with_or_is_of_another_repository() {
    let (desk, _) = begun();
    let bundle = desk.bundle("finder", "1.0.0");
    desk.good(&format!("repo publish fleet {bundle}"));
    let path = desk.path("alice/pending.json");
    let whole: serde_json::Value =
        serde_json::from_slice(&std::fs::read(desk.path("fleet-keys/pending.json")).unwrap()).unwrap();
    std::fs::copy(desk.path("fleet/metadata/1.root.json"), desk.path("alice/root.json")).unwrap();
    let unpinned = "repo sign --request alice/pending.json --sign-with alice/alice.pem";
    let sign = &format!("{unpinned} --root alice/root.json");
    type Tamper = fn(&mut serde_json::Value);
    let tampers: [(Tamper, i32, &str); 9] = [
        (|change| change["before"]["snapshot"] = serde_json::json!({ "signed": "x" }), 2, "something else"),
        (|change| change["roots"] = serde_json::json!([]), 2, "another repository"),
        (|change| change["roots"][0]["signed"]["version"] = 7.into(), 2, "root 1"),
        (|change| change["before"]["targets"]["signed"]["x"] = 1.into(), 2, "is not signed"),
        (|change| change["roles"]["targets"]["signed"]["version"] = 9.into(), 2, "does not follow"),
        (|change| change["roles"]["targets"]["signed"]["_type"] = "root".into(), 2, "something else"),
        (
            |change| {
                let mut timestamp = change["before"]["timestamp"].clone();
                let version = timestamp["signed"]["version"].as_u64().unwrap();
                timestamp["signed"]["version"] = (version + 1).into();
                timestamp["signed"]["meta"]["snapshot.json"]["version"] = 99.into();
                change["roles"]["timestamp"] = timestamp;
            },
            2,
            "not made of the rest",
        ),
        (|change| change["format"] = 2.into(), 1, "format 2"),
        (|change| change["extra"] = 2.into(), 1, "extra"),
    ];
    for (tamper, code, words) in tampers {
        let mut change = whole.clone();
        tamper(&mut change);
        std::fs::write(&path, change.to_string()).unwrap();
        desk.bad(sign, code, words);
    }
    // One that pretends to begin a repository may not build on anything, and any other one needs a root.
    let mut change = whole.clone();
    change["roots"] = serde_json::json!([]);
    std::fs::write(&path, change.to_string()).unwrap();
    desk.bad(unpinned, 2, "nothing that it could build on");
    change["before"] = serde_json::json!({});
    std::fs::write(&path, change.to_string()).unwrap();
    desk.bad(unpinned, 2, "must be empty");
    std::fs::write(&path, whole.to_string()).unwrap();
    desk.bad(unpinned, 64, "give the root.json that your devices pin with --root");
    let shown = desk.good("repo sign --request alice/pending.json --show");
    assert!(shown.starts_with("Not compared with any root"), "{shown}");
    let stranger = Desk::new();
    stranger.good("repo init fleet");
    std::fs::copy(stranger.path("fleet/metadata/1.root.json"), desk.path("alice/root.json")).unwrap();
    desk.bad(sign, 2, "another repository");
    std::fs::copy(desk.path("fleet/metadata/1.root.json"), desk.path("alice/root.json")).unwrap();
    desk.good(sign);
    // A request of a change that was given up does not come back by itself under another one.
    desk.good("repo pending fleet --discard");
    let other = desk.bundle("other", "1.0.0");
    desk.good(&format!("repo publish fleet {other}"));
    desk.bad("repo sign fleet --request alice/pending.json", 1, "another change");
}

#[test]
fn a_request_that_this_desk_never_made_is_shown_before_it_counts() {
    let (desk, _) = begun();
    let bundle = desk.bundle("finder", "1.0.0");
    desk.good(&format!("repo publish fleet {bundle}"));
    desk.sign_at("alice");
    std::fs::copy(desk.path("alice/pending.json"), desk.path("bob/pending.json")).unwrap();
    let root = "--root fleet/metadata/1.root.json";
    desk.good(&format!("repo sign --request bob/pending.json {root} --sign-with bob/bob.pem"));
    // Given up here; somebody carries it home all the same, with every signature.
    desk.good("repo pending fleet --discard");
    let before = tree(&desk.path("fleet/metadata"));
    let said = desk.good("repo sign fleet --request bob/pending.json");
    assert!(said.contains("adds finder@1.0.0") && said.contains("Nothing was signed or published"), "{said}");
    assert!(said.contains("edgewarden repo sign fleet\n"), "{said}");
    assert_eq!(tree(&desk.path("fleet/metadata")), before);
    assert!(desk.good("repo pending fleet").contains("adds finder@1.0.0"));
    desk.good("repo sign fleet");
    assert_eq!(desk.releases(), ["finder@1.0.0"]);
}

#[test]
fn a_key_is_replaced_by_the_old_threshold_and_the_new_one_together() {
    let (desk, ids) = begun();
    let bundle = desk.bundle("finder", "1.0.0");
    desk.good(&format!("repo publish fleet {bundle}"));
    signed_by(&desk, ["alice", "bob"]);
    desk.key("dave");
    // Carol and Alice leave, Dave comes, and all that are left must sign: Bob and Dave.
    let rotated = desk.json(&format!(
        "repo root rotate fleet --add root,targets=dave/dave.pub --revoke root,targets={} --revoke root,targets={}",
        &ids[0][..12],
        ids[2]
    ));
    assert_eq!(rotated["state"], "waiting");
    for name in ["bob", "dave"] {
        desk.sign_at(name);
        assert_eq!(desk.back_from(name), "waiting", "two of the old three have not signed");
    }
    desk.sign_at("carol");
    assert_eq!(desk.back_from("carol"), "live");
    // What Alice alone had signed with Bob was signed anew.
    let list = desk.json("repo list fleet");
    for role in list["roles"].as_array().unwrap() {
        let signed_by: Vec<&str> =
            role["signed_by"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        assert!(!signed_by.contains(&ids[0].as_str()), "{role}");
    }
    desk.good("repo check fleet --root fleet/metadata/1.root.json");
    assert_eq!(std::fs::read_dir(desk.path("fleet")).unwrap().count(), 3, "nothing is left beside it");
    let second = desk.bundle("finder", "2.0.0");
    let old = "--sign-with alice/alice.pem --sign-with carol/carol.pem";
    assert_eq!(desk.json(&format!("repo publish fleet {second} {old}"))["state"], "waiting");
    signed_by(&desk, ["bob", "dave"]);
    assert_eq!(desk.releases(), ["finder@1.0.0", "finder@2.0.0"]);
}

#[test]
fn everything_is_renewed_by_all_who_must() {
    let (desk, _) = begun();
    assert_eq!(desk.json("repo refresh fleet --all")["state"], "waiting");
    signed_by(&desk, ["carol", "bob"]);
    assert!(desk.path("fleet/metadata/2.targets.json").exists());
    assert!(!desk.path("fleet/metadata/2.root.json").exists(), "it is still young");
    desk.good("repo check fleet --root fleet/metadata/1.root.json");
}

#[test]
fn a_team_appoints_operators_as_it_publishes() {
    let (desk, _) = begun();
    let bundle = desk.bundle("finder", "1.0.0");
    desk.good(&format!("repo publish fleet {bundle}"));
    signed_by(&desk, ["alice", "bob"]);
    // No single key may command in place of a list.
    assert!(desk.good("repo operators show fleet").contains("nobody may sign commands"));
    assert!(desk.good("repo check fleet").contains("nobody can sign commands"));
    let entry = |name: &str| -> serde_json::Value {
        serde_json::from_str(&desk.good(&format!("repo operators key {name}.pem --name {name}"))).unwrap()
    };
    let list = serde_json::json!({ "format": 1, "operators": [entry("dora"), entry("emil")] });
    std::fs::write(desk.path("operators.json"), list.to_string()).unwrap();
    let before = tree(&desk.path("fleet/metadata"));
    let set = "repo operators set fleet operators.json";
    assert_eq!(desk.json(set)["outcome"]["state"], "waiting");
    assert_eq!(tree(&desk.path("fleet/metadata")), before);
    desk.bad(set, 1, "a change waits");
    let shown = desk.good("repo pending fleet");
    let digest = edgewarden::bundle::files::sha256(list.to_string().as_bytes()).to_string();
    assert!(shown.contains("adds the list of those who may command the devices, SHA-256 "), "{shown}");
    assert!(shown.contains(&digest), "a signer can compare it with the file: {shown}");
    signed_by(&desk, ["carol", "alice"]);
    assert_eq!(desk.json("repo operators show fleet")["operators"].as_array().unwrap().len(), 2);
    assert!(!desk.good("repo check fleet --root fleet/metadata/1.root.json").contains("note"));
    assert_eq!(desk.json(set)["outcome"]["state"], "unchanged");
    // A file travels with it, and a repository that lost it is not whole.
    desk.good("repo export fleet finder@1.0.0 -o finder.bundle");
    let file = desk.path(&format!("fleet/targets/{digest}.operators.json"));
    std::fs::write(&file, "{}").unwrap();
    let run = |line: &str| desk.run(&line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(run("repo check fleet").code, Some(2));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(run("repo check fleet").code, Some(1));
    assert_eq!(run("repo export fleet finder@1.0.0 -o other.bundle").code, Some(1));
    assert_eq!(desk.json(set)["outcome"]["state"], "unchanged", "the file is put back");
    desk.good("repo check fleet");
    assert_eq!(desk.json("repo operators drop fleet")["state"], "waiting");
    signed_by(&desk, ["bob", "carol"]);
    assert!(desk.good("repo operators show fleet").contains("No list"));
}
