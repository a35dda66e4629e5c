//! Roles below the list: who is asked for a target, in which order, for which paths, and how many at most.

use super::*;
use ReasonCode::*;

const TARGET: &str = "detector/1.0.0/manifest.json";
/// Matches every release.
const ALL: &[&str] = &["*/*/manifest.json"];

/// A delegation: by whom, to whom, for which paths, and whether the search ends there.
type Given<'a> = (&'a str, &'a str, &'a [&'a str], bool);

/// Puts the roles of `graph` below the list, each signed by `key`; of them `holder` has the release.
fn plant(forgery: &mut Forgery, graph: &[Given<'_>], holder: &str, key: &Key) {
    let target = forgery.targets["targets"].as_object_mut().unwrap().remove(TARGET).unwrap();
    let empty = forgery.targets.clone();
    let mut roles: Vec<(&str, Value)> = Vec::new();
    for (_, to, _, _) in graph {
        if roles.iter().all(|(name, _)| name != to) {
            let mut role = empty.clone();
            role["version"] = json!(1);
            role["targets"] = json!({});
            roles.push((*to, role));
        }
    }
    for (by, to, paths, terminating) in graph {
        let delegator = match *by {
            "targets" => &mut forgery.targets,
            by => &mut roles.iter_mut().find(|(name, _)| *name == by).unwrap().1,
        };
        if delegator.get("delegations").is_none() {
            delegator["delegations"] = json!({ "keys": { key.id(): key.public() }, "roles": [] });
        }
        delegator["delegations"]["roles"].as_array_mut().unwrap().push(json!({
            "name": to, "keyids": [key.id()], "threshold": 1, "terminating": terminating, "paths": paths,
        }));
    }
    for (name, mut role) in roles {
        if name == holder {
            role["targets"][TARGET] = target.clone();
        }
        put(forgery, name, &role, &[key]);
    }
}

/// Signs a role, lays it down and pins it in the snapshot.
fn put(forgery: &mut Forgery, name: &str, role: &Value, keys: &[&Key]) {
    let bytes = signed(role, keys.iter().copied());
    let version = roles::version(role);
    forgery.snapshot["meta"][format!("{name}.json")] = roles::pin(version, &bytes);
    forgery.files.insert(format!("metadata/{version}.{name}.json"), bytes);
}

/// How a device without a memory ends with these files, and the roles that it asked for, in order.
fn search(lab: &Lab, files: Files) -> (Result<(), ReasonCode>, Vec<String>) {
    let served = Arc::new(Served::new(files));
    let client = RepositoryClient::forgetful(served.clone(), lab.root());
    let found = at_once(client.resolve(&"detector@1.0.0".parse().unwrap(), lab.now));
    let asked = served.asked.lock().unwrap();
    let role = |path: &String| {
        let name = path.strip_prefix("metadata/")?.strip_suffix(".json")?.split_once('.')?.1;
        (!["root", "snapshot", "targets"].contains(&name)).then(|| name.to_owned())
    };
    (found.map(drop).map_err(|reason| reason.code), asked.iter().filter_map(|(path, _)| role(path)).collect())
}

/// The same for a graph whose `holder` has the release.
fn visit(graph: &[Given<'_>], holder: &str) -> (Result<(), ReasonCode>, Vec<String>) {
    let (lab, key) = (Lab::with_one(), Key::generate().unwrap());
    search(&lab, lab.forge(|forgery| plant(forgery, graph, holder, &key)))
}

#[test]
fn roles_are_asked_depth_first_in_their_order() {
    let graph = [
        ("targets", "a", ALL, false),
        ("targets", "b", ALL, false),
        ("a", "c", ALL, false),
        ("a", "d", ALL, false),
    ];
    assert_eq!(visit(&graph, "nobody"), (Err(NotFound), ["a", "c", "d", "b"].map(String::from).into()));
    // The first that has it counts, and nobody after it is asked.
    assert_eq!(visit(&graph, "c"), (Ok(()), ["a", "c"].map(String::from).into()));
    assert_eq!(visit(&graph, "b").0, Ok(()));
}

#[test]
fn a_terminating_role_ends_the_search_with_those_below_it() {
    let graph = |terminating| {
        [("targets", "a", ALL, terminating), ("targets", "b", ALL, false), ("a", "c", ALL, false)]
    };
    assert_eq!(visit(&graph(true), "b"), (Err(NotFound), ["a", "c"].map(String::from).into()));
    assert_eq!(visit(&graph(true), "c").0, Ok(()));
    assert_eq!(visit(&graph(false), "b").0, Ok(()));
    // One that has no say over the path ends nothing.
    let other = [("targets", "a", &["counter/*/*"][..], true), ("targets", "b", ALL, false)];
    assert_eq!(visit(&other, "b"), (Ok(()), vec!["b".to_owned()]));
}

#[test]
fn a_role_speaks_for_its_paths_alone() {
    for (pattern, speaks) in [
        ("detector/*/manifest.json", true),
        ("*/1.?.0/*.json", true),
        ("detector/1.[0-4].0/manifest.json", true),
        (TARGET, true),
        ("counter/*/manifest.json", false),
        ("detector/?.0/manifest.json", false),
        ("detector/*", false),
        ("*", false),
        ("**", false),
        ("Detector/*/manifest.json", false),
        ("detector/*/manifest", false),
        ("/detector/*/manifest.json", false),
        ("", false),
    ] {
        let (found, asked) = visit(&[("targets", "a", &[pattern], false)], "a");
        assert_eq!(found.is_ok(), speaks, "{pattern}");
        assert_eq!(asked.len(), usize::from(speaks), "{pattern}: nobody else is even asked");
    }
    // What was given on must have been given: by everybody in the chain.
    let narrow = &["counter/*/manifest.json"][..];
    for (upper, lower, found) in [(ALL, narrow, false), (narrow, ALL, false), (ALL, ALL, true)] {
        let chain = [("targets", "a", upper, false), ("a", "b", lower, false)];
        assert_eq!(visit(&chain, "b").0.is_ok(), found, "{upper:?} {lower:?}");
    }
    // No pattern at all is no delegation, and one that cannot be read is no guess.
    assert_eq!(visit(&[("targets", "a", &[], false)], "a").0, Err(NotFound));
    assert_eq!(visit(&[("targets", "a", &["detector/[/manifest.json"], false)], "a").0, Err(Malformed));
}

#[test]
fn a_role_may_be_given_a_share_of_the_paths_by_their_hash() {
    let lab = Lab::with_one();
    let key = Key::generate().unwrap();
    let hash = sha256(TARGET.as_bytes()).to_string();
    let other = if hash.starts_with('0') { "1" } else { "0" };
    for (prefix, found) in [(&hash[..2], true), (&hash[..], true), (other, false)] {
        let files = lab.forge(|forgery| {
            plant(forgery, &[("targets", "bin", ALL, false)], "bin", &key);
            let role = &mut forgery.targets["delegations"]["roles"][0];
            role.as_object_mut().unwrap().remove("paths");
            role["path_hash_prefixes"] = json!([prefix]);
        });
        assert_eq!(search(&lab, files).0.is_ok(), found, "{prefix}");
    }
}

#[test]
fn roles_are_capped_side_by_side_and_a_circle_ends() {
    let names: Vec<String> = (0..100).map(|n| format!("r{n}")).collect();
    let wide: Vec<Given<'_>> = names.iter().map(|name| ("targets", name.as_str(), ALL, false)).collect();
    let (found, asked) = visit(&wide, "r99");
    assert_eq!(found, Err(NotFound));
    assert_eq!(asked.len(), super::super::tuf::MAX_DELEGATIONS as usize - 1, "the list itself is the first");
    assert_eq!(visit(&wide, "r14").0, Ok(()), "the last one that is asked");
    let circle = [("targets", "a", ALL, false), ("a", "b", ALL, false), ("b", "a", ALL, false)];
    assert_eq!(visit(&circle, "nobody"), (Err(NotFound), ["a", "b"].map(String::from).into()));
}

#[test]
fn a_role_that_the_snapshot_does_not_list_is_not_asked() {
    let lab = Lab::with_one();
    let key = Key::generate().unwrap();
    let files = lab.forge(|forgery| {
        plant(forgery, &[("targets", "a", ALL, false)], "a", &key);
        forgery.snapshot["meta"].as_object_mut().unwrap().remove("a.json");
    });
    assert_eq!(search(&lab, files), (Err(NotFound), vec![]));
}

#[test]
fn a_role_with_the_name_of_a_top_level_role_is_none() {
    let lab = Lab::with_one();
    let key = Key::generate().unwrap();
    for name in ["root", "timestamp", "snapshot", "targets"] {
        let mut files = lab.files();
        files.extend(lab.forge(|forgery| {
            forgery.targets["targets"].as_object_mut().unwrap().remove(TARGET).unwrap();
            let role = json!({
                "name": name, "keyids": [key.id()], "threshold": 1, "terminating": false, "paths": ALL,
            });
            forgery.targets["delegations"] = json!({ "keys": { key.id(): key.public() }, "roles": [role] });
        }));
        assert_eq!(search(&lab, files), (Err(NotFound), vec![]), "{name}");
    }
}

#[test]
fn a_delegated_role_needs_as_many_of_its_keys_as_were_asked_for() {
    let lab = Lab::with_one();
    let keys = [Key::generate().unwrap(), Key::generate().unwrap(), Key::generate().unwrap()];
    let files = |signers: &[&Key]| {
        lab.forge(|forgery| {
            plant(forgery, &[("targets", "a", ALL, false)], "a", &keys[0]);
            let public: BTreeMap<&str, Value> = keys.iter().map(|key| (key.id(), key.public())).collect();
            let delegations = &mut forgery.targets["delegations"];
            delegations["roles"][0]["keyids"] = json!(public.keys().collect::<Vec<_>>());
            delegations["roles"][0]["threshold"] = json!(2);
            delegations["keys"] = json!(public);
            let role = payload(&forgery.files["metadata/1.a.json"]);
            put(forgery, "a", &role, signers);
        })
    };
    assert_eq!(search(&lab, files(&[&keys[0], &keys[2]])).0, Ok(()));
    assert_eq!(search(&lab, files(&[&keys[1]])).0, Err(SignatureInvalid));
    assert_eq!(
        search(&lab, files(&[&keys[1], &lab.key()])).0,
        Err(SignatureInvalid),
        "the list's key has no say"
    );
    // The same key twice is one signature, or none at all.
    assert_eq!(search(&lab, files(&[&keys[1], &keys[1]])).0, Err(SignatureInvalid));
}

#[test]
fn a_delegated_role_expires_is_bounded_and_never_goes_back() {
    let lab = Lab::with_one();
    let key = Key::generate().unwrap();
    let graph = [("targets", "a", ALL, false)];
    let with = |change: &dyn Fn(&mut Value), raise: u64| {
        lab.forge(|forgery| {
            plant(forgery, &graph, "a", &key);
            let mut role = payload(&forgery.files["metadata/1.a.json"]);
            change(&mut role);
            put(forgery, "a", &role, &[&key]);
            for payload in [&mut forgery.targets, &mut forgery.snapshot, &mut forgery.timestamp] {
                payload["version"] = json!(roles::version(payload) + raise);
            }
        })
    };
    let expired = with(&|role| role["expires"] = json!("2026-05-01T00:00:00Z"), 0);
    assert_eq!(search(&lab, expired).0, Err(Expired));
    let mut endless = with(&|_| {}, 0);
    endless.insert("metadata/1.a.json".to_owned(), vec![b' '; super::super::tuf::MAX_TARGETS as usize + 1]);
    assert_eq!(search(&lab, endless).0, Err(SizeMismatch));

    let resolve = |files: Files| {
        let device = lab.device(Arc::new(Served::new(files)));
        at_once(device.resolve(&"detector@1.0.0".parse().unwrap(), lab.now)).map(drop).map_err(|r| r.code)
    };
    assert_eq!(resolve(with(&|role| role["version"] = json!(5), 1)), Ok(()));
    assert_eq!(resolve(with(&|role| role["version"] = json!(4), 2)), Err(OlderThanSeen));
    // Nor may it be taken off the snapshot, as if it had never been.
    let removed = lab.forge(|forgery| {
        for payload in [&mut forgery.targets, &mut forgery.snapshot, &mut forgery.timestamp] {
            payload["version"] = json!(roles::version(payload) + 3);
        }
    });
    assert_eq!(resolve(removed), Err(OlderThanSeen));
    assert_eq!(resolve(with(&|role| role["version"] = json!(5), 4)), Ok(()));
}
