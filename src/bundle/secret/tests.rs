//! Encrypting a bundle, sealing it again, and opening it with the right key, another, and none.

use super::*;
use crate::bundle::{open, seal, tests::sample, write_manifest};
use crate::domain::manifest::GoldenSample;
use prost::Message;

/// An ONNX file with an empty graph; with `beside`, one whose weights lie in that file.
fn model(beside: Option<&str>) -> Vec<u8> {
    #[derive(Clone, PartialEq, Message)]
    struct Entry {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(string, tag = "2")]
        value: String,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Tensor {
        #[prost(message, repeated, tag = "13")]
        external: Vec<Entry>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Graph {
        #[prost(message, repeated, tag = "5")]
        tensors: Vec<Tensor>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Model {
        #[prost(message, optional, tag = "7")]
        graph: Option<Graph>,
        #[prost(string, tag = "6")]
        doc: String,
    }
    let entry = |value: &str| Entry { key: "location".into(), value: value.into() };
    let tensors = beside.map(|name| Tensor { external: vec![entry(name)] }).into_iter().collect();
    Model { graph: Some(Graph { tensors }), doc: "weights of the company".repeat(9000) }.encode_to_vec()
}

struct Desk {
    dir: tempfile::TempDir,
    keys: [Identity; 2],
}

impl Desk {
    fn new(beside: Option<&str>) -> Self {
        let desk =
            Self { dir: tempfile::tempdir().unwrap(), keys: [(); 2].map(|()| Identity::generate().unwrap()) };
        let plain = desk.path("plain");
        fs::create_dir_all(plain.join("golden")).unwrap();
        fs::write(plain.join("model.onnx"), model(beside)).unwrap();
        fs::write(plain.join("golden/01.jpg"), b"a picture").unwrap();
        let golden = GoldenSample { input: "golden/01.jpg".into(), expected: Default::default() };
        write_manifest(&plain, &Manifest { golden: vec![golden], ..sample() }).unwrap();
        seal(&plain).unwrap();
        for (at, key) in desk.keys.iter().enumerate() {
            let path = desk.path(&format!("key{at}"));
            fs::write(&path, key.key_file().as_bytes()).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The bundle encrypted for the first key.
    fn encrypted(&self) -> OpenBundle {
        let bundle = open(&self.path("plain"), None).unwrap();
        let to = self.path("secret");
        encrypted_copy(&bundle, &to, &[self.keys[0].recipient()], &|_| {}).unwrap();
        open(&to, None).unwrap()
    }
}

#[test]
fn the_key_opens_it_and_another_is_told_from_none() {
    let desk = Desk::new(None);
    let mut bundle = desk.encrypted();
    let lying = fs::read(bundle.model()).unwrap();
    assert!(!lying.windows(22).any(|part| part == b"weights of the company"));
    assert_eq!(bundle.secret_model().unwrap_err().code, ReasonCode::KeyMissing);
    let other = bundle.unlock(&[desk.path("key1"), desk.path("nothing")]).unwrap_err();
    assert_eq!(other.code, ReasonCode::KeyMissing);
    for part in [desk.keys[0].recipient().to_string(), desk.keys[1].recipient().to_string(), "nothing".into()]
    {
        assert!(other.detail.contains(&part), "{part}: {other}");
    }
    assert!(bundle.unlock(&[]).unwrap_err().detail.contains("no key is at hand"));
    // Whoever asks for keys leaves no core dump, whether one is found or not.
    let core = rustix::process::getrlimit(rustix::process::Resource::Core);
    assert_eq!((core.current, core.maximum), (Some(1), Some(1)));
    bundle.unlock(&[desk.path("key1"), desk.path("key0")]).unwrap();
    assert_eq!(*bundle.secret_model().unwrap().unwrap(), model(None));

    let mut plain = open(&desk.path("plain"), None).unwrap();
    plain.unlock(&[]).unwrap();
    assert_eq!(plain.secret_model().unwrap(), None);
    assert!(is_same_in_plain(&plain.manifest, &bundle.manifest, &[desk.keys[0].recipient()]));
    assert!(!is_same_in_plain(&plain.manifest, &bundle.manifest, &[desk.keys[1].recipient()]));
    assert!(!is_same_in_plain(&plain.manifest, &plain.manifest, &[]));
}

#[test]
fn a_key_that_others_may_read_is_no_key() {
    let desk = Desk::new(None);
    let mut bundle = desk.encrypted();
    fs::set_permissions(desk.path("key0"), fs::Permissions::from_mode(0o640)).unwrap();
    let reason = bundle.unlock(&[desk.path("key0")]).unwrap_err();
    assert!(reason.code == ReasonCode::KeyMissing && reason.detail.contains("chmod 600"), "{reason}");
    for text in ["", "x"] {
        fs::write(desk.path("key1"), text).unwrap();
        assert!(bundle.unlock(&[desk.path("key1")]).unwrap_err().detail.contains("key1"));
    }
}

#[test]
fn sealing_keeps_it_and_refuses_a_file_that_is_another_now() {
    let desk = Desk::new(None);
    let bundle = desk.encrypted();
    fs::write(bundle.dir.join("golden/02.jpg"), b"another picture").unwrap();
    let sealed = seal(&bundle.dir).unwrap();
    assert_eq!((sealed.files.len(), &sealed.encryption), (3, &bundle.manifest.encryption));
    fs::copy(desk.path("plain/model.onnx"), bundle.model()).unwrap();
    let reason = seal(&bundle.dir).unwrap_err();
    assert!(
        reason.code == ReasonCode::BadRequest && reason.detail.contains("take `encryption` out"),
        "{reason}"
    );
}

#[test]
fn what_was_changed_since_it_was_opened_is_refused() {
    let desk = Desk::new(None);
    let mut bundle = desk.encrypted();
    bundle.unlock(&[desk.path("key0")]).unwrap();
    let good = fs::read(bundle.model()).unwrap();
    for bytes in [&good[..good.len() - 1], &good[..100], b"", &[&good[..], b"x"].concat()] {
        fs::write(bundle.model(), bytes).unwrap();
        assert_eq!(bundle.secret_model().unwrap_err().code, ReasonCode::Malformed, "{} bytes", bytes.len());
        assert!(open(&bundle.dir, None).is_err());
    }
    fs::write(bundle.model(), &good).unwrap();
    let mut lying = bundle.clone();
    lying.manifest.encryption.as_mut().unwrap().files[0].sha256 = crate::domain::Digest::from_bytes([1; 32]);
    assert_eq!(lying.secret_model().unwrap_err().code, ReasonCode::DigestMismatch);
    fs::write(bundle.model(), b"not encrypted at all").unwrap();
    bundle.secrets = None;
    assert_eq!(bundle.unlock(&[desk.path("key0")]).unwrap_err().code, ReasonCode::Malformed);
}

#[test]
fn what_cannot_be_encrypted_is_refused_before_anything_is_written() {
    let desk = Desk::new(Some("model.onnx.data"));
    let bundle = open(&desk.path("plain"), None).unwrap();
    let to = desk.path("secret");
    let recipients = [desk.keys[0].recipient()];
    let reason = encrypted_copy(&bundle, &to, &recipients, &|_| {}).unwrap_err();
    assert_eq!(reason.code, ReasonCode::Unsupported);
    assert!(reason.detail.contains("model.onnx.data") && !to.exists(), "{reason}");

    let desk = Desk::new(None);
    let refused = || {
        let bundle = open(&desk.path("plain"), None).unwrap();
        let reason = encrypted_copy(&bundle, &to, &recipients, &|_| {}).unwrap_err();
        assert!(reason.code == ReasonCode::Unsupported && !to.exists(), "{reason}");
        reason.detail
    };
    fs::write(desk.path("plain/table"), b"weights that nothing names").unwrap();
    let mut manifest = seal(&desk.path("plain")).unwrap();
    let told = refused();
    assert!(told.contains("\"table\"") && told.contains("take it out"), "{told}");
    manifest.runtime.tensorrt.calibration_table = Some("table".into());
    write_manifest(&desk.path("plain"), &manifest).unwrap();
    assert!(refused().contains("calibration_table"));
    fs::remove_file(desk.path("plain/table")).unwrap();
    manifest.runtime.tensorrt.calibration_table = None;
    write_manifest(&desk.path("plain"), &manifest).unwrap();
    fs::write(desk.path("plain/model.sig"), b"a signature").unwrap();
    seal(&desk.path("plain")).unwrap();
    let secret = desk.encrypted();
    let code = |bundle: &OpenBundle, to: &str, recipients: &[Recipient]| {
        encrypted_copy(bundle, &desk.path(to), recipients, &|_| {}).unwrap_err().code
    };
    assert_eq!(code(&secret, "again", &recipients), ReasonCode::BadRequest);
    let plain = open(&desk.path("plain"), None).unwrap();
    assert_eq!(code(&plain, "secret", &recipients), ReasonCode::BadRequest);
    assert_eq!(code(&plain, "nobody", &[]), ReasonCode::BadRequest);
}
