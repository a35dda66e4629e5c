//! The board's own light, so that a person can find the device among others.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Lights of boards by the names that their kernels give them, the best first (Raspberry Pi: activity and power).
const NAMES: [&str; 6] = ["ACT", "led0", "PWR", "led1", "user-led", "pwr"];
/// Half a blink.
const HALF: Duration = Duration::from_millis(250);

/// A light that can be blinked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Led {
    folder: PathBuf,
}

impl Led {
    /// The board's light, below `root` (`/` outside tests).
    ///
    /// # Errors
    /// Why there is none that can be blinked, for people.
    pub fn find(root: &Path) -> Result<Self, String> {
        let leds = root.join("sys/class/leds");
        let found =
            NAMES.iter().map(|name| leds.join(name)).find(|folder| folder.join("brightness").is_file());
        let Some(folder) = found else { return Err("this board has no light that is known here".to_owned()) };
        for file in ["trigger", "brightness"] {
            let path = folder.join(file);
            if let Err(error) = fs::OpenOptions::new().write(true).open(&path) {
                return Err(format!("{}: {error}; the agent may not set this light", path.display()));
            }
        }
        Ok(Self { folder })
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Blinks for so long, and leaves the light as it was. Blocks.
    pub fn blink(&self, span: Duration) {
        let read = |file: &str| fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        // It may be taken away while it blinks; then there is nothing to be put back.
        let write = |file: &str, value: &str| drop(fs::write(self.folder.join(file), value));
        let (trigger, brightness) = (chosen(&read("trigger")), read("brightness"));
        let full = read("max_brightness");
        let full = if full.trim().is_empty() { "1".to_owned() } else { full.trim().to_owned() };
        write("trigger", "none");
        let begun = Instant::now();
        while begun.elapsed() < span {
            for value in [full.as_str(), "0"] {
                write("brightness", value);
                std::thread::sleep(HALF);
            }
        }
        write("brightness", brightness.trim());
        if let Some(trigger) = trigger {
            write("trigger", &trigger);
        }
    }
}

/// The trigger that is in force stands in brackets.
fn chosen(triggers: &str) -> Option<String> {
    let (_, rest) = triggers.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_blinks_and_is_left_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        assert!(Led::find(root.path()).unwrap_err().contains("no light"));
        let folder = root.path().join("sys/class/leds/PWR");
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in [("trigger", "none mmc0 [default-on] timer\n"), ("brightness", "255\n")] {
            fs::write(folder.join(file), text).unwrap();
        }
        let led = Led::find(root.path()).unwrap();
        assert_eq!(led.name(), "PWR");
        led.blink(Duration::from_millis(1));
        assert_eq!(fs::read_to_string(folder.join("trigger")).unwrap(), "default-on");
        assert_eq!(fs::read_to_string(folder.join("brightness")).unwrap(), "255");
    }
}
