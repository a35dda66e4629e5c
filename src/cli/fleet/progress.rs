//! How far several devices have come with one command: a line for each on a terminal, as package managers show
//! it; elsewhere a line for each new step.

use crate::cli::ui;
use crate::domain::DeviceId;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

/// Devices that have a line at once; of the others only the end is told.
const LINES: usize = 20;
/// Steps of one device that are told where there is no terminal.
const STEPS: usize = 200;

/// The lines, on standard error.
pub(super) struct Lines {
    board: Option<MultiProgress>,
    bars: BTreeMap<DeviceId, ProgressBar>,
    told: BTreeMap<DeviceId, (String, usize)>,
}

impl Lines {
    /// Shows nothing yet.
    pub(super) fn new() -> Self {
        let board = std::io::stderr()
            .is_terminal()
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)));
        Self { board, bars: BTreeMap::new(), told: BTreeMap::new() }
    }

    /// A step of a device, and how much of it is done (0 to 1) where that is known.
    pub(super) fn step(&mut self, device: &DeviceId, detail: &str, fraction: Option<f64>) {
        let Some(board) = &self.board else {
            let (last, steps) = self.told.entry(device.clone()).or_default();
            if last != detail && *steps < STEPS {
                anstream::eprintln!("{device}: {detail}");
                detail.clone_into(last);
                *steps += 1;
            }
            return;
        };
        if !self.bars.contains_key(device) && self.bars.len() >= LINES {
            return;
        }
        let bar = self.bars.entry(device.clone()).or_insert_with(|| {
            let bar = board.add(ProgressBar::new(1000));
            let style =
                ProgressStyle::with_template("{spinner} {prefix:20!} {msg:40!} {wide_bar} {percent:>3} %");
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.set_prefix(device.to_string());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        bar.set_message(detail.to_owned());
        bar.set_position((fraction.unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u64);
    }

    /// A device's end, told on standard output above the lines of the others.
    pub(super) fn end(&mut self, device: &DeviceId, text: &str) -> anyhow::Result<()> {
        if let Some(bar) = self.bars.remove(device) {
            bar.finish_and_clear();
        }
        match &self.board {
            Some(board) => board.suspend(|| ui::print(text)),
            None => ui::print(text),
        }
    }

    /// Takes all lines away.
    pub(super) fn clear(&mut self) {
        std::mem::take(&mut self.bars).values().for_each(ProgressBar::finish_and_clear);
    }
}
