//! Pictures of the belt with their truth, for training the demo's models.
//!
//! `frames.rgb` holds the pictures one after the other, 3 bytes a pixel without any header;
//! `truth.jsonl` holds one line per picture, in the same order.

use crate::inference::source::scene::Scene;
use anyhow::Context;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

/// What to draw.
#[derive(Debug, Clone, Copy)]
pub struct Dataset {
    /// Pictures.
    pub count: u64,
    /// Seed of the first picture's belt; each picture is of a belt of its own.
    pub seed: u64,
    /// Share of the places on the belt that hold a part, percent.
    pub density: u32,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

#[derive(Serialize)]
struct Line {
    seed: u64,
    seq: u64,
    width: u32,
    height: u32,
    objects: Vec<Object>,
}

#[derive(Serialize)]
struct Object {
    label: &'static str,
    class: u32,
    #[serde(rename = "box")]
    bbox: [f32; 4],
    visible: f32,
}

/// Writes the pictures and their truth into `folder`, which is made when it is not there.
pub fn write(folder: &Path, set: Dataset) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let create = |name: &str| {
        let path = folder.join(name);
        File::create(&path).map(BufWriter::new).with_context(|| format!("write {}", path.display()))
    };
    let (mut frames, mut truths) = (create("frames.rgb")?, create("truth.jsonl")?);
    let mut picture = Vec::new();
    for i in 0..set.count {
        let seed = set.seed.wrapping_add(i);
        // A prime's multiples spread the pictures over the swing of the lamp.
        let seq = 1 + i.wrapping_mul(7919) % 100_003;
        let scene = Scene::with_density(seed, set.density, set.width, set.height);
        scene.draw(seq, &mut picture);
        let objects = scene
            .truth(seq)
            .into_iter()
            .map(|t| Object { label: t.label, class: t.class, bbox: t.bbox, visible: t.visible })
            .collect();
        let line = Line { seed, seq, width: set.width, height: set.height, objects };
        frames.write_all(&picture).context("write frames.rgb")?;
        writeln!(truths, "{}", serde_json::to_string(&line)?).context("write truth.jsonl")?;
    }
    frames.flush().context("write frames.rgb")?;
    truths.flush().context("write truth.jsonl")
}
