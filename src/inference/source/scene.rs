//! The conveyor belt that the built-in camera looks at: what lies on it, what it looks like, and
//! where everything truly is.
//!
//! A picture is a pure function of (seed, number, size). All of it is integer arithmetic, so every
//! machine draws the same bytes and the models trained on one machine are measured fairly on
//! another. Lengths are in *world units*: the picture is always 640 of them wide, whatever its size in pixels,
//! and most are held in 256ths.

/// World units across a picture.
const WORLD: i32 = 640;
/// World units that the belt moves from one picture to the next, in 256ths.
const SPEED: i64 = 12 * 256;
/// Between two columns of parts, and between two lanes.
const PITCH: i32 = 150;
/// Half the play of a part around its place on the belt.
const JITTER: i32 = 14;
/// Smallest and largest radius of a part.
const RADIUS: (i32, i32) = (34, 58);
/// Height of the rails above and below the belt.
const RAIL: i32 = 14;
/// A part's radius in its own coordinates.
const UNIT: i32 = 1024;
/// Edge of the texture tile; a power of two.
const TILE: usize = 256;
/// Length of the noise table; a power of two.
const NOISE: usize = 4096;
/// Numbers of pictures wrap here, so that the belt's position stays far from overflow.
const SEQ_MASK: u64 = (1 << 40) - 1;

/// The kinds of parts; a class's number is its place here.
pub const CLASSES: [&str; 4] = ["washer", "nut", "bracket", "cracked"];

/// One part as it truly lies in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// Its class's name.
    pub label: &'static str,
    /// Its class's number, the place in [`CLASSES`].
    pub class: u32,
    /// Left, top, right, bottom in pixels, cut off at the picture's edges.
    pub bbox: [f32; 4],
    /// Share of its uncut box that is inside the picture, 0 to 1.
    pub visible: f32,
}

/// All parts of which anything is inside picture `seq` of the belt `seed`, in pixels of a picture of
/// `width` × `height`.
pub fn truth(seed: u64, seq: u64, width: u32, height: u32) -> Vec<Truth> {
    parts(seed, DENSITY, seq, world_height(width, height))
        .iter()
        .filter_map(|part| part.truth(width, height))
        .collect()
}

/// Share of the places on the belt that hold a part, percent, where nobody asks for another.
pub const DENSITY: u32 = 72;

/// One belt, ready to be drawn.
pub struct Scene {
    seed: u64,
    density: u32,
    width: u32,
    height: u32,
    /// Belt texture, `TILE` × `TILE`.
    tile: Vec<u8>,
    noise: Vec<i8>,
}

impl Scene {
    /// A belt for pictures of `width` × `height` pixels; both are at least 16.
    pub fn new(seed: u64, width: u32, height: u32) -> Self {
        Self::with_density(seed, DENSITY, width, height)
    }

    /// The same with another share of filled places, percent.
    pub fn with_density(seed: u64, density: u32, width: u32, height: u32) -> Self {
        let (width, height) = (width.max(16), height.max(16));
        Self { seed, density, width, height, tile: weave(seed), noise: grain(seed) }
    }

    /// All parts of which anything is inside picture `seq`.
    pub fn truth(&self, seq: u64) -> Vec<Truth> {
        parts(self.seed, self.density, seq, world_height(self.width, self.height))
            .iter()
            .filter_map(|part| part.truth(self.width, self.height))
            .collect()
    }

    /// Draws picture `seq` into `into` (cleared first): 3 bytes a pixel, red, green, blue.
    pub fn draw(&self, seq: u64, into: &mut Vec<u8>) {
        let (width, height) = (self.width as usize, self.height as usize);
        into.clear();
        into.resize(width * height * 3, 0);
        let tall = world_height(self.width, self.height);
        // World position of each column's and row's pixel centre, 256ths.
        let at = |i: usize| (2 * i as i32 + 1) * (WORLD * 128) / self.width as i32;
        let xs: Vec<i32> = (0..width).map(at).collect();
        let ys: Vec<i32> = (0..height).map(at).collect();

        self.draw_belt(seq, tall, &xs, &ys, into);
        for spot in spots(self.seed, seq, tall) {
            self.draw_part(&spot, &xs, &ys, into, Coat::Oil);
        }
        let parts = parts(self.seed, self.density, seq, tall);
        for part in &parts {
            let shadow = Part { cx: part.cx + 6 * 256, cy: part.cy + 8 * 256, ..*part };
            self.draw_part(&shadow, &xs, &ys, into, Coat::Shadow);
        }
        for part in &parts {
            self.draw_part(part, &xs, &ys, into, Coat::Metal);
        }
        self.expose(seq, &xs, &ys, into);
    }

    /// The belt with its texture, and the rails that it runs between.
    #[unsafe(export_name = "hot_belt")]
    fn draw_belt(&self, seq: u64, tall: i32, xs: &[i32], ys: &[i32], into: &mut [u8]) {
        let tint = BELTS[(mix(self.seed, 0x7411) % BELTS.len() as u64) as usize];
        let moved = moved(seq);
        let columns: Vec<usize> =
            xs.iter().map(|&x| ((i64::from(x) - moved) >> 8).rem_euclid(TILE as i64) as usize).collect();
        for (row, &y) in into.chunks_exact_mut(xs.len() * 3).zip(ys) {
            let y = y >> 8;
            let rail = y < RAIL || y >= tall - RAIL;
            let line = &self.tile[(y as usize % TILE) * TILE..][..TILE];
            for (pixel, &column) in row.chunks_exact_mut(3).zip(&columns) {
                if rail {
                    pixel.copy_from_slice(&[128, 132, 140]);
                } else {
                    let grain = i32::from(line[column]) - 128;
                    for (value, base) in pixel.iter_mut().zip(tint) {
                        *value = (base + grain * 3 / 5).clamp(0, 255) as u8;
                    }
                }
            }
        }
    }

    /// Paints one shape over what is there, its edge smoothed over one pixel.
    #[unsafe(export_name = "hot_part")]
    fn draw_part(&self, part: &Part, xs: &[i32], ys: &[i32], into: &mut [u8], coat: Coat) {
        let [left, top, right, bottom] = part.bounds();
        let x0 = xs.partition_point(|&x| x < left);
        let x1 = xs.partition_point(|&x| x <= right);
        let y0 = ys.partition_point(|&y| y < top);
        let y1 = ys.partition_point(|&y| y <= bottom);
        // 256ths of coverage per unit of distance from the edge, in 256ths.
        let slope = part.r * self.width as i32 / WORLD / 4;
        let to_unit = (UNIT << 16) / part.r;
        for y in y0..y1 {
            let dy = ys[y] - part.cy;
            let row = &mut into[y * xs.len() * 3..][x0 * 3..x1 * 3];
            for (pixel, &x) in row.chunks_exact_mut(3).zip(&xs[x0..x1]) {
                let dx = x - part.cx;
                let u = (((dx * part.cos + dy * part.sin) >> 14) * to_unit) >> 16;
                let v = (((dy * part.cos - dx * part.sin) >> 14) * to_unit) >> 16;
                let cover = (((part.shape.depth(u, v) * slope) >> 8) + 128).clamp(0, 256);
                if cover == 0 {
                    continue;
                }
                let (colour, cover) = match coat {
                    Coat::Oil => ([18, 17, 20], cover * 5 / 8),
                    Coat::Shadow => ([8, 8, 10], cover * 7 / 16),
                    Coat::Metal => {
                        // Brushed along u, brighter towards the lamp in the upper left.
                        let brushed = self.tile[(v as usize >> 4 & 255) * TILE + (u as usize >> 7 & 255)];
                        let slant = ((dx + dy) >> 6) * 256 / (part.r >> 6);
                        let shade = (i32::from(brushed) - 128) / 5 - slant / 10;
                        (part.colour.map(|base| (base + shade).clamp(0, 255)), cover)
                    }
                };
                for (value, wanted) in pixel.iter_mut().zip(colour) {
                    let old = i32::from(*value);
                    *value = (old + (((wanted - old) * cover) >> 8)).clamp(0, 255) as u8;
                }
            }
        }
    }

    /// The lamp, which swings slowly and stands nearer to one side, and the sensor's noise.
    #[unsafe(export_name = "hot_expose")]
    fn expose(&self, seq: u64, xs: &[i32], ys: &[i32], into: &mut [u8]) {
        let lamp = mix(self.seed, 0x1a3b);
        let phase = ((seq & SEQ_MASK) + (lamp >> 40)) % 400;
        let swing = (phase as i32 - 200).abs() * 80 / 200 - 40;
        let base = 160 + (lamp % 80) as i32 + swing;
        let tilt_x = (lamp >> 8) as i32 % 60;
        let tilt_y = (lamp >> 16) as i32 % 60;
        let across: Vec<i32> = xs.iter().map(|&x| base + ((x >> 8) - WORLD / 2) * tilt_x / WORLD).collect();
        for (number, (row, &y)) in into.chunks_exact_mut(xs.len() * 3).zip(ys).enumerate() {
            let down = ((y >> 8) - WORLD * 3 / 8) * tilt_y / WORLD;
            let start = mix(self.seed ^ seq.rotate_left(20), number as u64) as usize;
            for (i, (pixel, &light)) in row.chunks_exact_mut(3).zip(&across).enumerate() {
                let noise = i32::from(self.noise[(start + i) & (NOISE - 1)]);
                for value in pixel {
                    *value = (((i32::from(*value) * (light + down)) >> 8) + noise).clamp(0, 255) as u8;
                }
            }
        }
    }
}

/// Colours of belts: green PVC, grey rubber, blue food-grade, brown leather.
const BELTS: [[i32; 3]; 4] = [[58, 92, 70], [84, 84, 88], [60, 78, 112], [98, 82, 66]];
/// Colours of parts: zinc, steel, brass, copper, black oxide.
const METALS: [[i32; 3]; 5] =
    [[196, 200, 206], [158, 162, 170], [196, 168, 96], [190, 128, 98], [150, 146, 142]];

/// How a shape is laid over the picture.
#[derive(Clone, Copy)]
enum Coat {
    Metal,
    Shadow,
    Oil,
}

/// Outlines, in coordinates where the part's radius is [`UNIT`].
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Washer,
    Nut,
    Bracket,
    Cracked,
    /// A blank without a hole, or a spot of oil: in no class.
    Disc,
}

/// Corners of the bracket's outline.
const BRACKET: [(i32, i32); 6] =
    [(-800, -800), (800, -800), (800, -150), (-150, -150), (-150, 800), (-800, 800)];

impl Shape {
    /// How far inside the outline a point is; negative outside.
    fn depth(self, u: i32, v: i32) -> i32 {
        match self {
            Shape::Washer => ring(u, v),
            Shape::Cracked if u > 0 => ring(u, v).min(v.abs() - 230),
            Shape::Cracked => ring(u, v),
            Shape::Nut => {
                // Distance to the nearest of three pairs of parallel sides; 887/1024 = √3/2.
                let slanted = v * 887 / 1024;
                let side = u.abs().max((u / 2 + slanted).abs()).max((u / 2 - slanted).abs());
                (866 - side).min(length(u, v) - 340)
            }
            Shape::Bracket => {
                let outer = 800 - u.abs().max(v.abs());
                let notch = (-150 - u).max(-150 - v);
                let holes = length(u + 475, v - 475).min(length(u - 475, v + 475)) - 170;
                outer.min(notch).min(holes)
            }
            Shape::Disc => 1000 - length(u, v),
        }
    }
}

fn ring(u: i32, v: i32) -> i32 {
    let length = length(u, v);
    (1000 - length).min(length - 580)
}

fn length(u: i32, v: i32) -> i32 {
    (u * u + v * v).unsigned_abs().isqrt() as i32
}

/// One shape in world coordinates of a picture, 256ths.
#[derive(Debug, Clone, Copy)]
struct Part {
    shape: Shape,
    cx: i32,
    cy: i32,
    r: i32,
    /// 2¹⁴ is 1.
    sin: i32,
    cos: i32,
    colour: [i32; 3],
}

impl Part {
    /// Left, top, right, bottom of the outline, world 256ths.
    fn bounds(&self) -> [i32; 4] {
        let scaled = |units: i32| units * (self.r >> 2) / (UNIT >> 2);
        match self.shape {
            Shape::Washer | Shape::Cracked | Shape::Disc => {
                let r = scaled(1000);
                [self.cx - r, self.cy - r, self.cx + r, self.cy + r]
            }
            // Corners of the hexagon whose sides face u and ±60° from it.
            Shape::Nut => {
                self.hull(&[(866, 500), (866, -500), (-866, 500), (-866, -500), (0, 1000), (0, -1000)])
            }
            Shape::Bracket => self.hull(&BRACKET),
        }
    }

    fn hull(&self, corners: &[(i32, i32)]) -> [i32; 4] {
        let mut hull = [i32::MAX, i32::MAX, i32::MIN, i32::MIN];
        for &(u, v) in corners {
            let (u, v) = (u * (self.r >> 2) / (UNIT >> 2), v * (self.r >> 2) / (UNIT >> 2));
            let x = self.cx + ((u * self.cos - v * self.sin) >> 14);
            let y = self.cy + ((u * self.sin + v * self.cos) >> 14);
            hull = [hull[0].min(x), hull[1].min(y), hull[2].max(x), hull[3].max(y)];
        }
        hull
    }

    /// As a truth, where it belongs to a class and any of it is inside.
    fn truth(&self, width: u32, height: u32) -> Option<Truth> {
        let class = match self.shape {
            Shape::Washer => 0,
            Shape::Nut => 1,
            Shape::Bracket => 2,
            Shape::Cracked => 3,
            Shape::Disc => return None,
        };
        let pixels = |v: i32| (f64::from(v) * f64::from(width) / f64::from(WORLD * 256)) as f32;
        let whole = self.bounds().map(pixels);
        let bbox =
            [whole[0].max(0.0), whole[1].max(0.0), whole[2].min(width as f32), whole[3].min(height as f32)];
        let area = |b: &[f32; 4]| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
        let visible = area(&bbox) / area(&whole);
        (visible > 0.0).then_some(Truth { label: CLASSES[class], class: class as u32, bbox, visible })
    }
}

/// World units down a picture.
fn world_height(width: u32, height: u32) -> i32 {
    (u64::from(height) * WORLD as u64 / u64::from(width.max(1))).min(1 << 14) as i32
}

/// How far the belt has moved, world 256ths.
fn moved(seq: u64) -> i64 {
    (seq & SEQ_MASK) as i64 * SPEED
}

/// Columns of the belt that touch the picture, each with the world position of its middle, 256ths.
fn columns(seq: u64) -> impl Iterator<Item = (i64, i32)> {
    let moved = moved(seq);
    let pitch = i64::from(PITCH) * 256;
    let first = (-moved).div_euclid(pitch) - 1;
    (first..first + i64::from(WORLD / PITCH) + 4).map(move |column| (column, (column * pitch + moved) as i32))
}

/// The parts and blanks that touch picture `seq`.
fn parts(seed: u64, density: u32, seq: u64, tall: i32) -> Vec<Part> {
    let lanes = (tall - 2 * RAIL) / PITCH;
    let margin = (tall - lanes * PITCH) / 2 + PITCH / 2;
    let mut parts = Vec::new();
    for (column, middle) in columns(seq) {
        for lane in 0..lanes {
            let place = mix(mix(seed, 0x9a17 + lane as u64), column as u64);
            let mut dice = Dice(place);
            let filled = dice.below(100) < density as i32;
            let shape = if filled {
                [Shape::Washer, Shape::Nut, Shape::Bracket, Shape::Cracked][dice.below(4) as usize]
            } else if dice.below(100) < 30 {
                Shape::Disc
            } else {
                continue;
            };
            let mut r = dice.between(RADIUS.0 * 256, RADIUS.1 * 256);
            if shape == Shape::Disc {
                r = r * 5 / 8;
            }
            let (sin, cos) = turn(dice.below(1024));
            parts.push(Part {
                shape,
                cx: middle + dice.between(-JITTER * 256, JITTER * 256),
                cy: (margin + lane * PITCH) * 256 + dice.between(-JITTER * 256, JITTER * 256),
                r,
                sin,
                cos,
                colour: METALS[dice.below(METALS.len() as i32) as usize],
            });
        }
    }
    parts
}

/// Spots of oil, which move with the belt.
fn spots(seed: u64, seq: u64, tall: i32) -> Vec<Part> {
    let mut spots = Vec::new();
    for (column, middle) in columns(seq) {
        let mut dice = Dice(mix(mix(seed, 0x0117), column as u64));
        for _ in 0..dice.below(3) {
            spots.push(Part {
                shape: Shape::Disc,
                cx: middle + dice.between(-70 * 256, 70 * 256),
                cy: dice.between(RAIL * 256, (tall - RAIL).max(RAIL + 1) * 256),
                r: dice.between(8 * 256, 30 * 256),
                sin: 0,
                cos: 1 << 14,
                colour: [0; 3],
            });
        }
    }
    spots
}

/// The belt's texture: three octaves of value noise, a weave, and scuffs.
fn weave(seed: u64) -> Vec<u8> {
    let mut tile = vec![0u8; TILE * TILE];
    for y in 0..TILE {
        for x in 0..TILE {
            let rough = smooth(seed, x, y, 64) / 3 + smooth(seed, x, y, 16) / 3 + smooth(seed, x, y, 4) / 3;
            let woven = if (x / 4 + y / 4).is_multiple_of(2) { 7 } else { -7 };
            tile[y * TILE + x] = (rough + woven).clamp(0, 255) as u8;
        }
    }
    let mut dice = Dice(mix(seed, 0x5cff));
    for _ in 0..26 {
        let (mut x, y, slope) = (dice.below(256), dice.below(256), dice.between(-20, 20));
        let lighter = dice.between(-50, 50);
        for step in 0..dice.between(20, 90) {
            x += 1;
            let at = ((y + step * slope / 20) & 255) as usize * TILE + (x & 255) as usize;
            tile[at] = (i32::from(tile[at]) + lighter).clamp(0, 255) as u8;
        }
    }
    tile
}

/// Value noise of one octave, 0 to 255, with lattice points `cell` apart; repeats with the tile.
fn smooth(seed: u64, x: usize, y: usize, cell: usize) -> i32 {
    let points = TILE / cell;
    let value = |i: usize, j: usize| {
        (mix(seed ^ cell as u64, ((j % points) * points + i % points) as u64) & 255) as i32
    };
    let (i, j, fx, fy) = (x / cell, y / cell, (x % cell) as i32, (y % cell) as i32);
    let n = cell as i32;
    let upper = value(i, j) * (n - fx) + value(i + 1, j) * fx;
    let lower = value(i, j + 1) * (n - fx) + value(i + 1, j + 1) * fx;
    (upper * (n - fy) + lower * fy) / (n * n)
}

/// The sensor's noise: triangular, ±13.
fn grain(seed: u64) -> Vec<i8> {
    let mut dice = Dice(mix(seed, 0x6a11));
    (0..NOISE).map(|_| (dice.below(14) - dice.below(14)) as i8).collect()
}

/// Sine and cosine (2¹⁴ is 1) of `step` 1024ths of a turn, by Bhāskara's formula
/// `4·x·(180−x) ÷ (40500 − x·(180−x))`, x in degrees; off by 0.0016 at most.
fn turn(step: i32) -> (i32, i32) {
    let sine = |step: i32| {
        let step = step & 1023;
        let half = i64::from(step & 511);
        // x·(180−x) in degrees², scaled by 512² ÷ 180².
        let arc = half * (512 - half);
        let value = (16384 * 16 * arc / (5 * 512 * 512 - 4 * arc)) as i32;
        if step < 512 { value } else { -value }
    };
    (sine(step), sine(step + 256))
}

/// A stream of numbers from one seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        finish(self.0)
    }

    /// 0 to `bound` − 1.
    fn below(&mut self, bound: i32) -> i32 {
        ((self.next() >> 33) % bound.max(1) as u64) as i32
    }

    /// `low` to `high`, both included.
    fn between(&mut self, low: i32, high: i32) -> i32 {
        low + self.below(high - low + 1)
    }
}

/// Two numbers to one that looks random.
fn mix(a: u64, b: u64) -> u64 {
    finish(finish(a.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ b.wrapping_mul(0xd6e8_feb8_6659_fd93))
}

/// The finishing steps of SplitMix64.
fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
