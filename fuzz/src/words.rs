//! What comes over sockets, and the configuration.

use bytes::BytesMut;
use edgewarden::config::{self, Surroundings};
use edgewarden::domain::source::{Column, RowFormat, TimeColumn};
use edgewarden::inference::source::sensor::lines::Lines;
use edgewarden::inference::source::sensor::row::Rows;
use edgewarden::mqtt::commands::{Addressee, RawCommand, read};
use edgewarden::mqtt::topics::Topics;
use edgewarden::process::codec::{Messages, Reader};
use edgewarden::process::protocol::{FromCapture, FromInfer};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::path::Path;
use tokio_util::codec::Decoder;

/// A command as it comes from the broker: the first line is its topic, the rest its payload. What checks a
/// signed command belongs behind the same door, [`read`].
pub fn command(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (topic, payload) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let Ok(topic) = std::str::from_utf8(topic) else { return };
    let topics = Topics::new("edgewarden").expect("a root");
    let to = Addressee {
        device: "pi-1".parse().expect("a device"),
        groups: vec!["line-3".parse().expect("a group")],
    };
    for retained in [false, true] {
        let request = read(&topics, &to, RawCommand { topic, payload, retained });
        assert!(!retained || request.is_err(), "a retained command is of any age");
        if let Err(refusal) = request {
            assert!(refusal.reason.detail.len() < 4096, "a refusal is not longer than what may be sent");
        }
    }
}

/// What a child that was taken over tells the agent: both readers understand it in the same way, however it
/// is cut.
pub fn messages(data: &[u8]) {
    understood::<FromInfer>(data);
    understood::<FromCapture>(data);
}

fn understood<T: DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let mut reader = Reader::<_, T>::new(data);
    let mut whole = Vec::new();
    while let Ok(Some(message)) = reader.read() {
        whole.push(message);
    }
    let (mut codec, mut buffer, mut pieced) = (Messages::<T>::default(), BytesMut::new(), Vec::new());
    'all: for piece in super::pieces(data) {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(message)) => pieced.push(message),
                Ok(None) => break,
                Err(_) => break 'all,
            }
        }
    }
    assert_eq!(pieced, whole);
}

/// Lines of a sensor in CSV and JSON, with columns by name and by number.
pub fn samples(data: &[u8]) {
    let mut rest = data;
    let [kind] = super::take::<1>(&mut rest);
    let format = match kind % 4 {
        0 => RowFormat::Json,
        1 => RowFormat::Csv { delimiter: b' ' },
        2 => RowFormat::Csv { delimiter: b';' },
        _ => RowFormat::Csv { delimiter: b',' },
    };
    let columns = if kind & 4 == 0 {
        vec![Column::Name("x".into()), Column::Name("a.b".into())]
    } else {
        vec![Column::Number(1), Column::Number(3)]
    };
    let own = Column::Name("t".into());
    let time = (kind & 8 == 0).then_some(TimeColumn { column: own, unit_ns: 1_000_000 });
    let rows = || Rows::new(format, &columns, time.as_ref());

    let gather = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut lines, mut gathered) = (Lines::new(rows(), false), Vec::new());
        for piece in pieces {
            // A bad line is no reason to stop.
            let _ = lines.push("sensor", piece, &mut |at, values| {
                gathered.push((at, values.iter().map(|value| value.to_bits()).collect::<Vec<_>>()));
            });
        }
        gathered
    };
    let whole = gather(&mut std::iter::once(rest));
    assert!(whole.iter().all(|(_, values)| values.len() == columns.len()));
    if rest.len() < 1 << 16 {
        // Longer ones may hold a line that is left out, and where its rest begins depends on the pieces.
        assert_eq!(gather(&mut super::pieces(rest)), whole);
    }
    let _ = rows().read(rest);
}

/// `agent.toml`: every fault has a place.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let around = Surroundings { hostname: "pi-1".into(), onnxruntime: None, credentials: None };
    if let Err(faults) = config::from_text(text, Path::new("/etc/edgewarden"), &around) {
        assert!(!faults.0.is_empty(), "refused without a reason");
        let lines = text.lines().count() + 1;
        assert!(faults.0.iter().all(|fault| (1..=lines).contains(&fault.at.line)), "{faults}");
    }
}
