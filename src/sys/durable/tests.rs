//! Files and folders on a real disk.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

#[test]
fn a_write_replaces_the_whole_file_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    write_atomic(&path, b"a long first text").unwrap();
    write_atomic(&path, b"short").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"short");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_is_for_those_who_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    for mode in [0o600, 0o644, 0o640] {
        write_atomic_for(&path, b"x", Access { mode, owner: None }).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
    }
    let given = write_atomic_for(&path, b"y", Access { mode: 0o600, owner: Some((65534, 65534)) });
    if rustix::process::geteuid().is_root() {
        given.unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (65534, 65534));
    } else {
        assert!(given.unwrap_err().to_string().starts_with("give away"));
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_failed_write_keeps_the_old_file_names_the_path_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("inside"), b"x").unwrap();
    let error = write_atomic(&path, b"new").unwrap_err();
    assert!(error.to_string().starts_with(&format!("rename to {}: ", path.display())), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_link_moves_from_one_target_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("current");
    symlink_atomic(Path::new("../one"), &link).unwrap();
    symlink_atomic(Path::new("../two"), &link).unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("../two"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn removing_what_is_not_there_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    remove_file_synced(&dir.path().join("a")).unwrap();
    remove_dir_synced(&dir.path().join("b")).unwrap();
    create_dir_synced(&dir.path().join("b/c/d")).unwrap();
    create_dir_synced(&dir.path().join("b/c/d")).unwrap();
    fs::write(dir.path().join("b/c/d/file"), b"x").unwrap();
    sync_tree(dir.path()).unwrap();
    remove_dir_synced(&dir.path().join("b")).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn only_what_interrupted_writers_left_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".tmp-1-1"), b"x").unwrap();
    fs::create_dir(dir.path().join(".tmp-1-2")).unwrap();
    fs::write(dir.path().join("keep"), b"x").unwrap();
    remove_temporaries(dir.path()).unwrap();
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["keep"]);
    let deep = dir.path().join("keep2/deep");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join(".tmp-1-1"), b"x").unwrap();
    fs::write(deep.join("keep"), b"x").unwrap();
    remove_temporaries_below(dir.path()).unwrap();
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
    remove_temporaries_below(&dir.path().join("none")).unwrap();
}

#[test]
fn a_full_disk_has_its_own_code_and_remedy() {
    let error = failed("write", Path::new("/x"))(io::Error::from(io::ErrorKind::StorageFull));
    let reason = Reason::from(error);
    assert_eq!(reason.code, ReasonCode::DiskFull);
    assert!(reason.detail.contains("/x") && reason.detail.contains("free some space"), "{reason}");
}

#[test]
fn a_file_keeps_the_mode_that_others_can_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    write_atomic(&path, b"x").unwrap();
    assert_ne!(fs::metadata(&path).unwrap().permissions().mode() & 0o400, 0);
}

#[test]
fn a_temporary_name_that_a_former_writer_left_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    // The names that come next, whatever other tests take meanwhile.
    let next: u64 = {
        let name = temporary_beside(&path).file_name().unwrap().to_string_lossy().into_owned();
        name.rsplit('-').next().unwrap().parse().unwrap()
    };
    for number in next..next + 200 {
        fs::write(dir.path().join(format!("{TEMPORARY}{}-{number}", std::process::id())), b"").unwrap();
    }
    write_atomic(&path, b"x").unwrap();
    symlink_atomic(Path::new("a"), &dir.path().join("link")).unwrap();
    assert_eq!(fs::read(dir.path().join("link")).unwrap(), b"x");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 202);
}

#[tokio::test]
async fn a_file_that_comes_in_pieces_goes_on_where_it_was_and_tells_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("part");
    fs::write(&path, b"0123xxxx").unwrap();
    let mut file = Incoming::open(&path, 4).await.unwrap();
    for piece in ["45", "67", "89"] {
        file.write(piece.into()).await.unwrap();
    }
    file.close().await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"0123456789");
    let error = Incoming::open(&dir.path().join("no/part"), 0).await.unwrap_err();
    assert!(error.to_string().starts_with("open "), "{error}");
}

#[test]
fn a_lock_that_is_let_go_in_a_moment_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let (held, later) = (create_lock(&path).unwrap(), create_lock(&path).unwrap());
    lock_soon(&held).unwrap();
    // What a child that was forked and not yet replaced does to it.
    let child = held.try_clone().unwrap();
    drop(held);
    let ends = std::thread::spawn(move || {
        std::thread::sleep(LOCK_PATIENCE / 20);
        drop(child);
    });
    lock_soon(&later).unwrap();
    ends.join().unwrap();
    assert_eq!(lock_soon(&create_lock(&path).unwrap()), Err(rustix::io::Errno::WOULDBLOCK));
}
