//! `edgewarden fleet snapshot`: what a device sees, as a file.

use super::access::AccessArgs;
use super::ask::{Question, ask};
use super::sign::SignArgs;
use super::{GOODBYE, send};
use crate::cli::exit::Usage;
use crate::domain::authority::Audience;
use crate::domain::fleet::answers::Reply;
use crate::domain::{DeviceId, PipelineName, Reason, ReasonCode};
use crate::mqtt::topics::{Said, Topic};
use anyhow::Context;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// How a JPEG begins and ends.
const JPEG: (&[u8], &[u8]) = (&[0xff, 0xd8, 0xff], &[0xff, 0xd9]);
/// Pictures of one device that are kept until its answer says which is meant.
const KEPT: usize = 4;
/// The picture comes on its own way, and may come after the answer.
const AFTER: Duration = Duration::from_secs(5);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The device
    device: DeviceId,
    /// The pipeline; may be left out where the device has one
    #[arg(long)]
    pipeline: Option<PipelineName>,
    /// With what the model found drawn in
    #[arg(long)]
    boxes: bool,
    /// Longest edge, pixels
    #[arg(long, value_name = "PIXELS")]
    max_edge: Option<u32>,
    /// Where to write the JPEG; - for standard output
    #[arg(short, long, value_name = "FILE.jpg")]
    output: PathBuf,
    /// How long an answer is waited for: 90s, 10m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = super::span)]
    timeout: Duration,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let stdout = args.output == Path::new("-");
    if stdout && std::io::stdout().is_terminal() {
        let detail =
            "a picture is nothing for a terminal: name a file with -o, or send it on with `-o - | …`";
        return Err(Usage(detail.to_owned()).into());
    }
    let mut arguments = Map::new();
    if let Some(pipeline) = &args.pipeline {
        arguments.insert("pipeline".to_owned(), json!(pipeline));
    }
    if let Some(edge) = args.max_edge {
        arguments.insert("max_edge".to_owned(), json!(edge));
    }
    if args.boxes {
        arguments.insert("boxes".to_owned(), json!(true));
    }
    let ready = args.access.ready()?;
    let signing = args.sign.ready(&ready.file)?;
    let operator = ready.connect().await?;
    let topics = operator.topics().clone();
    // Before the command, so that the picture cannot come too early.
    let filter = match &args.pipeline {
        Some(pipeline) => topics.said(&args.device, &Said::Snapshot(pipeline.clone())),
        None => {
            format!("{}/+", topics.said(&args.device, &Said::Snapshot("x".parse()?)).trim_end_matches("/x"))
        }
    };
    operator.hear(vec![filter]).await?;
    let audience = Audience::Device(args.device.clone());
    let question = Question {
        audience: &audience,
        command: "snapshot",
        arguments: &arguments,
        signing: &signing,
        timeout: args.timeout,
        anyway: false,
    };
    let mut pictures: Vec<(PipelineName, Bytes)> = Vec::new();
    let mut end = None;
    let mut keep = |message: crate::mqtt::message::Received| {
        let Some(Topic::Said { device, said: Said::Snapshot(pipeline) }) = topics.parse(&message.topic)
        else {
            return;
        };
        // One that the broker has kept is of another moment.
        if device == args.device && !message.retained && is_jpeg(&message.payload) {
            if pictures.len() == KEPT {
                pictures.remove(0);
            }
            pictures.push((pipeline, message.payload));
        }
    };
    let mut sees = |_: &DeviceId, reply: &Reply| {
        end = Some(reply.clone());
        Ok(())
    };
    ask(&operator, &question, &mut sees, &mut keep).await?;
    let result = send::result_of(&args.device, "snapshot", end, args.timeout)?;
    let late = Instant::now() + AFTER;
    let picture = loop {
        if let Some(at) = pictures.iter().rposition(|picture| is_meant(picture, &result)) {
            break pictures.swap_remove(at).1;
        }
        let Some(message) = operator.next(late.saturating_duration_since(Instant::now())).await else {
            let detail = format!(
                "{}: it took a picture, which did not come; a picture is sent once: ask again, or for a smaller \
                 --max-edge",
                args.device
            );
            return Err(Reason::new(ReasonCode::BrokerUnreachable, detail).into());
        };
        let Some(Topic::Said { device, said: Said::Snapshot(pipeline) }) = topics.parse(&message.topic)
        else {
            continue;
        };
        if device == args.device && !message.retained && is_jpeg(&message.payload) {
            pictures.push((pipeline, message.payload));
        }
    };
    operator.close(GOODBYE).await;
    if stdout {
        let mut out = std::io::stdout().lock();
        return out.write_all(&picture).and_then(|()| out.flush()).context("write the picture");
    }
    save(&args.output, &picture)?;
    anstream::eprintln!("{}: {} bytes", args.output.display(), picture.len());
    Ok(())
}

/// Whether this is the picture that the answer speaks of.
fn is_meant((pipeline, picture): &(PipelineName, Bytes), result: &Value) -> bool {
    let named = result.get("pipeline").and_then(Value::as_str).is_none_or(|named| named == pipeline.as_str());
    let sized = result.get("bytes").and_then(Value::as_u64).is_none_or(|bytes| bytes == picture.len() as u64);
    named && sized
}

fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(JPEG.0) && bytes.ends_with(JPEG.1)
}

/// Whole or not at all.
fn save(path: &Path, picture: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = (|| {
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)?;
        file.write_all(picture)?;
        file.persist(path).map_err(|error| error.error)
    })();
    written.map(drop).with_context(|| format!("write {}", path.display()))
}
