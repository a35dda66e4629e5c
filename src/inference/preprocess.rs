//! From pixels to the model's tensor: fit, colour, normalise, in one pass over the result.
//!
//! The tensor belongs to the session and is written in place; the only other memory is the resized
//! picture, kept from frame to frame.

pub mod series;

use super::pixels::Pixels;
use crate::domain::manifest::{Anchor, Color, Fit, InputSpec, Layout};
use crate::domain::{Reason, ReasonCode};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use half::f16;

/// How much larger than needed a picture is decoded, so that the last step down is the bilinear one that
/// models are used to. Decoded at half size where that is still above the needed one, the smoother picture
/// moved UltraFace's boxes on 1280×720 frames by 5 % or more, whatever resized it (mean IoU with OpenCV's
/// 0.952, with the margin 0.997).
const MARGIN: f64 = 2.0;

/// The values of an input tensor, to be written.
#[derive(Debug)]
pub enum TensorMut<'a> {
    /// 32-bit floats.
    F32(&'a mut [f32]),
    /// 16-bit floats.
    F16(&'a mut [f16]),
    /// Unsigned bytes.
    U8(&'a mut [u8]),
    /// Signed bytes.
    I8(&'a mut [i8]),
}

/// Where the picture lies in the tensor, to find the way back from the model's coordinates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Tensor pixels per pixel of the original picture, across and down.
    pub scale: [f32; 2],
    /// Where the original's top left corner lies in the tensor; negative when it was cut off.
    pub offset: [f32; 2],
    /// Width and height of the original picture.
    pub original: [f32; 2],
}

impl Geometry {
    /// Maps a box (left, top, right, bottom) in tensor pixels to pixels of the original picture, cut at
    /// its edges.
    pub fn to_original(&self, bbox: [f32; 4]) -> [f32; 4] {
        let mut mapped = [0.0; 4];
        for (i, value) in bbox.into_iter().enumerate() {
            let axis = i % 2;
            mapped[i] = ((value - self.offset[axis]) / self.scale[axis]).clamp(0.0, self.original[axis]);
        }
        mapped
    }
}

/// How one picture size is brought to the tensor's: what is cut out, how large it becomes, where it goes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Placement {
    /// Left, top, width, height of what is used, as shares of the picture.
    crop: [f64; 4],
    /// Size of it in the tensor.
    size: (u32, u32),
    /// Its left and top in the tensor.
    at: (u32, u32),
}

impl Placement {
    fn of(fit: Fit, (width, height): (u32, u32), (to_width, to_height): (u32, u32)) -> Self {
        let whole = [0.0, 0.0, 1.0, 1.0];
        let across = f64::from(to_width) / f64::from(width);
        let down = f64::from(to_height) / f64::from(height);
        match fit {
            Fit::Stretch => Self { crop: whole, size: (to_width, to_height), at: (0, 0) },
            Fit::Letterbox { value: _, position } => {
                let ratio = across.min(down);
                let scaled =
                    |length: u32, most: u32| ((f64::from(length) * ratio).round() as u32).clamp(1, most);
                let size = (scaled(width, to_width), scaled(height, to_height));
                let at = match position {
                    // Ultralytics rounds half a pixel down: round(d / 2 − 0.1).
                    Anchor::Center => ((to_width - size.0) / 2, (to_height - size.1) / 2),
                    Anchor::TopLeft => (0, 0),
                };
                Self { crop: whole, size, at }
            }
            Fit::CenterCrop => {
                let ratio = across.max(down);
                let (w, h) = (across / ratio, down / ratio);
                Self {
                    crop: [(1.0 - w) / 2.0, (1.0 - h) / 2.0, w, h],
                    size: (to_width, to_height),
                    at: (0, 0),
                }
            }
        }
    }

    fn geometry(&self, (width, height): (u32, u32)) -> Geometry {
        let axis = |original: u32, start: f64, share: f64, size: u32, at: u32| {
            let scale = f64::from(size) / (f64::from(original) * share);
            let offset = f64::from(at) - start * f64::from(original) * scale;
            (scale as f32, offset as f32)
        };
        let (scale_x, offset_x) = axis(width, self.crop[0], self.crop[2], self.size.0, self.at.0);
        let (scale_y, offset_y) = axis(height, self.crop[1], self.crop[3], self.size.1, self.at.1);
        Geometry {
            scale: [scale_x, scale_y],
            offset: [offset_x, offset_y],
            original: [width as f32, height as f32],
        }
    }
}

/// The pre-processing of one input, as its manifest declares it.
pub struct Preprocess {
    size: (u32, u32),
    layout: Layout,
    fit: Fit,
    color: Color,
    /// Value = pixel × factor + addend, by channel of the tensor.
    factor: [f32; 3],
    addend: [f32; 3],
    resizer: Resizer,
    resized: Vec<u8>,
    /// The placement that the padding in the tensor is for.
    padded: Option<Placement>,
}

impl Preprocess {
    /// Prepares for one input.
    ///
    /// # Errors
    /// `Malformed` when its shape is not that of a picture; a checked manifest has none such.
    pub fn new(spec: &InputSpec) -> Result<Self, Reason> {
        let Some(size) = spec.size() else {
            return Err(Reason::new(
                ReasonCode::Malformed,
                format!("input {:?}: shape {:?} has not four axes", spec.name, spec.shape),
            ));
        };
        let of = |values: &[f32], channel: usize, absent: f32| match values {
            [] => absent,
            [one] => *one,
            several => several.get(channel).copied().unwrap_or(absent),
        };
        let (mut factor, mut addend) = ([0.0; 3], [0.0; 3]);
        for channel in 0..3 {
            let (mean, std) = (of(&spec.mean, channel, 0.0), of(&spec.std, channel, 1.0));
            factor[channel] = spec.scale / std;
            addend[channel] = -mean / std;
        }
        Ok(Self {
            size,
            layout: spec.layout,
            fit: spec.fit,
            color: spec.color,
            factor,
            addend,
            resizer: Resizer::new(),
            resized: Vec::new(),
            padded: None,
        })
    }

    /// True when one channel is enough.
    pub fn is_grey(&self) -> bool {
        self.color == Color::Grey
    }

    /// The least size at which a picture of `original` size has to be decoded: `MARGIN` times what is
    /// left of it in the tensor.
    pub fn needed(&self, original: (u32, u32)) -> (u32, u32) {
        let placement = Placement::of(self.fit, original, self.size);
        let least = |size: u32, share: f64| (f64::from(size) * MARGIN / share).ceil() as u32;
        (least(placement.size.0, placement.crop[2]), least(placement.size.1, placement.crop[3]))
    }

    /// Writes a picture into the tensor and tells where it lies in it. The same tensor must be given
    /// every time: its padding is written only when the picture's size changes.
    ///
    /// # Errors
    /// `Internal` when the tensor is not of the declared size.
    pub fn run(&mut self, pixels: Pixels<'_>, tensor: TensorMut<'_>) -> Result<Geometry, Reason> {
        let placement = Placement::of(self.fit, pixels.original, self.size);
        let picture = self.resize(pixels, placement)?;
        let pad = (self.padded != Some(placement)).then_some(match self.fit {
            Fit::Letterbox { value, position: _ } => value,
            Fit::Stretch | Fit::CenterCrop => 0,
        });
        let (factor, addend) = (self.factor, self.addend);
        let float = |channel: usize, pixel: u8| f32::from(pixel) * factor[channel] + addend[channel];
        let source = match picture {
            Picture::Given => pixels.bytes,
            Picture::Resized => &self.resized[..],
        };
        let shape = Shape {
            source_channels: pixels.channels,
            swap: self.color == Color::Bgr,
            channels: self.color.channels(),
            layout: self.layout,
            tensor: self.size,
            placement,
            pad,
        };
        let written = match tensor {
            TensorMut::F32(values) => shape.write(source, values, float),
            TensorMut::F16(values) => {
                let table = table(|channel, pixel| f16::from_f32(float(channel, pixel)));
                shape.write(source, values, |channel, pixel| table[channel][usize::from(pixel)])
            }
            // `as` cuts at the ends of the range.
            TensorMut::U8(values) => {
                let table = table(|channel, pixel| float(channel, pixel).round() as u8);
                shape.write(source, values, |channel, pixel| table[channel][usize::from(pixel)])
            }
            TensorMut::I8(values) => {
                let table = table(|channel, pixel| float(channel, pixel).round() as i8);
                shape.write(source, values, |channel, pixel| table[channel][usize::from(pixel)])
            }
        };
        if !written {
            return internal("the input tensor is not of the declared size".into());
        }
        self.padded = Some(placement);
        Ok(placement.geometry(pixels.original))
    }

    fn resize(&mut self, pixels: Pixels<'_>, placement: Placement) -> Result<Picture, Reason> {
        let (width, height) = placement.size;
        let whole = placement.crop == [0.0, 0.0, 1.0, 1.0];
        if whole && (pixels.width, pixels.height) == placement.size {
            return Ok(Picture::Given);
        }
        let kind = if pixels.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
        let fault = |error: &dyn std::fmt::Display| {
            Reason::new(ReasonCode::Internal, format!("resize a picture to {width}×{height}: {error}"))
        };
        self.resized.resize(width as usize * height as usize * pixels.channels, 0);
        let source = ImageRef::new(pixels.width, pixels.height, pixels.bytes, kind).map_err(|e| fault(&e))?;
        let mut target =
            Image::from_slice_u8(width, height, &mut self.resized, kind).map_err(|e| fault(&e))?;
        // As OpenCV's INTER_LINEAR, which most models are trained and deployed with.
        let mut options =
            ResizeOptions::new().resize_alg(ResizeAlg::Interpolation(FilterType::Bilinear)).use_alpha(false);
        if !whole {
            let [left, top, w, h] = placement.crop;
            let (pw, ph) = (f64::from(pixels.width), f64::from(pixels.height));
            options = options.crop(left * pw, top * ph, w * pw, h * ph);
        }
        self.resizer.resize(&source, &mut target, &options).map_err(|e| fault(&e))?;
        Ok(Picture::Resized)
    }
}

/// Where the picture of the tensor's size lies.
enum Picture {
    /// In the frame itself.
    Given,
    /// In the buffer for resized ones.
    Resized,
}

fn table<T: Copy + Default>(value: impl Fn(usize, u8) -> T) -> [[T; 256]; 3] {
    let mut table = [[T::default(); 256]; 3];
    for (channel, row) in table.iter_mut().enumerate() {
        for (pixel, entry) in (0..=255u8).zip(row) {
            *entry = value(channel, pixel);
        }
    }
    table
}

/// All that is needed to spread interleaved pixels over a tensor.
struct Shape {
    source_channels: usize,
    swap: bool,
    channels: usize,
    layout: Layout,
    tensor: (u32, u32),
    placement: Placement,
    /// Written over the whole tensor first, when set.
    pad: Option<u8>,
}

impl Shape {
    /// Writes `source` into `values` through `value`; false when a length is wrong.
    fn write<T: Copy>(&self, source: &[u8], values: &mut [T], value: impl Fn(usize, u8) -> T) -> bool {
        let (width, height) = (self.tensor.0 as usize, self.tensor.1 as usize);
        let (inner_width, inner_height) = (self.placement.size.0 as usize, self.placement.size.1 as usize);
        let (left, top) = (self.placement.at.0 as usize, self.placement.at.1 as usize);
        if values.len() != width * height * self.channels
            || source.len() < inner_width * inner_height * self.source_channels
        {
            return false;
        }
        let plane = width * height;
        if let Some(pad) = self.pad
            && (inner_width, inner_height) != (width, height)
        {
            for (at, entry) in values.iter_mut().enumerate() {
                let channel = match self.layout {
                    Layout::Nchw => at / plane,
                    Layout::Nhwc => at % self.channels,
                };
                *entry = value(channel, pad);
            }
        }
        // Where channel `c` of the tensor is found in a pixel of the source.
        let from = |c: usize| match (self.source_channels, self.swap) {
            (1, _) => 0,
            (_, true) => 2 - c,
            (_, false) => c,
        };
        let grey = self.channels == 1 && self.source_channels == 3;
        for (y, row) in source.chunks_exact(inner_width * self.source_channels).take(inner_height).enumerate()
        {
            let start = (top + y) * width + left;
            match self.layout {
                _ if grey => {
                    let line = &mut values[start..start + inner_width];
                    for (entry, pixel) in line.iter_mut().zip(row.chunks_exact(3)) {
                        *entry = value(0, luminance(pixel));
                    }
                }
                Layout::Nchw => {
                    for c in 0..self.channels {
                        let line = &mut values[c * plane + start..c * plane + start + inner_width];
                        let from = from(c);
                        // A step that the compiler knows lets it do several at a time.
                        if self.source_channels == 1 {
                            for (entry, &pixel) in line.iter_mut().zip(row) {
                                *entry = value(c, pixel);
                            }
                        } else {
                            for (entry, pixel) in line.iter_mut().zip(row.as_chunks::<3>().0) {
                                *entry = value(c, pixel[from]);
                            }
                        }
                    }
                }
                Layout::Nhwc => {
                    let line = &mut values[start * self.channels..(start + inner_width) * self.channels];
                    let pixels = row.chunks_exact(self.source_channels);
                    for (entries, pixel) in line.chunks_exact_mut(self.channels).zip(pixels) {
                        for (c, entry) in entries.iter_mut().enumerate() {
                            *entry = value(c, pixel[from(c)]);
                        }
                    }
                }
            }
        }
        true
    }
}

/// Luminance of ITU-R BT.601, as JPEG and OpenCV compute it.
fn luminance(pixel: &[u8]) -> u8 {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + 32768) >> 16) as u8
}

fn internal<T>(detail: String) -> Result<T, Reason> {
    Err(Reason::new(ReasonCode::Internal, detail))
}
