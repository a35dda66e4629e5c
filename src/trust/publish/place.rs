//! The files of a bundle on their way into a repository: each checked, each under its name or not at all.

use super::Publisher;
use crate::bundle::checked::{self, NewFile};
use crate::bundle::{self, OpenBundle, layout};
use crate::domain::{Digest, Manifest, Reason};
use crate::sys::durable::{self, failed};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

/// How much was new.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pub(super) new_files: usize,
    pub(super) new_bytes: u64,
    /// Bytes of the manifest.
    pub(super) manifest_size: u64,
}

impl Publisher {
    /// Copies what the repository lacks of a bundle: its files, and then its manifest. `progress` hears
    /// the bytes of its files done so far.
    pub(super) fn place(&self, open: &OpenBundle, progress: &dyn Fn(u64)) -> Result<Placed, Reason> {
        let mut placed = self.place_blobs(&open.dir, &open.manifest, progress)?;
        let path = open.dir.join(bundle::MANIFEST);
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        placed.manifest_size = bytes.len() as u64;
        let place = self.repository.join(layout::manifest(&open.manifest.release(), &open.digest));
        let folder = place.parent().unwrap_or(&self.repository);
        durable::create_dir_synced(folder)?;
        let mut file = NewFile::in_dir(folder)?;
        let what = path.display().to_string();
        let size = placed.manifest_size;
        checked::copy(&what, &mut bytes.as_slice(), &open.digest, size, file.file(), &|_| {})?;
        file.keep_as(&place)?;
        Ok(placed)
    }

    /// Copies what `blobs/` lacks, each file checked.
    fn place_blobs(&self, dir: &Path, manifest: &Manifest, progress: &dyn Fn(u64)) -> Result<Placed, Reason> {
        let (mut seen, mut done, mut placed) = (BTreeSet::new(), 0, Placed::default());
        for entry in &manifest.files {
            let place = self.repository.join(layout::blob(&entry.sha256));
            if seen.insert(entry.sha256) && !is_whole(&place, &entry.sha256, entry.size) {
                let source = dir.join(&entry.path);
                let mut reader = File::open(&source).map_err(failed("open", &source))?;
                let mut file = NewFile::in_dir(&self.repository.join(layout::BLOBS))?;
                let what = source.display().to_string();
                let told = |bytes| progress(done + bytes);
                checked::copy(&what, &mut reader, &entry.sha256, entry.size, file.file(), &told)?;
                file.keep_as(&place)?;
                placed.new_files += 1;
                placed.new_bytes += entry.size;
            }
            done += entry.size;
            progress(done);
        }
        Ok(placed)
    }
}

/// True where the file is there with this content; a damaged one is replaced.
fn is_whole(path: &Path, digest: &Digest, size: u64) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    checked::copy("", &mut file, digest, size, &mut std::io::sink(), &|_| {}).is_ok()
}
