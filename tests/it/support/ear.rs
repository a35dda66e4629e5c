//! Somebody who hears everything: a subscriber on plain TCP that can neither overflow nor forget, so that what it
//! has not heard was not said. MQTT 3.1.1, QoS 0.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A message as it was heard: topic and payload.
pub type Message = (String, Vec<u8>);

/// What was heard, shared by one ear after the other.
#[derive(Debug, Default)]
pub struct Heard {
    messages: Mutex<(Vec<Message>, u64)>,
    changed: Condvar,
}

impl Heard {
    /// Waits until what was heard so far gives a value; panics with `what` after `patience`.
    pub fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&[Message]) -> Option<T>,
    ) -> T {
        let end = std::time::Instant::now() + patience;
        let mut heard = self.messages.lock().unwrap();
        loop {
            if let Some(value) = look(&heard.0) {
                return value;
            }
            let left = end.saturating_duration_since(std::time::Instant::now());
            assert!(!left.is_zero(), "never heard: {what}");
            heard = self.changed.wait_timeout(heard, left).unwrap().0;
        }
    }

    fn add(&self, (topic, payload): Message) {
        let mut heard = self.messages.lock().unwrap();
        match topic.strip_prefix("sentinel/").and_then(|number| number.parse().ok()) {
            Some(number) => heard.1 = number,
            None => heard.0.push((topic, payload)),
        }
        self.changed.notify_all();
    }

    fn until_sentinel(&self, number: u64, patience: Duration) {
        let heard = self.messages.lock().unwrap();
        let (heard, timeout) =
            self.changed.wait_timeout_while(heard, patience, |heard| heard.1 < number).unwrap();
        assert!(!timeout.timed_out(), "the broker does not answer; heard {}", heard.0.len());
    }
}

/// A connection that hears.
pub struct Ear {
    stream: TcpStream,
    heard: Arc<Heard>,
    patience: Duration,
}

impl Ear {
    /// Hears everything on the broker at this port of loopback from now on.
    pub fn listen(port: u16, heard: &Arc<Heard>, patience: Duration) -> Self {
        Self::try_listen(port, heard, patience).expect("the broker answers")
    }

    /// The same, where the broker may have ended. One that answers has opened all its ports.
    pub fn try_listen(port: u16, heard: &Arc<Heard>, patience: Duration) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        // Clean session, no keep-alive, a name by the broker.
        packet(&mut stream, 0x10, &[&text("MQTT"), &[4, 2, 0, 0], &text("")])?;
        packet(&mut stream, 0x82, &[&[0, 1], &text("#"), &[0]])?;
        stream.set_read_timeout(Some(patience)).unwrap();
        for kind in [0x20, 0x90] {
            let (head, body) = read(&mut stream)?;
            assert_eq!(head, kind, "{body:?}");
        }
        stream.set_read_timeout(None).unwrap();
        let (mut reader, to) = (stream.try_clone().unwrap(), heard.clone());
        std::thread::spawn(move || {
            while let Ok((head, body)) = read(&mut reader) {
                if head & 0xf0 == 0x30 {
                    let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
                    to.add((topic, body[2 + length..].to_vec()));
                }
            }
        });
        Ok(Self { stream, heard: heard.clone(), patience })
    }

    /// Publishes at QoS 0.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) {
        packet(&mut self.stream, 0x30, &[&text(topic), payload]).expect("write to the broker");
    }

    /// Waits until everything was heard that the broker took before this call. `number` must rise from call to
    /// call.
    pub fn catch_up(&mut self, number: u64) {
        self.publish(&format!("sentinel/{number}"), b"");
        self.heard.until_sentinel(number, self.patience);
    }
}

/// Has the broker at this port of loopback keep messages, as a device does (retained, QoS 1), and returns once it has
/// taken all of them. They go out without waiting for each other.
pub fn keep(port: u16, messages: impl Iterator<Item = (String, Vec<u8>)>) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the broker listens");
    packet(&mut stream, 0x10, &[&text("MQTT"), &[4, 2, 0, 0], &text("")]).unwrap();
    assert_eq!(read(&mut stream).expect("an answer").0, 0x20);
    let mut reader = stream.try_clone().unwrap();
    let taken = std::thread::spawn(move || {
        let mut taken = 0;
        while let Ok((head, _)) = read(&mut reader) {
            match head {
                0x40 => taken += 1,
                // Answers come in order: all that went before is there.
                0xd0 => break,
                other => panic!("the broker says {other:#x}"),
            }
        }
        taken
    });
    let mut count = 0;
    for (topic, payload) in messages {
        let id = ((count % 65535) as u16 + 1).to_be_bytes();
        packet(&mut stream, 0x33, &[&text(&topic), &id, &payload]).expect("write to the broker");
        count += 1;
    }
    packet(&mut stream, 0xc0, &[]).unwrap();
    assert_eq!(taken.join().unwrap(), count, "the broker took them");
}

impl Drop for Ear {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(stream: &mut TcpStream, head: u8, parts: &[&[u8]]) -> std::io::Result<()> {
    let body = parts.concat();
    let mut packet = vec![head];
    let mut left = body.len();
    loop {
        let byte = (left % 128) as u8;
        left /= 128;
        packet.push(if left > 0 { byte | 128 } else { byte });
        if left == 0 {
            break;
        }
    }
    packet.extend(body);
    stream.write_all(&packet)
}

fn read(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let head = byte[0];
    let (mut length, mut shift) = (0, 0);
    loop {
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 127) << shift;
        shift += 7;
        if byte[0] & 128 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}
