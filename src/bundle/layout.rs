//! Where things lie in a repository, on a web server, in a folder, or inside a `.bundle` file.
//!
//! ```text
//! metadata/1.root.json  2.root.json …       every root, for the chain from the pinned one
//! metadata/timestamp.json                   the only file that changes in place
//! metadata/7.snapshot.json  7.targets.json  consistent snapshots: old ones stay
//! targets/NAME/VERSION/SHA256.manifest.json the manifest that was signed
//! targets/SHA256.operators.json             who may sign commands
//! blobs/SHA256                              every other file, once however many releases share it
//! deltas/SHA256.json                        which deltas there are for the release with that manifest; unsigned
//! deltas/SHA256                             a delta
//! ```

use super::MANIFEST;
use crate::domain::{Digest, Release};

/// Folder of the signed metadata.
pub const METADATA: &str = "metadata";
/// Folder of the signed manifests.
pub const TARGETS: &str = "targets";
/// The TUF target path of the list of operators.
pub const OPERATORS: &str = "operators.json";
/// Folder of the files that manifests name.
pub const BLOBS: &str = "blobs";

/// Folder of the deltas, which nobody signs.
pub const DELTAS: &str = "deltas";

/// Path of a metadata file, such as `timestamp.json` or `3.root.json`.
pub fn metadata(name: &str) -> String {
    format!("{METADATA}/{name}")
}

/// The TUF target path of a release: what the signed list calls its manifest.
pub fn target(release: &Release) -> String {
    format!("{}/{}/{MANIFEST}", release.name, release.version)
}

/// The release that a TUF target path stands for; `None` where it stands for something else.
pub fn release_of_target(target: &str) -> Option<Release> {
    let (name, rest) = target.split_once('/')?;
    let (version, MANIFEST) = rest.split_once('/')? else { return None };
    format!("{name}@{version}").parse().ok().filter(|release| self::target(release) == target)
}

/// Path of the manifest of a release with the digest `digest`.
pub fn manifest(release: &Release, digest: &Digest) -> String {
    format!("{TARGETS}/{}/{}/{digest}.{MANIFEST}", release.name, release.version)
}

/// The release and digest that a manifest's path claims; `None` where it is no such path.
pub fn release_of_manifest(path: &str) -> Option<(Release, Digest)> {
    let (folder, file) = path.strip_prefix(TARGETS)?.strip_prefix('/')?.rsplit_once('/')?;
    let digest: Digest = file.strip_suffix(MANIFEST)?.strip_suffix('.')?.parse().ok()?;
    let release = release_of_target(&format!("{folder}/{MANIFEST}"))?;
    (manifest(&release, &digest) == path).then_some((release, digest))
}

/// Path of the list of operators with the digest `digest`.
pub fn operators(digest: &Digest) -> String {
    format!("{TARGETS}/{digest}.{OPERATORS}")
}

/// The digest that the path of a list of operators claims; `None` where it is no such path.
pub fn digest_of_operators(path: &str) -> Option<Digest> {
    let digest = path.strip_prefix(TARGETS)?.strip_prefix('/')?.strip_suffix(OPERATORS)?.strip_suffix('.')?;
    digest.parse().ok().filter(|digest| operators(digest) == path)
}

/// Path of the file with the content `digest`.
pub fn blob(digest: &Digest) -> String {
    format!("{BLOBS}/{digest}")
}

/// Path of the list of deltas of the release whose manifest has the digest `manifest`.
pub fn delta_index(manifest: &Digest) -> String {
    format!("{DELTAS}/{manifest}.json")
}

/// Path of the delta with the digest `digest`.
pub fn delta(digest: &Digest) -> String {
    format!("{DELTAS}/{digest}")
}

/// The content that a blob's path claims; `None` where it is no such path.
pub fn digest_of_blob(path: &str) -> Option<Digest> {
    let digest: Digest = path.strip_prefix(BLOBS)?.strip_prefix('/')?.parse().ok()?;
    (blob(&digest) == path).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_back_to_what_they_were_made_from_and_others_to_nothing() {
        let release: Release = "detector@1.2.0-rc.1+arm".parse().unwrap();
        let digest = Digest::from_bytes([0xab; 32]);
        assert_eq!(release_of_target(&target(&release)), Some(release.clone()));
        assert_eq!(release_of_manifest(&manifest(&release, &digest)), Some((release, digest)));
        assert_eq!(digest_of_blob(&blob(&digest)), Some(digest));
        assert_eq!(digest_of_operators(&operators(&digest)), Some(digest));
        assert_eq!(digest_of_operators(&format!("targets/a/{digest}.operators.json")), None);
        for bad in
            ["detector/1.2.0", "../1.2.0/manifest.json", "a/01.0.0/manifest.json", "a/1.0.0/x/manifest.json"]
        {
            assert_eq!(release_of_target(bad), None, "{bad}");
        }
        assert_eq!(digest_of_blob(&format!("blobs/{}", "AB".repeat(32))), None);
        assert_eq!(digest_of_blob("blobs/../x"), None);
        assert_eq!(release_of_manifest("targets/a/1.0.0/manifest.json"), None);
    }
}
