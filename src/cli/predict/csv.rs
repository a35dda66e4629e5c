//! Answers as a table (RFC 4180): one line for each box, class or raw output; a picture without any has
//! one line with its name alone.

use crate::domain::Output;
use anyhow::Context;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The first line.
const HEAD: &str = "image,kind,label,class,score,left,top,right,bottom,values";

/// A file under its way.
pub struct Table {
    path: PathBuf,
    file: BufWriter<std::fs::File>,
}

impl Table {
    /// Makes the file, with its head; one that is there is written over.
    ///
    /// # Errors
    /// With the file's name.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::create(path).with_context(|| format!("write {}", path.display()))?;
        let mut table = Self { path: path.to_owned(), file: BufWriter::new(file) };
        table.write(&format!("{HEAD}\r\n"))?;
        Ok(table)
    }

    /// Adds a picture's answer.
    ///
    /// # Errors
    /// With the file's name.
    pub fn add(&mut self, image: &Path, output: &Output) -> anyhow::Result<()> {
        self.write(&lines(&image.to_string_lossy(), output))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// With the file's name.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.file.flush().with_context(|| format!("write {}", self.path.display()))
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        self.file.write_all(text.as_bytes()).with_context(|| format!("write {}", self.path.display()))
    }
}

fn lines(image: &str, output: &Output) -> String {
    let mut lines = Vec::new();
    let image = quoted(image);
    for one in &output.detections {
        let [left, top, right, bottom] = one.bbox;
        let label = quoted(&one.label);
        lines.push(format!("{image},box,{label},{},{},{left},{top},{right},{bottom},", one.class, one.score));
    }
    for one in &output.classes {
        lines.push(format!("{image},class,{},{},{},,,,,", quoted(&one.label), one.class, one.score));
    }
    for one in &output.tensors {
        let values: Vec<_> = one.values.iter().map(f32::to_string).collect();
        lines.push(format!("{image},tensor,{},,,,,,,{}", quoted(&one.name), values.join(" ")));
    }
    if lines.is_empty() {
        lines.push(format!("{image},,,,,,,,,"));
    }
    lines.into_iter().map(|line| line + "\r\n").collect()
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Classification, Detection};

    #[test]
    fn every_line_has_the_columns_of_the_head() {
        let output = Output {
            detections: vec![Detection {
                label: "a \"b\"".into(),
                class: 1,
                score: 0.5,
                bbox: [1.0, 2.0, 3.5, 4.0],
            }],
            classes: vec![Classification { label: "c".into(), class: 2, score: 0.25 }],
            ..Output::default()
        };
        assert_eq!(
            lines("x,y.jpg", &output),
            "\"x,y.jpg\",box,\"a \"\"b\"\"\",1,0.5,1,2,3.5,4,\r\n\"x,y.jpg\",class,c,2,0.25,,,,,\r\n"
        );
        let columns = HEAD.matches(',').count();
        assert_eq!(lines("z", &Output::default()).matches(',').count(), columns);
        assert_eq!(
            lines("z", &Output { classes: output.classes, ..Output::default() }).matches(',').count(),
            columns
        );
    }
}
