//! Answers as a table (RFC 4180): one line for each box, class, value, anomaly or raw output; a picture
//! without any has one line with its name alone. Of films the frame's number and time stand at the end.

use super::batch::About;
use crate::domain::Output;
use anyhow::Context;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The first line.
const HEAD: &str = "image,kind,label,class,score,left,top,right,bottom,values,unit,frame,time_s";

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
    pub fn add(&mut self, about: About<'_>, output: &Output) -> anyhow::Result<()> {
        self.write(&lines(about, output))
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

fn lines(about: About<'_>, output: &Output) -> String {
    let mut lines = Vec::new();
    let image = quoted(&about.path.to_string_lossy());
    for one in &output.detections {
        let [left, top, right, bottom] = one.bbox;
        let label = quoted(&one.label);
        lines
            .push(format!("{image},box,{label},{},{},{left},{top},{right},{bottom},,", one.class, one.score));
    }
    for one in &output.classes {
        lines.push(format!("{image},class,{},{},{},,,,,,", quoted(&one.label), one.class, one.score));
    }
    for one in &output.values {
        let (name, unit) = (quoted(&one.name), quoted(&one.unit));
        lines.push(format!("{image},value,{name},,,,,,,{},{unit}", one.value));
    }
    if let Some(anomaly) = &output.anomaly {
        let verdict = u8::from(anomaly.is_anomaly);
        // The class is the verdict.
        let label = if anomaly.is_anomaly { "anomaly" } else { "normal" };
        lines.push(format!("{image},anomaly,{label},{verdict},{},,,,,,", anomaly.score));
        for one in &anomaly.channels {
            lines.push(format!(
                "{image},anomaly_channel,{},,{},,,,,,{}",
                quoted(&one.name),
                one.value,
                quoted(&one.unit)
            ));
        }
    }
    for one in &output.tensors {
        let values: Vec<_> = one.values.iter().map(f32::to_string).collect();
        lines.push(format!("{image},tensor,{},,,,,,,{},", quoted(&one.name), values.join(" ")));
    }
    if lines.is_empty() {
        lines.push(format!("{image},,,,,,,,,,"));
    }
    let (frame, time_s) = about.frame.map_or((None, None), |(frame, time_s)| (Some(frame), time_s));
    let text = |number: Option<String>| number.unwrap_or_default();
    let end =
        format!(",{},{}\r\n", text(frame.map(|n| n.to_string())), text(time_s.map(|t| format!("{t:.3}"))));
    lines.into_iter().map(|line| line + &end).collect()
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
    use crate::domain::result::{Anomaly, RawTensor, Value};
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
        let about = |path, frame| About { path: Path::new(path), frame };
        assert_eq!(
            lines(about("x,y.jpg", None), &output),
            "\"x,y.jpg\",box,\"a \"\"b\"\"\",1,0.5,1,2,3.5,4,,,,\r\n\"x,y.jpg\",class,c,2,0.25,,,,,,,,\r\n"
        );
        let series = Output {
            values: vec![Value { name: "speed".into(), value: 1.5, unit: "m/s, about".into() }],
            anomaly: Some(Anomaly {
                score: 3.0,
                is_anomaly: true,
                channels: vec![Value { name: "x".into(), value: 2.0, unit: String::new() }],
            }),
            tensors: vec![RawTensor { name: "raw".into(), shape: vec![2], values: vec![1.0, 2.5] }],
            ..Output::default()
        };
        assert_eq!(
            lines(about("a.mp4", Some((7, Some(0.24)))), &series),
            "a.mp4,value,speed,,,,,,,1.5,\"m/s, about\",7,0.240\r\n\
             a.mp4,anomaly,anomaly,1,3,,,,,,,7,0.240\r\n\
             a.mp4,anomaly_channel,x,,2,,,,,,,7,0.240\r\n\
             a.mp4,tensor,raw,,,,,,,1 2.5,,7,0.240\r\n"
        );
        let columns = HEAD.matches(',').count();
        let bare = |output: &Output| lines(about("z", None), output);
        for output in [&Output::default(), &Output { classes: output.classes, ..Output::default() }] {
            assert_eq!(bare(output).matches(',').count(), columns);
        }
        let series = Output { values: vec![], ..series };
        for line in bare(&series).lines() {
            assert_eq!(line.matches(',').count(), columns, "{line}");
        }
    }
}
