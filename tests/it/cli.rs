//! The command line as people and scripts meet it.

use crate::support::{Config, Edgewarden, HANG};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Instant;

/// The visible commands, as the help lists them.
fn commands(arguments: &[&str]) -> Vec<String> {
    let help = Edgewarden::run(arguments.iter().chain(&["--help"])).stdout;
    let list = help.split_once("Commands:\n").map(|(_, list)| list).unwrap_or_default();
    let is_command = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let names = list.lines().take_while(|line| !line.is_empty()).filter(is_command);
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_command_has_help() {
    let all = commands(&[]);
    for wanted in [
        "run", "demo", "check", "status", "install", "update", "rollback", "abort", "predict", "bundle",
        "repo",
    ] {
        assert!(all.iter().any(|command| command == wanted), "{wanted} is not among {all:?}");
    }
    let mut paths: Vec<Vec<String>> = all.iter().map(|command| vec![command.clone()]).collect();
    for group in ["bundle", "fleet", "repo"] {
        paths.extend(commands(&[group]).into_iter().map(|command| vec![group.to_owned(), command]));
    }
    for mut path in paths {
        if path.last().is_some_and(|command| command == "help") {
            continue;
        }
        path.push("--help".into());
        let ended = Edgewarden::run(&path);
        assert_eq!(ended.code, Some(0), "{path:?}: {}", ended.stderr);
        assert!(ended.stdout.contains("Usage: edgewarden"), "{path:?}: {}", ended.stdout);
        let first = ended.stdout.lines().next().unwrap_or_default();
        assert!(!first.is_empty() && !first.starts_with("Usage"), "{path:?} does not say what it is for");
    }
}

#[test]
fn the_version_is_the_packages() {
    let ended = Edgewarden::run(["--version"]);
    assert_eq!(ended.stdout.trim(), concat!("edgewarden ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_exits_with_64() {
    for arguments in [
        vec!["fly"],
        vec!["status", "--socket"],
        vec!["status", "extra"],
        vec!["rollback"],
        vec!["rollback", "a/b"],
        vec!["update", "detector", "newest"],
        vec!["completions", "brainfuck"],
        vec![],
    ] {
        let ended = Edgewarden::run(&arguments);
        assert_eq!(ended.code, Some(64), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty(), "{arguments:?} says nothing");
    }
}

#[test]
fn completions_name_the_commands_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = Edgewarden::run(["completions", shell]);
        assert_eq!(ended.code, Some(0), "{shell}: {}", ended.stderr);
        for command in ["rollback", "predict", "publish"] {
            assert!(ended.stdout.contains(command), "{shell}: {command} is missing");
        }
        assert!(!ended.stdout.contains("brainfuck"));
    }
}

#[test]
fn no_running_agent_is_one_line_with_the_remedy() {
    let config = Config::new("[[pipeline]]\nsource = { kind = \"synthetic\" }\n");
    for arguments in
        [vec!["status"], vec!["rollback", "main"], vec!["abort", "main"], vec!["update", "main", "a@1.0.0"]]
    {
        let ended = Edgewarden::run(
            arguments.iter().map(|a| a.to_string()).chain(["--config".into(), text(&config.path())]),
        );
        assert_eq!(ended.code, Some(1), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("no agent is running at"), "{}", ended.stderr);
        assert!(ended.stderr.contains(&text(&config.folder().join("run/agent.sock"))), "{}", ended.stderr);
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a temporary path is text").to_owned()
}

/// A socket that answers one request with fixed bytes, and gives back the request.
fn answering(socket: &Path, answer: String) -> std::thread::JoinHandle<String> {
    let listener = UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let start = Instant::now();
        let mut stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) => assert!(start.elapsed() < HANG, "nobody connected"),
            }
            std::thread::yield_now();
        };
        stream.set_nonblocking(false).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut request, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            request.push_str(&line);
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        request.push_str(std::str::from_utf8(&body).unwrap());
        stream.write_all(answer.as_bytes()).unwrap();
        request
    })
}

fn ndjson(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n{lines}")
}

#[test]
fn a_bundle_that_is_refused_for_trust_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let bundle = folder.path().join("x.bundle");
    std::fs::write(&bundle, "x").unwrap();
    for (code, status) in [("digest_mismatch", 2), ("signature_invalid", 2), ("expired", 2), ("disk_full", 1)]
    {
        let answer = ndjson(&format!(
            "{{\"status\":\"executing\",\"detail\":\"verifying\",\"fraction\":0.5}}\n\
             {{\"status\":\"failed\",\"reason\":{{\"code\":\"{code}\",\"detail\":\"bundle x: not good\"}}}}\n"
        ));
        let agent = answering(&socket, answer);
        let ended =
            Edgewarden::run(["install", &text(&bundle), "--slot", "detector", "--socket", &text(&socket)]);
        assert_eq!(ended.code, Some(status), "{code}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(&format!("edgewarden: bundle x: not good ({code})")),
            "{}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains("verifying"),
            "progress is told where there is no terminal: {}",
            ended.stderr
        );
        let request = agent.join().unwrap();
        assert!(request.starts_with("POST /v1/install "), "{request}");
        assert!(request.contains("\"slot\":\"detector\""), "{request}");
        std::fs::remove_file(&socket).unwrap();
    }
}

#[test]
fn json_gives_every_progress_on_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let answer = ndjson(
        "{\"status\":\"executing\",\"detail\":\"putting back\"}\n\
         {\"status\":\"successful\",\"result\":{\"release\":\"detector@1.0.0\"}}\n",
    );
    let agent = answering(&socket, answer);
    let ended = Edgewarden::run(["rollback", "detector", "--json", "--socket", &text(&socket)]);
    agent.join().unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lines: Vec<serde_json::Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["result"]["release"], "detector@1.0.0");
}

#[test]
fn something_else_at_the_socket_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let agent = answering(&socket, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".into());
    let ended = Edgewarden::run(["status", "--socket", &text(&socket)]);
    agent.join().unwrap();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("does not speak as this version"), "{}", ended.stderr);
}

#[test]
fn an_error_of_a_command_for_machines_is_one_object() {
    let told = |arguments: &[&str], status: i32| -> serde_json::Value {
        let ended = Edgewarden::run(arguments);
        assert_eq!(ended.code, Some(status), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        let told: serde_json::Value = serde_json::from_str(&ended.stderr).expect("one JSON object");
        assert_eq!(told["exit_status"], status, "{told}");
        assert!(!told["message"].as_str().unwrap().is_empty(), "{told}");
        told
    };
    let config = Config::new("[[pipeline]]\nsource = { kind = \"synthetic\" }\n");
    let nobody = told(&["rollback", "main", "--json", "--config", &text(&config.path())], 1);
    assert_eq!(nobody["code"], "not_found");
    assert!(nobody["message"].as_str().unwrap().contains("no agent is running at"), "{nobody}");
    assert!(nobody["remedy"].is_string(), "{nobody}");

    let faulty = Config::raw("[device]\nidd = \"x\"\n[update]\nmax_boots = 0\n");
    let faults = told(&["status", "--json", "--config", &text(&faulty.path())], 1);
    assert_eq!(faults["code"], "configuration");
    let lines: Vec<_> = faults["faults"].as_array().unwrap().iter().map(|f| f["line"].as_u64()).collect();
    assert_eq!(lines, [Some(2), Some(4)], "{faults}");
    assert_eq!(faults["faults"][0]["key"], "device.idd");

    let wrong = told(&["update", "detector", "newest", "--json"], 64);
    assert_eq!(wrong["code"], "usage");
    // For people it stays a line of text.
    let ended = Edgewarden::run(["rollback", "main", "--config", &text(&config.path())]);
    assert!(ended.stderr.starts_with("edgewarden: "), "{}", ended.stderr);
}
