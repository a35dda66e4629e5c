//! The sensors among the sources: lines of a program or a serial port, the kernel's sensors, MQTT topics.

use super::broker::{self, BrokerUrl};
use super::file::{Node, Section, Value};
use super::settings::MqttSettings;
use super::value::{duration, one_of, path, shorten, text, whole};
use crate::domain::frame::MAX_FRAME;
use crate::domain::series::{Gaps, WindowSettings};
use crate::domain::source::{
    Broker, BrokerTls, Column, RowFormat, SensorFrom, SensorSettings, SourceSettings, TimeColumn,
};
use std::path::PathBuf;
use std::time::Duration;

/// Most channels of a window.
const MAX_COLUMNS: usize = 1024;
/// Most words of a program and its arguments.
const MAX_WORDS: usize = 256;
/// Where the kernel lists its sensors.
const IIO_DEVICES: &str = "/sys/bus/iio/devices";
/// A hole is bridged by default when it is no longer than so many points.
const BRIDGED_POINTS: f64 = 10.0;

/// `kind = "lines"`
pub fn lines(section: &mut Section<'_>) -> Option<SourceSettings> {
    let program = match section.misnamed("command", "program") {
        true => None,
        false => section.required("program", "[\"/opt/imu/read\", \"--csv\"]", words),
    };
    let format = row_format(section, "csv");
    let from = program.map(|program| SensorFrom::Command { program, format });
    sensor(section, from)
}

/// `kind = "serial"`
pub fn serial(section: &mut Section<'_>) -> Option<SourceSettings> {
    let port = section.required("port", "\"/dev/serial/by-id/usb-…\"", path);
    let baud = section.or("baud", 115_200, whole(50..=4_000_000)) as u32;
    let format = row_format(section, "csv");
    let from = port.map(|path| SensorFrom::Serial { path, baud, format });
    sensor(section, from)
}

/// `kind = "iio"`
pub fn iio(section: &mut Section<'_>) -> Option<SourceSettings> {
    let device = section.required("device", "\"accel_3d\"", |node| text(node).map(str::to_owned));
    sensor(section, device.map(|device| SensorFrom::Iio { device, root: IIO_DEVICES.into() }))
}

/// `kind = "mqtt"`; without a broker of its own it gets that of `[mqtt]` from [`complete`].
pub fn mqtt(section: &mut Section<'_>) -> Option<SourceSettings> {
    let topic = section.required("topic", "\"factory/press-7/vibration\"", |node| {
        let topic = text(node)?;
        if topic.len() > 1000 || topic.contains(['\0', '\n']) {
            return Err("is no topic; write one such as \"factory/press-7/vibration\"".into());
        }
        Ok(topic.to_owned())
    });
    let url = section.optional("broker", broker::direct);
    let username = section.optional("username", |node| text(node).map(str::to_owned));
    let password_file = section.secret_file("password_file");
    let ca_file = section.optional("ca_file", path);
    if url.is_none() && (username.is_some() || password_file.is_some() || ca_file.is_some()) {
        let at = section.at.clone();
        section.fault(&at, "broker", "is missing; username, password_file and ca_file belong to one");
    }
    let BrokerUrl { host, port, tls, .. } = url.unwrap_or_default();
    let tls = tls.then_some(BrokerTls { ca_file, client: None });
    let broker = Broker { host, port, tls, username, password_file };
    let format = row_format(section, "json");
    sensor(section, topic.map(|topic| SensorFrom::Mqtt { topic, broker, format }))
}

/// Gives a topic without a broker that of `[mqtt]`.
pub fn complete(source: &mut SourceSettings, mqtt: Option<&MqttSettings>) -> Result<(), String> {
    let SourceSettings::Sensor(sensor) = source else { return Ok(()) };
    let SensorFrom::Mqtt { broker, .. } = &mut sensor.from else { return Ok(()) };
    if !broker.host.is_empty() {
        return Ok(());
    }
    let Some(mqtt) = mqtt else {
        return Err("names no broker and there is no [mqtt]; add broker = \"mqtt://…\" to the source".into());
    };
    if mqtt.web_path.is_some() {
        let text =
            "names no broker, and that of [mqtt] is reached through a web server; add broker = \"mqtt://…\"";
        return Err(text.into());
    }
    let tls = mqtt.tls.as_ref();
    *broker = Broker {
        host: mqtt.host.clone(),
        port: mqtt.port,
        tls: tls.map(|tls| BrokerTls { ca_file: tls.ca_file.clone(), client: tls.client.clone() }),
        username: mqtt.username.clone(),
        password_file: mqtt.password_file.clone(),
    };
    Ok(())
}

/// How long a good sensor may give no window, where it is one.
pub fn longest_silence(source: &SourceSettings) -> Option<Duration> {
    let SourceSettings::Sensor(sensor) = source else { return None };
    let seconds = sensor.window.seconds().max(sensor.window.period());
    Duration::try_from_secs_f64(seconds).ok()
}

/// The keys that all sensors have.
fn sensor(section: &mut Section<'_>, from: Option<SensorFrom>) -> Option<SourceSettings> {
    let columns = section.required("columns", "[\"x\", \"y\", \"z\"], or their numbers from 1", columns);
    // The kernel's sensors have none of their own.
    let timed = !matches!(from, Some(SensorFrom::Iio { .. }));
    let column = timed.then(|| section.optional("time", column)).flatten();
    let units = one_of(&[("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)]);
    let unit_ns = if timed { section.or("time_unit", 1_000_000_000, units) } else { 1 };
    let time = column.map(|column| TimeColumn { column, unit_ns });
    let rate = section.required("rate", "50", rate);
    let length = section.required("window", "128", whole(1..=1 << 20)).map(|length| length as u32);
    let stride = section.optional("stride", whole(1..=1 << 20)).map(|stride| stride as u32);
    let longest = Duration::from_secs(60);
    let max_gap = section.optional("max_gap", duration(Duration::from_millis(1)..=longest));
    let words = one_of(&[("mark", Gaps::Mark), ("skip", Gaps::Skip)]);
    let gaps = section.or("gaps", Gaps::Mark, words);
    let (columns, rate, length) = (columns?, rate?, length?);
    if columns.len() * length as usize * 4 > MAX_FRAME {
        let at = section.at.clone();
        section.fault(&at, "window", format!("{length} samples of {} columns are too many", columns.len()));
    }
    let bridged = Duration::from_secs_f64((BRIDGED_POINTS / rate).min(60.0));
    let max_gap_ms = max_gap.unwrap_or(bridged).as_millis().max(1) as u64;
    let window = WindowSettings { rate, length, stride: stride.unwrap_or(length), max_gap_ms, gaps };
    Some(SourceSettings::Sensor(Box::new(SensorSettings { from: from?, columns, time, window })))
}

fn rate(node: &Node) -> Result<f64, String> {
    let rate = match &node.value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        other => return Err(format!("expected a number of samples a second, found {}", other.kind())),
    };
    if (0.001..=100_000.0).contains(&rate) {
        Ok(rate)
    } else {
        Err(format!("{rate} is out of range; use 0.001 to 100000"))
    }
}

fn row_format(section: &mut Section<'_>, usual: &str) -> RowFormat {
    let words = one_of(&[("csv", true), ("json", false)]);
    let csv = section.or("format", usual == "csv", words);
    if !csv {
        return RowFormat::Json;
    }
    let delimiter = section.or("delimiter", b',', |node| match &node.value {
        Value::Text(text) => match text.as_bytes() {
            &[byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b".+-\"\n\r".contains(&byte) => {
                Ok(byte)
            }
            _ => Err(format!(
                "\"{}\" is no delimiter; use one such as \",\", \";\", \"\\t\" or \" \"",
                shorten(text)
            )),
        },
        other => Err(format!("expected text, found {}; put it in quotes", other.kind())),
    });
    RowFormat::Csv { delimiter }
}

fn column(node: &Node) -> Result<Column, String> {
    match &node.value {
        Value::Integer(number @ 1..=4096) => Ok(Column::Number(*number as u32)),
        Value::Integer(number) => Err(format!("{number} is no column; they count from 1 to 4096")),
        _ => text(node).map(|name| Column::Name(name.to_owned())),
    }
}

fn columns(node: &Node) -> Result<Vec<Column>, String> {
    let Value::List(items) = &node.value else {
        return Err(format!("expected a list, found {}; write [ … ]", node.value.kind()));
    };
    if items.is_empty() || items.len() > MAX_COLUMNS {
        return Err(format!("has {} items; name 1 to {MAX_COLUMNS} columns", items.len()));
    }
    items.iter().map(column).collect()
}

/// A program and its arguments; a program with a slash in it counts from the file's folder.
fn words(node: &Node) -> Result<Vec<String>, String> {
    let Value::List(items) = &node.value else {
        return Err(format!(
            "expected a list, found {}; write [\"program\", \"argument\"]",
            node.value.kind()
        ));
    };
    if items.is_empty() || items.len() > MAX_WORDS {
        return Err(format!("has {} words; name a program and its arguments", items.len()));
    }
    let mut words = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        words.push(match &item.value {
            Value::Text(_) if at == 0 => program(item)?,
            Value::Text(word) => word.clone(),
            other => return Err(format!("expected texts, found {}; put it in quotes", other.kind())),
        });
    }
    Ok(words)
}

fn program(node: &Node) -> Result<String, String> {
    let word = text(node)?;
    if !word.contains('/') {
        return Ok(word.to_owned());
    }
    let found: PathBuf = path(node)?;
    found.into_os_string().into_string().map_err(|_| "is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::super::{Surroundings, from_text};
    use super::*;
    use std::path::Path;

    const EXAMPLE: &str = include_str!("../../agent.toml");
    const WINDOW: &str = "columns = [\"x\", 2]\nrate = 50\nwindow = 100\n";

    /// The source, or the faults in lines without the path.
    fn read(source: &str, rest: &str) -> Result<SensorSettings, Vec<String>> {
        let text = format!("{rest}\n[[pipeline]]\n[pipeline.source]\n{source}");
        let around = Surroundings { hostname: "pi-4".into(), onnxruntime: None, credentials: None };
        let settings = from_text(&text, Path::new("/etc/edgewarden"), &around)
            .map_err(|faults| faults.to_string().lines().map(str::to_owned).collect::<Vec<_>>())?;
        match settings.pipelines.into_iter().next().unwrap().source {
            SourceSettings::Sensor(sensor) => Ok(*sensor),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_kind_has_its_defaults() {
        let lines =
            read(&format!("kind = \"lines\"\nprogram = [\"bin/imu\", \"-x\"]\n{WINDOW}"), "").unwrap();
        let program = vec!["/etc/edgewarden/bin/imu".to_owned(), "-x".to_owned()];
        assert_eq!(lines.from, SensorFrom::Command { program, format: RowFormat::Csv { delimiter: b',' } });
        assert_eq!(lines.columns, [Column::Name("x".into()), Column::Number(2)]);
        let window =
            WindowSettings { rate: 50.0, length: 100, stride: 100, max_gap_ms: 200, gaps: Gaps::Mark };
        assert_eq!((lines.window, lines.time), (window, None));
        let serial = "kind = \"serial\"\nport = \"/dev/ttyUSB0\"\nformat = \"json\"\ntime = 1\ntime_unit = \"us\"\n\
                      stride = 50\nmax_gap = \"1s\"\ngaps = \"skip\"\n";
        let serial = read(&format!("{serial}{WINDOW}"), "").unwrap();
        let format = RowFormat::Json;
        assert_eq!(serial.from, SensorFrom::Serial { path: "/dev/ttyUSB0".into(), baud: 115_200, format });
        assert_eq!(serial.time, Some(TimeColumn { column: Column::Number(1), unit_ns: 1000 }));
        let window = WindowSettings { stride: 50, max_gap_ms: 1000, gaps: Gaps::Skip, ..window };
        assert_eq!(serial.window, window);
        let iio = read(&format!("kind = \"iio\"\ndevice = \"accel_3d\"\n{WINDOW}"), "").unwrap();
        assert_eq!(iio.from, SensorFrom::Iio { device: "accel_3d".into(), root: IIO_DEVICES.into() });
    }

    #[test]
    fn a_topic_has_the_agent_s_broker_or_its_own() {
        let source = format!("kind = \"mqtt\"\ntopic = \"a/b\"\n{WINDOW}");
        let agents = "[mqtt]\nurl = \"mqtts://one\"\nusername = \"u\"\npassword_file = \"p\"\n";
        let SensorFrom::Mqtt { broker, .. } = read(&source, agents).unwrap().from else { panic!() };
        assert_eq!((broker.host.as_str(), broker.port, broker.username.as_deref()), ("one", 8883, Some("u")));
        assert!(broker.tls.is_some() && broker.password_file == Some("/etc/edgewarden/p".into()));
        let own = format!("{source}broker = \"mqtt://two:1884\"\n");
        let SensorFrom::Mqtt { broker, .. } = read(&own, agents).unwrap().from else { panic!() };
        assert_eq!(
            (broker.host.as_str(), broker.port, broker.username, broker.tls),
            ("two", 1884, None, None)
        );
        let none = read(&source, "").unwrap_err();
        assert!(none[0].contains("pipeline.source: names no broker and there is no [mqtt]"), "{none:?}");
    }

    #[test]
    fn every_fault_has_its_line_and_remedy() {
        for (source, wanted) in [
            ("kind = \"lines\"\n", "source.program: is missing; add program = [\"/opt/imu/read\""),
            ("kind = \"lines\"\nprogram = \"ls\"\n", "expected a list, found text; write [\"program\""),
            ("kind = \"lines\"\nprogram = []\n", "has 0 words"),
            ("kind = \"lines\"\nprogram = [\"x\"]\ndelimiter = \"ab\"\n", "\"ab\" is no delimiter"),
            ("kind = \"lines\"\nprogram = [\"x\"]\nformat = \"xml\"\n", "\"xml\" is not known"),
            ("kind = \"lines\"\nprogram = [\"x\"]\nbaud = 9600\n", "source.baud: unknown key"),
            ("kind = \"serial\"\nport = \"/dev/ttyS0\"\nbaud = 1\n", "source.baud: 1 is out of range"),
            ("kind = \"iio\"\ndevice = \"a\"\ntime = \"t\"\n", "source.time: unknown key"),
            ("kind = \"mqtt\"\ntopic = \"t\"\nbroker = \"http://x\"\n", "no way to a broker"),
            ("kind = \"mqtt\"\ntopic = \"t\"\nusername = \"u\"\n", "source.broker: is missing"),
            ("kind = \"lines\"\nprogram = [\"x\"]\ntime_unit = \"h\"\n", "\"h\" is not known"),
            ("kind = \"lines\"\nprogram = [\"x\"]\nmax_gap = \"2m\"\n", "out of range"),
            (
                "kind = \"lines\"\nprogram = [\"x\"]\nstride = 500\n",
                "shorter than a window of the sensor takes, 10 s",
            ),
            // As a camera's program is called, and nothing else beside it.
            ("kind = \"lines\"\ncommand = [\"x\"]\n", "source.command: is called program; write program = ["),
        ] {
            let faults = read(&format!("{source}{WINDOW}"), "[mqtt]\nurl = \"mqtt://h\"\n").unwrap_err();
            assert!(faults.iter().any(|fault| fault.contains(wanted)), "{source}: {faults:?}");
        }
        let bare = read("kind = \"lines\"\nprogram = [\"x\"]\n", "").unwrap_err();
        for key in ["columns", "rate", "window"] {
            assert!(
                bare.iter().any(|fault| fault.contains(&format!("source.{key}: is missing"))),
                "{bare:?}"
            );
        }
        for (window, wanted) in [
            ("columns = []\nrate = 1\nwindow = 1\n", "has 0 items"),
            ("columns = [0]\nrate = 1\nwindow = 1\n", "0 is no column; they count from 1"),
            ("columns = [1]\nrate = 0\nwindow = 1\n", "0 is out of range"),
            ("columns = [1]\nrate = 1\nwindow = 0\n", "0 is out of range"),
        ] {
            let faults = read(&format!("kind = \"lines\"\nprogram = [\"x\"]\n{window}"), "").unwrap_err();
            assert!(faults.iter().any(|fault| fault.contains(wanted)), "{window}: {faults:?}");
        }
    }

    #[test]
    fn the_example_names_every_key_of_every_sensor() {
        for kind in ["lines", "serial", "iio", "mqtt"] {
            let faults = read(&format!("kind = \"{kind}\"\nqqqqqqqqqqqqqqqq = 1\n"), "").unwrap_err();
            let known = faults.iter().find_map(|fault| fault.split_once("known here: ")).unwrap().1;
            for key in known.split(", ") {
                let documented = EXAMPLE.contains(&format!("\n#   {key} = "));
                // Told in the line of `broker`.
                let beside = matches!(key, "username" | "password_file" | "ca_file");
                assert!(documented || beside, "agent.toml does not show {key} of {kind}");
            }
        }
    }
}
