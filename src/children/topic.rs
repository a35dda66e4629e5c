//! A sensor behind an MQTT topic: one message, one sample.
//!
//! It stands here and not among the other sensors because the connection is the `mqtt` room's, which
//! `inference` does not know.

use crate::domain::source::{Broker, RowFormat, SensorFrom, SensorSettings, SourceSettings};
use crate::domain::{Reason, ReasonCode};
use crate::inference::source::sensor::row::Rows;
use crate::inference::source::sensor::{Samples, Sensor, Take};
use crate::inference::source::{self, Source, Trouble};
use crate::mqtt::message::Received;
use crate::mqtt::subscriber::Subscriber;
use std::time::{Duration, Instant};

/// Messages taken at once.
const AT_ONCE: usize = 1024;

/// Opens any source.
///
/// # Errors
/// Why there is none, with the remedy.
pub fn open(settings: &SourceSettings) -> Result<Box<dyn Source>, Reason> {
    match settings {
        SourceSettings::Sensor(sensor) => match &sensor.from {
            SensorFrom::Mqtt { topic, broker, format } => {
                Ok(Box::new(Sensor::new(Topic::open(topic, broker, *format, sensor)?, sensor)))
            }
            SensorFrom::Command { .. } | SensorFrom::Serial { .. } | SensorFrom::Iio { .. } => {
                source::open(settings)
            }
        },
        _picture => source::open(settings),
    }
}

/// A topic that is listened to.
struct Topic {
    topic: String,
    target: String,
    subscriber: Subscriber,
    rows: Rows,
}

impl Topic {
    fn open(
        topic: &str,
        broker: &Broker,
        format: RowFormat,
        sensor: &SensorSettings,
    ) -> Result<Self, Reason> {
        Ok(Self {
            topic: topic.to_owned(),
            target: format!("{}:{}", broker.host, broker.port),
            subscriber: Subscriber::open(broker, topic)?,
            rows: Rows::new(format, &sensor.columns, sensor.time.as_ref()),
        })
    }

    /// Reads one message.
    fn sample(&mut self, message: &Received, take: &mut Take<'_>) -> Result<(), String> {
        if message.retained {
            // It is as old as it likes.
            return Ok(());
        }
        if let Some((at, values)) = self.rows.read(&message.payload)? {
            take(at, values);
        }
        Ok(())
    }
}

impl Samples for Topic {
    fn describe(&self) -> String {
        format!("topic {} of broker {}", self.topic, self.target)
    }

    fn read(&mut self, wait: Duration, take: &mut Take<'_>) -> Result<(), Trouble> {
        let end = Instant::now() + wait;
        let mut fault = None;
        for _ in 0..AT_ONCE {
            let Some(message) = self.subscriber.next(end.saturating_duration_since(Instant::now())) else {
                break;
            };
            if let Err(what) = self.sample(&message, take) {
                fault = Some(Reason::new(ReasonCode::BadRequest, format!("topic {}: {what}", message.topic)));
            }
        }
        match fault.or_else(|| self.subscriber.fault()) {
            None => Ok(()),
            Some(reason) => Err(Trouble::Frame(reason)),
        }
    }

    fn pause(&mut self, paused: bool) -> Result<(), Trouble> {
        // What came meanwhile is old; the queue is bounded, so this ends.
        for _ in 0..AT_ONCE {
            if paused || self.subscriber.next(Duration::ZERO).is_none() {
                break;
            }
        }
        Ok(())
    }
}
