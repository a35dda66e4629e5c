//! The public test vectors of the format (<https://github.com/C2SP/CCTV>, folder `age/testdata`), where a copy
//! of them is at hand:
//!
//! ```sh
//! EDGEWARDEN_AGE_VECTORS=PATH/age/testdata cargo test --lib -- --nocapture age::tests::vectors
//! ```
//!
//! Left out are armour, passphrases and post-quantum keys, which are not read here.

use super::*;
use ring::digest::{SHA256, digest};
use std::io::Write;
use std::path::Path;

/// One file: what is said of it, and the encrypted file.
struct Vector {
    name: String,
    said: Vec<(String, String)>,
    file: Vec<u8>,
}

impl Vector {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").expect("an empty line");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let said: Vec<_> = head.lines().filter_map(|line| line.split_once(": ")).collect();
        let said = said.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut vector = Self { name, said, file: bytes[end + 2..].to_vec() };
        if vector.says("compressed") == Some("zlib") {
            vector.file = inflated(&vector.file);
        }
        vector
    }

    fn says(&self, key: &str) -> Option<&str> {
        self.said.iter().find(|(said, _)| said == key).map(|(_, value)| value.as_str())
    }

    fn is_for_us(&self) -> bool {
        self.says("armored").is_none()
            && self.says("identity").is_some_and(|key| !key.starts_with("AGE-SECRET-KEY-PQ-"))
    }

    /// What comes of it, in the words of the vectors.
    fn outcome(&self) -> &'static str {
        let keys = self.said.iter().filter(|(key, _)| key == "identity");
        let keys: Vec<_> = keys.flat_map(|(_, key)| Identity::of_key_file(key).unwrap_or_default()).collect();
        let key = match ContentKey::of(&mut &self.file[..], &keys) {
            Ok(key) => key,
            Err(AgeError::NoKey) => return "no match",
            Err(AgeError::Damaged("its header was changed")) => return "HMAC failure",
            Err(_) => return "header failure",
        };
        // Every piece has a tag of 16 bytes.
        let content = self.file.len() - key.at as usize;
        let size = content.saturating_sub(content.div_ceil((64 << 10) + 16) * 16);
        match key.decrypt(&mut &self.file[..], size) {
            Ok(plain) => {
                let sum = hex::encode(digest(&SHA256, &plain));
                assert_eq!(Some(sum.as_str()), self.says("payload"), "{}", self.name);
                "success"
            }
            Err(_) => "payload failure",
        }
    }
}

fn inflated(bytes: &[u8]) -> Vec<u8> {
    let program = "import sys, zlib; sys.stdout.buffer.write(zlib.decompress(sys.stdin.buffer.read()))";
    let mut python = Command::new("python3");
    let mut python =
        python.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    let mut input = python.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn every_public_vector_ends_as_its_authors_say() {
    let Some(folder) = std::env::var_os("EDGEWARDEN_AGE_VECTORS") else {
        println!("skipped: EDGEWARDEN_AGE_VECTORS names no copy of the vectors");
        return;
    };
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let vectors: Vec<_> = entries.map(|path| Vector::read(&path)).collect();
    let ours: Vec<_> = vectors.iter().filter(|vector| vector.is_for_us()).collect();
    let wrong: Vec<_> = (ours.iter())
        .map(|vector| (&vector.name, vector.outcome(), vector.says("expect").unwrap_or_default()))
        .filter(|(_, found, expected)| found != expected)
        .collect();
    println!("{} of {} vectors are for X25519; {} end otherwise", ours.len(), vectors.len(), wrong.len());
    assert!(ours.len() > 50 && wrong.is_empty(), "{wrong:#?}");
}
