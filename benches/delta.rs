//! Deltas: bytes, time and memory; `packaging/bench-deltas.sh` runs it beside other tools.
//!
//! ```text
//! delta pack NEW OUT [OLD]          packs NEW, against OLD where there is one
//! delta apply PACKED SIZE OUT [OLD] puts the file together
//! delta zstd FRAME OUT              unpacks a plain frame of zstd, for comparison
//! ```
//!
//! Each prints one JSON object: bytes, milliseconds of processor time (all of the process, so that what else runs counts
//! less), and the most memory that it held.

use edgewarden::bundle::delta::{LEVEL, Layout, Old, OldFile, Source, Tensor, apply, make};
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use zstd_safe::{DCtx, InBuffer, OutBuffer};

type Fault = Box<dyn std::error::Error>;

fn main() -> Result<(), Fault> {
    // Cargo adds `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match &args[..] {
        ["pack", new, out, old @ ..] => pack(new, out, old.first().copied()),
        ["apply", packed, size, out, old @ ..] => {
            put_together(packed, size.parse()?, out, old.first().copied())
        }
        ["zstd", frame, out] => unpack(frame, out),
        _ => {
            eprintln!("usage: see the head of benches/delta.rs; packaging/bench-deltas.sh fills it in");
            Ok(())
        }
    }
}

fn tell(what: &str, bytes: u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
    };
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let ms = time.tv_sec as f64 * 1000.0 + time.tv_nsec as f64 / 1e6;
    println!(r#"{{"what": "{what}", "bytes": {bytes}, "ms": {ms:.2}, "peak_kib": {}}}"#, field("VmHWM:"));
}

fn tensors(path: &str) -> Result<Vec<Tensor>, Fault> {
    if !path.ends_with(".onnx") {
        return Ok(Vec::new());
    }
    Ok(Layout::of_model(&std::fs::read(path)?)?.own)
}

fn pack(new: &str, out: &str, old: Option<&str>) -> Result<(), Fault> {
    let new_tensors = tensors(new)?;
    let old_tensors = old.map_or(Ok(Vec::new()), tensors)?;
    let new = OldFile::new(File::open(new)?)?;
    let old = old.map(|old| File::open(old).and_then(OldFile::new)).transpose()?;
    let mut writer = BufWriter::new(File::create(out)?);
    let source = old.as_ref().map(|old| Source { bytes: old, tensors: &old_tensors });
    let method = make(source, Source { bytes: &new, tensors: &new_tensors }, LEVEL, &mut writer, &|_| {})?;
    writer.flush()?;
    tell(method.as_str(), std::fs::metadata(out)?.len());
    Ok(())
}

fn put_together(packed: &str, size: u64, out: &str, old: Option<&str>) -> Result<(), Fault> {
    let old = old.map(|old| File::open(old).and_then(OldFile::new)).transpose()?;
    let old = old.as_ref().map(|old| old as &dyn Old);
    let mut packed = BufReader::new(File::open(packed)?);
    apply(old, &mut packed, size, &mut File::create(out)?, &|_| {})?;
    tell("apply", size);
    Ok(())
}

/// As `zstd -d` does it: streamed.
fn unpack(frame: &str, out: &str) -> Result<(), Fault> {
    let (mut source, mut out) = (File::open(frame)?, File::create(out)?);
    let mut unpacker = DCtx::create();
    let (mut input, mut output) = (vec![0; DCtx::in_size()], vec![0; DCtx::out_size()]);
    let mut total = 0;
    loop {
        let length = source.read(&mut input)?;
        if length == 0 {
            break;
        }
        let mut from = InBuffer::around(&input[..length]);
        while from.pos() < length {
            let mut into = OutBuffer::around(&mut output[..]);
            unpacker
                .decompress_stream(&mut into, &mut from)
                .map_err(|code| zstd_safe::get_error_name(code).to_owned())?;
            let done = into.pos();
            out.write_all(&output[..done])?;
            total += done as u64;
        }
    }
    tell("zstd", total);
    Ok(())
}
