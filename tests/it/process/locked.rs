//! What a child cannot do that was taken over: read a key, write, connect, start programs.

use super::*;
use crate::support::compile_library;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

/// What came of each thing that `tests/data/hostile/library.c` tries.
type Told = BTreeMap<String, String>;

fn told(reason: &Reason) -> Told {
    let words = reason.detail.split_whitespace().filter_map(|word| word.split_once(':'));
    words.map(|(what, came)| (what.to_owned(), came.to_owned())).collect()
}

/// The library, compiled for these paths.
fn hostile(place: &Place, key: &Path, bundle: &Path, socket: &Path, port: u16) -> PathBuf {
    let library = place.folder("library").join("libonnxruntime.so");
    let text = |name: &str, value: &Path| format!("-D{name}=\"{}\"", value.display());
    let defines = [
        text("KEY", key),
        text("BUNDLE", bundle),
        text("OUTSIDE", &place.folder("outside")),
        text("SOCKET", socket),
        format!("-DPORT={port}"),
    ];
    compile_library("tests/data/hostile/library.c", &library, &defines);
    library
}

#[test]
fn a_model_that_took_its_process_over_reaches_nothing() {
    let place = Place::new();
    let bundle = place.folder("bundle");
    let digest = colour_bundle(&bundle);
    let (key, socket) = (place.folder("state").join("identity.key"), place.dir.path().join("agent.sock"));
    std::fs::write(&key, "a secret").unwrap();
    std::fs::write(place.folder("outside").join("old"), "another's").unwrap();
    let _agent = UnixListener::bind(&socket).unwrap();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = web.local_addr().unwrap().port();
    let library = hostile(&place, &key, &bundle, &socket, port);

    // In a process that is not locked in, all of it works: what fails below fails because of the lock.
    let free = told(&edgewarden::inference::library::probe(&library).unwrap_err());
    let open = [
        "key", "change", "outside", "away", "rights", "passwd", "tcp", "udp", "agent", "fork", "signal",
        "limits", "process",
    ];
    let works = ["bundle", "cpu", "topology", "self", "thread"];
    for what in open.iter().chain(&works) {
        assert_eq!(free[*what], "done", "{what}: {free:?}");
    }
    assert_eq!(free["exec"], "ENOENT", "{free:?}");
    assert_eq!(free["namespace"], "EBADF", "{free:?}");

    let configure = place.model_on(library, &bundle, digest);
    let locked = block_on(async {
        let mut child = InferChild::start_infer(exe(), "hostile", configure, Priority::Normal).await.unwrap();
        let reason = next(&mut child, |message| match message {
            FromInfer::Failed { reason } => Some(reason),
            other => panic!("{other:?}"),
        })
        .await;
        assert_eq!(reason.code, ReasonCode::LoadFailed, "{reason}");
        told(&reason)
    });
    let lock = edgewarden::sys::lockdown::probe();
    if !lock.gaps().is_empty() {
        println!("skipped: this kernel does not lock a process in wholly: {}", lock.gaps().join("; "));
        return;
    }
    for what in open.iter().chain(&["exec", "namespace"]) {
        assert!(["EACCES", "EPERM"].contains(&locked[*what].as_str()), "{what}: {locked:?}");
    }
    for what in works {
        assert_eq!(locked[what], "done", "{what}: {locked:?}");
    }
    assert_eq!(std::fs::read_to_string(&key).unwrap(), "a secret");
}

/// A line of `/proc/PID/status`.
fn status(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn a_child_that_reads_pictures_reads_no_others() {
    let place = Place::new();
    let (folder, elsewhere, late) =
        (place.folder("pictures"), place.folder("elsewhere"), place.folder("late"));
    std::fs::write(folder.join("a.jpg"), jpeg([250, 0, 0])).unwrap();
    std::fs::write(elsewhere.join("b.jpg"), jpeg([0, 250, 0])).unwrap();
    std::fs::write(late.join("c.jpg"), jpeg([0, 0, 250])).unwrap();
    std::os::unix::fs::symlink("../elsewhere/b.jpg", folder.join("b.jpg")).unwrap();
    let lock = edgewarden::sys::lockdown::probe();
    block_on(async {
        let source = SourceSettings::Folder { path: folder.clone(), repeat: true };
        let configure = place.camera(source, 50.0, 1);
        let mut child = CaptureChild::start_capture(exe(), "belt", configure).await.unwrap();
        // One behind a link that was there when the folder was opened is read as any other.
        while published(&mut child).await < 4 {}
        assert_eq!(status(child.pid(), "NoNewPrivs"), "1");
        if !lock.gaps().is_empty() {
            println!("skipped: this kernel does not lock a process in wholly: {}", lock.gaps().join("; "));
            return;
        }
        assert_eq!(status(child.pid(), "Seccomp"), "2");
        // One that leads elsewhere later is not: that is how a key would be read.
        std::os::unix::fs::symlink("../late/c.jpg", folder.join("c.jpg")).unwrap();
        let fault = next(&mut child, |message| match message {
            FromCapture::Fault { reason } => Some(reason),
            _ => None,
        })
        .await;
        assert!(fault.detail.contains("c.jpg: Permission denied"), "{fault}");
        assert!(child.close(GUARD).await.clean);
    });
}

#[test]
fn a_program_that_reads_a_source_may_not_change_the_machine() {
    let place = Place::new();
    let out = place.folder("out");
    let script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status > \"$1/new\"; mv \"$1/new\" \"$1/status\"; sleep 600";
    let text = format!(
        "[[pipeline]]\nsource.kind = \"lines\"\nsource.program = [\"sh\", \"-c\", {script:?}, \"sh\", {out:?}]\n\
         source.columns = [1]\nsource.rate = 10\nsource.window = 10\n"
    );
    let settings = edgewarden::config::from_text(&text, place.dir.path(), &Default::default()).unwrap();
    let source = settings.pipelines[0].source.clone();
    block_on(async {
        let child = CaptureChild::start_capture(exe(), "belt", place.camera(source, 5.0, 1)).await.unwrap();
        while !out.join("status").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let told = std::fs::read_to_string(out.join("status")).unwrap();
        assert!(told.contains("NoNewPrivs:\t1"), "{told}");
        if edgewarden::sys::lockdown::probe().gaps().is_empty() {
            assert!(told.contains("Seccomp:\t2"), "{told}");
        }
        child.close(GUARD).await;
    });
}
