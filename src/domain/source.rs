//! What a pipeline looks at.

use super::FrameFormat;
use super::series::WindowSettings;
use super::stream::StreamSettings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a capture child reads; the checked form of a pipeline's `source` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceSettings {
    /// The built-in camera over a conveyor belt, with known truth.
    Synthetic {
        /// Picks the scene; the same seed gives the same frames.
        seed: u64,
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// The pictures of a folder in the order of their names.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Start again after the last; else end.
        repeat: bool,
    },
    /// A camera that the kernel knows (Video4Linux), such as a USB camera.
    V4l2(V4l2Settings),
    /// What another program reads for us.
    Stream(StreamSettings),
    /// Samples of a sensor, in windows.
    Sensor(Box<SensorSettings>),
}

/// What is wanted of a camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct V4l2Settings {
    /// The device file or a link to it; else the only camera that is found.
    pub device: Option<PathBuf>,
    /// Pixels across; the nearest size that the camera has is taken.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Frames a second that the camera is set to; else those of its pipeline.
    pub fps: Option<f32>,
    /// Only this format; else the best that the camera has.
    pub format: Option<FrameFormat>,
    /// Values of controls (exposure, focus) by their names in small letters.
    pub controls: BTreeMap<String, i32>,
}

impl SourceSettings {
    /// The same source, set to the pace of its pipeline where none of its own is wanted.
    pub fn at_pace(mut self, fps: f32) -> Self {
        if let SourceSettings::V4l2(settings) = &mut self {
            settings.fps.get_or_insert(fps);
        }
        self
    }

    /// True when it makes a frame whenever it is asked for one, and loses nothing by waiting; false for
    /// what is live.
    pub fn waits(&self) -> bool {
        match self {
            SourceSettings::Synthetic { .. } | SourceSettings::Folder { .. } => true,
            SourceSettings::Stream(stream) => stream.waits(),
            SourceSettings::V4l2(_) | SourceSettings::Sensor(_) => false,
        }
    }

    /// True when its frames are pictures, false when they are windows of samples.
    pub fn gives_pictures(&self) -> bool {
        !matches!(self, SourceSettings::Sensor(_))
    }

    /// True when it has an end.
    pub fn ends(&self) -> bool {
        match self {
            SourceSettings::Folder { repeat, .. }
            | SourceSettings::Stream(
                StreamSettings::Video { repeat, realtime: false, .. }
                | StreamSettings::Command { repeat, film: true, .. },
            ) => !repeat,
            SourceSettings::Synthetic { .. }
            | SourceSettings::Stream(_)
            | SourceSettings::V4l2(_)
            | SourceSettings::Sensor(_) => false,
        }
    }

    /// The word for it in a configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            SourceSettings::Synthetic { .. } => "synthetic",
            SourceSettings::Folder { .. } => "folder",
            SourceSettings::V4l2(_) => "v4l2",
            SourceSettings::Stream(stream) => stream.kind(),
            SourceSettings::Sensor(sensor) => match sensor.from {
                SensorFrom::Command { .. } => "lines",
                SensorFrom::Serial { .. } => "serial",
                SensorFrom::Iio { .. } => "iio",
                SensorFrom::Mqtt { .. } => "mqtt",
            },
        }
    }
}

/// A sensor and how its samples become windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SensorSettings {
    /// Where its samples come from.
    pub from: SensorFrom,
    /// Which numbers of a sample are the channels, in the order in which the model wants them.
    pub columns: Vec<Column>,
    /// The sample's own time, where it has one; else the time of its arrival counts.
    pub time: Option<TimeColumn>,
    /// How samples become windows.
    pub window: WindowSettings,
}

/// Where samples come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SensorFrom {
    /// Lines on the standard output of a program.
    Command {
        /// The program and its arguments.
        program: Vec<String>,
        /// How a line is read.
        format: RowFormat,
    },
    /// Lines from a serial port, 8 bits, no parity, 1 stop bit.
    Serial {
        /// The device, best one below `/dev/serial/by-id`.
        path: PathBuf,
        /// Bits a second.
        baud: u32,
        /// How a line is read.
        format: RowFormat,
    },
    /// A sensor of the kernel (Linux IIO), asked at the window's rate.
    Iio {
        /// The device's name, or its folder.
        device: String,
        /// Where the kernel lists the devices.
        root: PathBuf,
    },
    /// Messages of an MQTT topic, one sample each.
    Mqtt {
        /// The topic or filter.
        topic: String,
        /// The broker.
        broker: Broker,
        /// How a message is read.
        format: RowFormat,
    },
}

/// How a line or a message is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowFormat {
    /// Fields with this byte between them; a blank stands for any run of blanks. A line that names the
    /// wanted columns is a header.
    Csv {
        /// Between two fields.
        delimiter: u8,
    },
    /// A JSON object, array or number.
    Json,
}

/// One number of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// Its place, from 1.
    Number(u32),
    /// Its name in the header or the object; dots lead into nested objects.
    Name(String),
}

/// The time in a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimeColumn {
    /// Where it stands.
    pub column: Column,
    /// Nanoseconds of one unit of it.
    pub unit_ns: u64,
}

/// A broker to listen to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS with the server's certificate checked.
    pub tls: Option<BrokerTls>,
    /// User name.
    pub username: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
}

/// TLS to a broker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BrokerTls {
    /// Certificate authority, PEM; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain and key, PEM.
    pub client: Option<(PathBuf, PathBuf)>,
}
