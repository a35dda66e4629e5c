//! A bad line to a broker: a TCP proxy that delays, drops in the middle of a packet, closes one half, or falls
//! silent, by a row of numbers that begins with a seed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Begins the row.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

#[derive(Debug)]
struct Shared {
    to: u16,
    rough: AtomicBool,
    dice: Mutex<Dice>,
    /// Held by whoever passes bytes on, and alone by [`RoughLine::hold`].
    gate: RwLock<()>,
    /// Rises with each hold: connections from before pass nothing on.
    epoch: AtomicU64,
    cuts: AtomicU64,
}

/// The proxy; connections end with their ends.
#[derive(Debug)]
pub struct RoughLine {
    /// Its port on loopback.
    pub port: u16,
    shared: Arc<Shared>,
}

/// What becomes of a connection once so many bytes went to the broker.
#[derive(Clone, Copy)]
enum Fate {
    Drop,
    CloseToClient,
    CloseToBroker,
    Silence(u64),
}

impl RoughLine {
    /// A line to this port of loopback.
    pub fn to(port: u16, seed: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let own = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            to: port,
            rough: AtomicBool::new(true),
            dice: Mutex::new(Dice::new(seed)),
            gate: RwLock::new(()),
            epoch: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
        });
        let all = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = all.clone();
                std::thread::spawn(move || shared.join(client));
            }
        });
        Self { port: own, shared }
    }

    /// From now on nothing goes wrong on new connections.
    pub fn mend(&self) {
        self.shared.rough.store(false, Ordering::SeqCst);
    }

    /// While this is held, nothing is passed on in either direction, and no connection from before ever passes
    /// anything on again, not even an acknowledgement that was already read.
    pub fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        let alone = self.shared.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        alone
    }

    /// Connections that the line itself has broken.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn below(&self, end: u64) -> u64 {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).below(end)
    }

    fn join(self: Arc<Self>, client: TcpStream) {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.to)) else { return };
        let fate = self.rough.load(Ordering::SeqCst).then(|| {
            let after = 1000 + self.below(150_000);
            let fate = match self.below(4) {
                0 => Fate::Drop,
                1 => Fate::CloseToClient,
                2 => Fate::CloseToBroker,
                _ => Fate::Silence(100 + self.below(1000)),
            };
            (after, fate)
        });
        let (back_from, back_to) = (broker.try_clone().unwrap(), client.try_clone().unwrap());
        let back = self.clone();
        std::thread::spawn(move || back.pass(epoch, back_from, back_to, None));
        self.pass(epoch, client, broker, fate);
    }

    /// Passes bytes on until an end, the fate, or a hold.
    fn pass(&self, epoch: u64, mut from: TcpStream, mut to: TcpStream, fate: Option<(u64, Fate)>) {
        let (mut buffer, mut passed) = ([0; 4096], 0);
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut count = count;
            if fate.is_some() && self.below(16) == 0 {
                std::thread::sleep(Duration::from_millis(self.below(20)));
            }
            let over = fate.filter(|(after, _)| passed + count as u64 >= *after);
            if let Some((after, _)) = over {
                count = (after - passed) as usize;
            }
            {
                let _many = self.gate.read().unwrap_or_else(PoisonError::into_inner);
                if self.epoch.load(Ordering::SeqCst) != epoch || to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            passed += count as u64;
            if let Some((_, fate)) = over {
                self.cuts.fetch_add(1, Ordering::SeqCst);
                match fate {
                    Fate::Drop => {}
                    Fate::CloseToClient => {
                        let _ = from.shutdown(Shutdown::Write);
                        while matches!(from.read(&mut buffer), Ok(1..)) {}
                    }
                    Fate::CloseToBroker => {
                        let _ = to.shutdown(Shutdown::Write);
                        while matches!(from.read(&mut buffer), Ok(1..)) {}
                    }
                    Fate::Silence(ms) => std::thread::sleep(Duration::from_millis(ms)),
                }
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
