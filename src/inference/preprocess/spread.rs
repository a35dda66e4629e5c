//! From a picture's rows to the values of a tensor: each pixel scaled and shifted, and put where the layout wants it.
//!
//! Nearly all models take 32-bit floats: writing them is a part of the sampler's own loop. The other kinds of values
//! are looked up, row by row.

use super::{Placement, TensorMut};
use crate::domain::manifest::Layout;
use crate::inference::planes::{Planes, Rows, Sampler, Want};
use half::f16;

/// All that is needed to spread rows over a tensor.
pub(super) struct Spread {
    pub(super) swap: bool,
    pub(super) channels: usize,
    pub(super) layout: Layout,
    pub(super) tensor: (u32, u32),
    pub(super) placement: Placement,
    /// Written over the whole tensor first, when set.
    pub(super) pad: Option<u8>,
    /// Value = pixel × factor + addend, by channel of the tensor.
    pub(super) factor: [f32; 3],
    pub(super) addend: [f32; 3],
}

/// The rows of a tensor of 32-bit floats.
struct Floats<'a> {
    spread: &'a Spread,
    values: &'a mut [f32],
}

impl Rows for Floats<'_> {
    #[inline(always)]
    fn row(&mut self, y: usize, rows: [&[u8]; 3]) {
        let spread = self.spread;
        spread.row(self.values, y, rows, |channel| spread.float(channel));
    }
}

impl Spread {
    /// Writes `picture` into a tensor; false when a length is wrong.
    pub(super) fn write(
        &self,
        sampler: &mut Sampler,
        picture: &Planes<'_>,
        want: Want,
        tensor: TensorMut<'_>,
    ) -> bool {
        let float = |channel: usize| self.float(channel);
        let Placement { crop, size, at: _ } = self.placement;
        match tensor {
            TensorMut::F32(values) => {
                self.fill(values, float) && self.write_floats(sampler, picture, want, values)
            }
            TensorMut::F16(values) => {
                let table = table(|channel, pixel| f16::from_f32(float(channel)(pixel)));
                self.fill(values, |channel| look_up(&table[channel]))
                    && sampler.sample(picture, crop, size, want, &mut |y, rows| {
                        self.row_f16(values, y, rows, &table);
                    })
            }
            // `as` cuts at the ends of the range.
            TensorMut::U8(values) => {
                let table = table(|channel, pixel| float(channel)(pixel).round() as u8);
                self.fill(values, |channel| look_up(&table[channel]))
                    && sampler.sample(picture, crop, size, want, &mut |y, rows| {
                        self.row_u8(values, y, rows, &table);
                    })
            }
            TensorMut::I8(values) => {
                let table = table(|channel, pixel| float(channel)(pixel).round() as i8);
                self.fill(values, |channel| look_up(&table[channel]))
                    && sampler.sample(picture, crop, size, want, &mut |y, rows| {
                        self.row_i8(values, y, rows, &table);
                    })
            }
        }
    }

    /// The value of a channel's pixels.
    fn float(&self, channel: usize) -> impl Fn(u8) -> f32 + use<> {
        let (factor, addend) = (self.factor[channel], self.addend[channel]);
        move |pixel| f32::from(pixel) * factor + addend
    }

    fn write_floats(
        &self,
        sampler: &mut Sampler,
        picture: &Planes<'_>,
        want: Want,
        values: &mut [f32],
    ) -> bool {
        #[cfg(target_arch = "x86_64")]
        if crate::inference::planes::wide() {
            // SAFETY: the processor has what the function was compiled for.
            return unsafe { self.write_wide(sampler, picture, want, values) };
        }
        self.write_narrow(sampler, picture, want, values)
    }

    /// For wider registers than every x86 has: it takes half the time.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    #[unsafe(export_name = "hot_write_wide")]
    fn write_wide(
        &self,
        sampler: &mut Sampler,
        picture: &Planes<'_>,
        want: Want,
        values: &mut [f32],
    ) -> bool {
        let Placement { crop, size, at: _ } = self.placement;
        sampler.sample_rows(picture, crop, size, want, Floats { spread: self, values })
    }

    #[unsafe(export_name = "hot_write")]
    fn write_narrow(
        &self,
        sampler: &mut Sampler,
        picture: &Planes<'_>,
        want: Want,
        values: &mut [f32],
    ) -> bool {
        let Placement { crop, size, at: _ } = self.placement;
        sampler.sample_rows(picture, crop, size, want, Floats { spread: self, values })
    }

    #[unsafe(export_name = "hot_row_f16")]
    fn row_f16(&self, values: &mut [f16], y: usize, rows: [&[u8]; 3], table: &Table<f16>) {
        self.row(values, y, rows, |channel| look_up(&table[channel]));
    }

    #[unsafe(export_name = "hot_row_u8")]
    fn row_u8(&self, values: &mut [u8], y: usize, rows: [&[u8]; 3], table: &Table<u8>) {
        self.row(values, y, rows, |channel| look_up(&table[channel]));
    }

    #[unsafe(export_name = "hot_row_i8")]
    fn row_i8(&self, values: &mut [i8], y: usize, rows: [&[u8]; 3], table: &Table<i8>) {
        self.row(values, y, rows, |channel| look_up(&table[channel]));
    }

    /// Writes the padding where there is some; false when the tensor has another length than its size says.
    fn fill<T, V: Fn(u8) -> T>(&self, values: &mut [T], of: impl Fn(usize) -> V) -> bool {
        let plane = self.tensor.0 as usize * self.tensor.1 as usize;
        if values.len() != plane * self.channels {
            return false;
        }
        if let Some(pad) = self.pad
            && self.placement.size != self.tensor
        {
            for (at, entry) in values.iter_mut().enumerate() {
                let channel = match self.layout {
                    Layout::Nchw => at / plane,
                    Layout::Nhwc => at % self.channels,
                };
                *entry = of(channel)(pad);
            }
        }
        true
    }

    /// Writes one row of the picture; `of` gives the way from a channel's pixels to values.
    #[inline(always)]
    fn row<T, V: Fn(u8) -> T>(
        &self,
        values: &mut [T],
        y: usize,
        [r, g, b]: [&[u8]; 3],
        of: impl Fn(usize) -> V,
    ) {
        let (width, height) = (self.tensor.0 as usize, self.tensor.1 as usize);
        let (left, top) = (self.placement.at.0 as usize, self.placement.at.1 as usize);
        let (inner, start) = (self.placement.size.0 as usize, (top + y) * width + left);
        let rows = if self.swap { [b, g, r] } else { [r, g, b] };
        if self.layout == Layout::Nhwc && self.channels == 3 {
            let line = values[start * 3..][..inner * 3].as_chunks_mut::<3>().0;
            let (first, second, third) = (of(0), of(1), of(2));
            for (((to, a), b), c) in line.iter_mut().zip(rows[0]).zip(rows[1]).zip(rows[2]) {
                *to = [first(*a), second(*b), third(*c)];
            }
            return;
        }
        for (c, row) in rows[..self.channels].iter().enumerate() {
            let (line, value) = (&mut values[c * width * height + start..][..inner], of(c));
            for (entry, &pixel) in line.iter_mut().zip(*row) {
                *entry = value(pixel);
            }
        }
    }
}

/// The value of each pixel of each channel.
type Table<T> = [[T; 256]; 3];

fn table<T: Copy + Default>(value: impl Fn(usize, u8) -> T) -> Table<T> {
    let mut table = [[T::default(); 256]; 3];
    for (channel, row) in table.iter_mut().enumerate() {
        for (pixel, entry) in (0..=255u8).zip(row) {
            *entry = value(channel, pixel);
        }
    }
    table
}

fn look_up<T: Copy>(row: &[T; 256]) -> impl Fn(u8) -> T {
    |pixel| row[usize::from(pixel)]
}
