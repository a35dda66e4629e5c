//! Does anything move? A picture in coarse grey cells is compared with a background that is learned all
//! the time, zone by zone, and a gate keeps still pictures back.
//!
//! A light that goes brighter or darker changes all cells in proportion; that proportion (the median of
//! all cells) is taken out first. When nearly everything differs even so, the scene is another one (the
//! lamp was switched, the camera was turned): one picture is let through and the background is learned
//! anew.

use serde::{Deserialize, Serialize};

/// Zones at most, and corners of one.
pub const MAX_ZONES: usize = 16;
/// Corners of a zone at most.
pub const MAX_CORNERS: usize = 32;
/// Cells at most, across and down.
const CELLS: (usize, usize) = (80, 60);
/// Seconds in which a cell that looks like its background takes it over, and one that does not.
const LEARN_S: (f32, f32) = (8.0, 40.0);
/// From this share of changed cells on the scene is another one.
const OTHER_SCENE: f32 = 0.7;
/// Added on both sides of a proportion, so that black is no trouble.
const DARK: f32 = 16.0;

/// A polygon in shares of the picture's width and height, from its upper left corner.
pub type Area = Vec<[f32; 2]>;

/// Where something must move, and how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// Where.
    pub area: Area,
    /// Grey levels, of 255, by which a cell must differ.
    pub threshold: f32,
    /// Share of the zone, 0 to 1, that must differ.
    pub min_area: f32,
}

/// When a picture counts as still; the checked form of a pipeline's `motion` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MotionSettings {
    /// Where something must move; at least one zone.
    pub zones: Vec<Zone>,
    /// What is never looked at: a tree, a clock.
    pub ignore: Vec<Area>,
    /// Pictures go on for so long after the last motion, milliseconds.
    pub hold_ms: u64,
    /// One picture at least so often, milliseconds, however still it is.
    pub keep_alive_ms: u64,
}

/// A grey picture, row by row.
#[derive(Debug, Clone, Copy)]
pub struct Grey<'a> {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `width` × `height` values.
    pub values: &'a [u8],
}

/// What a picture shows beside those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// The first, or another one altogether.
    New,
    /// Nothing moves.
    Still,
    /// Something moves in these zones, one bit each.
    Moving(u32),
}

/// Learns the background and compares with it.
#[derive(Debug)]
pub struct Detector {
    zones: Vec<Zone>,
    ignore: Vec<Area>,
    grid: Option<Grid>,
}

#[derive(Debug)]
struct Grid {
    of: (usize, usize),
    cols: usize,
    rows: usize,
    background: Vec<f32>,
    cells: Vec<f32>,
    proportions: Vec<f32>,
    /// The cells of each zone.
    zones: Vec<Vec<usize>>,
    /// The cells that are not ignored.
    watched: Vec<usize>,
    seen_ns: u64,
}

impl Detector {
    /// Knows nothing yet: the first picture is new.
    pub fn new(settings: &MotionSettings) -> Self {
        Self { zones: settings.zones.clone(), ignore: settings.ignore.clone(), grid: None }
    }

    /// Judges a picture of this time.
    pub fn see(&mut self, grey: Grey<'_>, now_ns: u64) -> Scene {
        let of = (grey.width, grey.height);
        if grey.width == 0 || grey.height == 0 || grey.values.len() < grey.width * grey.height {
            return Scene::New;
        }
        match &mut self.grid {
            Some(grid) if grid.of == of => grid.see(grey, now_ns, &self.zones),
            Some(_) | None => {
                self.grid = Some(Grid::new(grey, now_ns, &self.zones, &self.ignore));
                Scene::New
            }
        }
    }
}

impl Grid {
    fn new(grey: Grey<'_>, now_ns: u64, zones: &[Zone], ignore: &[Area]) -> Self {
        let (cols, rows) = (grey.width.min(CELLS.0), grey.height.min(CELLS.1));
        let centre = |cell: usize| {
            [
                (cell % cols) as f32 / cols as f32 + 0.5 / cols as f32,
                (cell / cols) as f32 / rows as f32 + 0.5 / rows as f32,
            ]
        };
        let watched: Vec<usize> =
            (0..cols * rows).filter(|cell| !ignore.iter().any(|area| inside(area, centre(*cell)))).collect();
        let of_zone =
            |zone: &Zone| watched.iter().copied().filter(|cell| inside(&zone.area, centre(*cell))).collect();
        let mut grid = Self {
            of: (grey.width, grey.height),
            cols,
            rows,
            background: vec![0.0; cols * rows],
            cells: vec![0.0; cols * rows],
            proportions: Vec::with_capacity(watched.len()),
            zones: zones.iter().map(of_zone).collect(),
            watched,
            seen_ns: now_ns,
        };
        grid.average(grey);
        grid.background.clone_from(&grid.cells);
        grid
    }

    /// The mean of each cell.
    #[unsafe(export_name = "hot_average")]
    fn average(&mut self, grey: Grey<'_>) {
        for row in 0..self.rows {
            let (top, bottom) = (row * grey.height / self.rows, (row + 1) * grey.height / self.rows);
            for col in 0..self.cols {
                let (left, right) = (col * grey.width / self.cols, (col + 1) * grey.width / self.cols);
                let rows = (top..bottom).map(|y| &grey.values[y * grey.width + left..y * grey.width + right]);
                let sum: u32 = rows.flatten().map(|value| u32::from(*value)).sum();
                self.cells[row * self.cols + col] = sum as f32 / ((bottom - top) * (right - left)) as f32;
            }
        }
    }

    #[unsafe(export_name = "hot_motion")]
    fn see(&mut self, grey: Grey<'_>, now_ns: u64, zones: &[Zone]) -> Scene {
        self.average(grey);
        let seconds = now_ns.saturating_sub(self.seen_ns) as f32 / 1e9;
        self.seen_ns = now_ns;
        if self.watched.is_empty() {
            return Scene::Still;
        }
        let light = self.light();
        let differs = |cells: &[f32], background: &[f32], cell: usize| {
            (cells[cell] + DARK - (background[cell] + DARK) * light).abs()
        };
        let least = zones.iter().map(|zone| zone.threshold).fold(f32::INFINITY, f32::min);
        let others =
            self.watched.iter().filter(|cell| differs(&self.cells, &self.background, **cell) > least).count();
        if others as f32 > OTHER_SCENE * self.watched.len() as f32 {
            self.background.clone_from(&self.cells);
            return Scene::New;
        }
        let mut moving = 0;
        for (bit, (zone, cells)) in zones.iter().zip(&self.zones).enumerate() {
            let changed = cells
                .iter()
                .filter(|cell| differs(&self.cells, &self.background, **cell) > zone.threshold)
                .count();
            if changed > 0 && changed as f32 >= zone.min_area * cells.len() as f32 {
                moving |= 1u32 << bit.min(31);
            }
        }
        for cell in 0..self.cells.len() {
            let same = differs(&self.cells, &self.background, cell) <= least;
            let pace = seconds / if same { LEARN_S.0 } else { LEARN_S.1 };
            self.background[cell] += (self.cells[cell] - self.background[cell]) * pace.min(1.0);
        }
        if moving == 0 { Scene::Still } else { Scene::Moving(moving) }
    }

    /// By what the whole picture is brighter than its background.
    fn light(&mut self) -> f32 {
        self.proportions.clear();
        let (cells, background) = (&self.cells, &self.background);
        self.proportions
            .extend(self.watched.iter().map(|cell| (cells[*cell] + DARK) / (background[*cell] + DARK)));
        let middle = self.proportions.len() / 2;
        *self.proportions.select_nth_unstable_by(middle, f32::total_cmp).1
    }
}

/// Whether a point lies in a polygon: a ray from it crosses the edge an odd number of times.
fn inside(area: &Area, [x, y]: [f32; 2]) -> bool {
    let mut inside = false;
    let mut before = match area.last() {
        Some(last) => *last,
        None => return false,
    };
    for corner in area {
        let ([x1, y1], [x2, y2]) = (before, *corner);
        if (y1 > y) != (y2 > y) && x < (x2 - x1) * (y - y1) / (y2 - y1) + x1 {
            inside = !inside;
        }
        before = *corner;
    }
    inside
}

/// Which pictures go through.
#[derive(Debug)]
pub struct Gate {
    hold_ns: u64,
    keep_alive_ns: u64,
    open_until_ns: u64,
    let_through_ns: Option<u64>,
}

impl Gate {
    /// Closed; the first picture goes through.
    pub fn new(settings: &MotionSettings) -> Self {
        Self {
            hold_ns: settings.hold_ms.saturating_mul(1_000_000),
            keep_alive_ns: settings.keep_alive_ms.saturating_mul(1_000_000),
            open_until_ns: 0,
            let_through_ns: None,
        }
    }

    /// True when the picture of this time goes through.
    pub fn open(&mut self, scene: Scene, now_ns: u64) -> bool {
        if let Scene::Moving(_) = scene {
            self.open_until_ns = now_ns.saturating_add(self.hold_ns);
        }
        let open = match scene {
            Scene::New | Scene::Moving(_) => true,
            Scene::Still => {
                now_ns < self.open_until_ns
                    || self
                        .let_through_ns
                        .is_none_or(|last| now_ns.saturating_sub(last) >= self.keep_alive_ns)
            }
        };
        if open {
            self.let_through_ns = Some(now_ns);
        }
        open
    }
}

#[cfg(test)]
mod tests;
