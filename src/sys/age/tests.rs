//! The format against its own rules, against a file that the tool `age` made, and against that tool where it
//! is installed.

/// Files that the format's authors made to test programs like this one.
mod vectors;

use super::*;
use std::process::{Command, Stdio};

/// A key of these tests, as `age-keygen` 1.1.1 made it, with its recipient.
const KEY: &str = "AGE-SECRET-KEY-17TD27W0MMQ95P9F4F96M4X50H3RA2F7N43SXNGMQWXMAJK4E89ZS0V4ME3";
const RECIPIENT: &str = "age1c6pmp4n4jvftpns3qup3tgzwup75e247laj6hu0sndhk8f9gkfxs39va3r";
/// What `age` 1.1.1 made for it of [`CONTENT`].
const FILE: &str = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBxUDVYZHNRcjR1c1hLQ0N0c1A3N0JIODVobGZFSHk5Qzk1bTI1SG9BdX\
                    kwCkhrdWdoSVNXQ0doN1B2YWlOZkdjRkJ3dGdzcGZnUU8yenFjSGlaTUY4czgKLS0tIC8yaVpsRjBOUmxwbkJWTjlOSFI0aV\
                    FoeWVVN2ZNSXdVUXB0Yi9id09LYXMKVaAl5+DlAFLBh9TW3ImtkkTT42RzLZNnKQ+pWYSjFwQ9/fF1HAEE2ZL1yiDicLI0X4\
                    wh9kaOTg==";
const CONTENT: &[u8] = b"weights of the company\n";

fn key() -> Identity {
    Identity::of_key_file(KEY).unwrap().remove(0)
}

fn encrypted(content: &[u8], recipients: &[Recipient]) -> Vec<u8> {
    let mut file = Vec::new();
    encrypt(&mut &content[..], &mut file, recipients, &|_| {}).unwrap();
    file
}

fn opened(file: &[u8], size: usize, identities: &[Identity]) -> Result<Vec<u8>, AgeError> {
    let key = ContentKey::of(&mut &file[..], identities)?;
    key.decrypt(&mut &file[..], size).map(|content| content.to_vec())
}

/// Of every length around the edges of pieces.
fn contents() -> impl Iterator<Item = Vec<u8>> {
    [0, 1, 65535, 65536, 65537, 131_072, 200_000]
        .into_iter()
        .map(|length| (0..length).map(|at: usize| ((at * 31) >> 3) as u8).collect())
}

#[test]
fn keys_are_written_and_read_as_age_keygen_does() {
    let key = key();
    assert_eq!(key.recipient().to_string(), RECIPIENT);
    assert_eq!(RECIPIENT.parse::<Recipient>().unwrap(), key.recipient());
    let file = key.key_file();
    assert_eq!(*file, format!("# public key: {RECIPIENT}\n{KEY}\n"));
    assert_eq!(file.capacity(), KEY_FILE, "it did not grow, which would leave a copy");
    assert_eq!(size_of::<Identity>(), size_of::<usize>(), "what is moved is no key");
    let two = format!("# created: today\n\n{KEY}\r\n{}", *Identity::generate().unwrap().key_file());
    assert_eq!(Identity::of_key_file(&two).unwrap().len(), 2);
    for bad in ["", "# nothing", "x", RECIPIENT, &KEY[..70], &KEY.to_lowercase(), &KEY.replace('Q', "P")] {
        let fault = Identity::of_key_file(bad).unwrap_err();
        assert!(!fault.contains("17TD2"), "a key must not reach a log: {fault}");
    }
    let upper = RECIPIENT.to_uppercase();
    for bad in ["", "age1", KEY, &RECIPIENT[..61], &upper, &RECIPIENT.replace('t', "u")] {
        assert!(bad.parse::<Recipient>().is_err(), "{bad}");
    }
    assert!(!format!("{key:?}").contains("SECRET"));
}

#[test]
fn a_file_of_the_tool_age_is_read() {
    let file = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, FILE).unwrap();
    assert_eq!(opened(&file, CONTENT.len(), &[key()]).unwrap(), CONTENT);
}

#[test]
fn what_was_encrypted_for_several_opens_with_each_of_their_keys_and_no_other() {
    let keys = [key(), Identity::generate().unwrap(), Identity::generate().unwrap()];
    let recipients: Vec<_> = keys[..2].iter().map(Identity::recipient).collect();
    for content in contents() {
        let file = encrypted(&content, &recipients);
        for key in &keys[..2] {
            assert_eq!(opened(&file, content.len(), std::slice::from_ref(key)).unwrap(), content);
        }
        assert!(opened(&file, content.len(), &keys[1..]).is_ok(), "one of two keys is enough");
        assert!(matches!(opened(&file, content.len(), &keys[2..]), Err(AgeError::NoKey)));
        assert!(matches!(opened(&file, content.len(), &[]), Err(AgeError::NoKey)));
        for size in [content.len() + 1, content.len().saturating_sub(1)] {
            let same = size == content.len();
            assert_eq!(opened(&file, size, &keys).is_ok(), same, "{size} of {}", content.len());
        }
        assert_ne!(encrypted(&content, &recipients), file, "no two files have one key");
    }
    assert!(encrypt(&mut &b"x"[..], &mut Vec::new(), &[], &|_| {}).is_err());
}

#[test]
fn a_changed_cut_or_longer_file_is_refused() {
    let key = key();
    let content: Vec<u8> = (0..140_000).map(|at| at as u8).collect();
    let file = encrypted(&content, &[key.recipient()]);
    let refused = |file: &[u8], what: &str| {
        let result = opened(file, content.len(), std::slice::from_ref(&key));
        assert!(result.is_err(), "{what}");
    };
    // Every byte of the header, and one here and there in each piece.
    for at in (0..400).chain((400..file.len()).step_by(7001)).chain([file.len() - 1]) {
        let mut changed = file.clone();
        changed[at] ^= 1;
        refused(&changed, &format!("byte {at} changed"));
    }
    let piece = 65536 + 16;
    let start = file.len() - content.len() - 3 * 16;
    for length in [0, 10, 100, start, start + 1, start + piece, start + 2 * piece, file.len() - 1] {
        refused(&file[..length], &format!("cut to {length}"));
    }
    refused(&[&file[..], b"x"].concat(), "longer");
    let swapped = [
        &file[..start],
        &file[start + piece..start + 2 * piece],
        &file[start..start + piece],
        &file[start + 2 * piece..],
    ];
    refused(&swapped.concat(), "two pieces swapped");
    refused(&[&file[..start], &file[start + piece..]].concat(), "a piece left out");
}

#[test]
fn a_header_of_another_kind_is_told_from_a_broken_one() {
    let (key, content) = (key(), b"content");
    let file = encrypted(content, &[key.recipient()]);
    let text = String::from_utf8_lossy(&file[..200]).into_owned();
    let header = text.split("---").next().unwrap();
    // Another kind of recipient before ours is passed over, but the MAC covers it.
    let other = header.replacen("-> X25519", "-> other a b\nAAAA\n-> X25519", 1);
    let with_other = [other.as_bytes(), &file[header.len()..]].concat();
    let result = opened(&with_other, content.len(), std::slice::from_ref(&key));
    assert!(matches!(result, Err(AgeError::Damaged("its header was changed"))), "{result:?}");
    for (from, to) in [
        ("age-encryption.org/v1", "age-encryption.org/v2"),
        ("-> X25519", "-> X25519 "),
        ("-> X25519", "->X25519"),
        ("-> X25519", "-> X25519 more"),
        ("\n---", "=\n---"),
    ] {
        let broken = [header, "---"].concat().replacen(from, to, 1);
        let broken = [broken.as_bytes(), &file[header.len() + 3..]].concat();
        let result = opened(&broken, content.len(), std::slice::from_ref(&key));
        assert!(matches!(result, Err(AgeError::Damaged(_))), "{to}: {result:?}");
    }
    assert!(matches!(ContentKey::of(&mut &[b'x'; 1 << 20][..], &[]), Err(AgeError::Damaged(_))));
    let endless = [b"age-encryption.org/v1\n".to_vec(), b"-> other\n\n".repeat(100_000)].concat();
    assert!(matches!(ContentKey::of(&mut &endless[..], &[]), Err(AgeError::Damaged(_))));
}

/// A share of low order gives every key the same secret: such a stanza is refused, as the format asks.
#[test]
fn a_share_that_makes_no_secret_is_refused() {
    let key = key();
    let file = encrypted(b"x", &[key.recipient()]);
    let text = String::from_utf8_lossy(&file[..60]).into_owned();
    let share = text.lines().nth(1).unwrap().strip_prefix("-> X25519 ").unwrap().to_owned();
    let at = text.find(&share).unwrap();
    let mut changed = file.clone();
    changed[at..at + 43].fill(b'A');
    let result = ContentKey::of(&mut &changed[..], &[key]);
    assert!(matches!(result, Err(AgeError::Damaged(_))), "{result:?}");
}

/// Both ways, where the tool `age` is installed (`packaging/setup.sh --tests` does it).
#[test]
fn the_tool_age_reads_what_is_written_here_and_the_other_way_round() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("key"), format!("{KEY}\n")).unwrap();
    let age = |arguments: &[&str]| {
        let run = Command::new("age").args(arguments).current_dir(dir.path()).stdin(Stdio::null()).output();
        run.map(|run| {
            assert!(run.status.success(), "age {arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
            run.stdout
        })
    };
    if age(&["--version"]).is_err() {
        println!("skipped: the tool age is not installed; packaging/setup.sh --tests installs it");
        return;
    }
    let other = Identity::generate().unwrap().recipient();
    for content in contents() {
        std::fs::write(path("ours"), encrypted(&content, &[other, key().recipient()])).unwrap();
        assert_eq!(age(&["-d", "-i", "key", "ours"]).unwrap(), content);
        std::fs::write(path("plain"), &content).unwrap();
        let other = other.to_string();
        age(&["-r", &other, "-r", RECIPIENT, "-o", "theirs", "plain"]).unwrap();
        let theirs = std::fs::read(path("theirs")).unwrap();
        assert_eq!(opened(&theirs, content.len(), &[key()]).unwrap(), content);
    }
}
