//! From pixels to the model's tensor: fit, colour, normalise, row by row.
//!
//! The tensor belongs to the session and is written in place; the only other memory are a few rows,
//! kept from frame to frame. The picture may be limited to a region of it: the model then sees nothing
//! else, and its boxes still come in pixels of the whole picture.

pub mod series;
mod spread;

use super::planes::{Planes, Sampler, Want};
use crate::domain::manifest::{Anchor, Color, Fit, InputSpec, JpegDetail, Layout};
use crate::domain::{Reason, ReasonCode};
use half::f16;
use spread::Spread;

/// How much larger than needed a JPEG is decoded, so that the last step down is the bilinear one that models
/// are used to.
///
/// Measured with UltraFace (320×240) on six 1280×720 photographs with 75 faces, boxes beside OpenCV's plain
/// bilinear resize of the whole picture: decoded at half size all 75 are found with the same scores, but at
/// a mean IoU of 0.955. It is the smoothing of luminance (alone 0.954; of colour alone 0.993) and no loss: a
/// properly averaged picture (`INTER_AREA`) is as far from the plain resize (0.961) and near the half-size one
/// (0.984). Quarter size, less high than needed, is worse by any measure (0.90).
fn margin(detail: JpegDetail) -> f64 {
    match detail {
        JpegDetail::Exact => 2.0,
        JpegDetail::Fast => 1.0,
    }
}

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
    fn of(
        fit: Fit,
        region: [f64; 4],
        (width, height): (u32, u32),
        (to_width, to_height): (u32, u32),
    ) -> Self {
        let [left, top, share_across, share_down] = region;
        let (width, height) = (f64::from(width) * share_across, f64::from(height) * share_down);
        let (across, down) = (f64::from(to_width) / width, f64::from(to_height) / height);
        match fit {
            Fit::Stretch => Self { crop: region, size: (to_width, to_height), at: (0, 0) },
            Fit::Letterbox { value: _, position } => {
                let ratio = across.min(down);
                let scaled = |length: f64, most: u32| ((length * ratio).round() as u32).clamp(1, most);
                let size = (scaled(width, to_width), scaled(height, to_height));
                let at = match position {
                    // Ultralytics rounds half a pixel down: round(d / 2 − 0.1).
                    Anchor::Center => ((to_width - size.0) / 2, (to_height - size.1) / 2),
                    Anchor::TopLeft => (0, 0),
                };
                Self { crop: region, size, at }
            }
            Fit::CenterCrop => {
                let ratio = across.max(down);
                let (w, h) = (share_across * across / ratio, share_down * down / ratio);
                let crop = [left + (share_across - w) / 2.0, top + (share_down - h) / 2.0, w, h];
                Self { crop, size: (to_width, to_height), at: (0, 0) }
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
    /// Left, top, width, height of what is looked at, as shares of the picture.
    region: [f64; 4],
    sampler: Sampler,
    margin: f64,
}

/// What a tensor's padding was written for: kept beside each tensor, so that it is written only when the
/// picture's size changes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Padding(Option<Placement>);

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
            region: [0.0, 0.0, 1.0, 1.0],
            sampler: Sampler::default(),
            margin: margin(spec.jpeg),
        })
    }

    /// Looks at a part of the picture only: left, top, width and height as shares of it, 0 to 1. `None`:
    /// at all of it.
    pub fn limit_to(&mut self, region: Option<[f32; 4]>) {
        self.region = region.unwrap_or([0.0, 0.0, 1.0, 1.0]).map(f64::from);
    }

    /// What it needs of a picture.
    pub fn want(&self) -> Want {
        match self.color {
            Color::Grey => Want::Grey,
            Color::Rgb | Color::Bgr => Want::Rgb,
        }
    }

    /// The least size at which a picture of `original` size has to be decoded: once or twice what is left
    /// of it in the tensor, as the manifest says.
    pub fn needed(&self, original: (u32, u32)) -> (u32, u32) {
        let placement = Placement::of(self.fit, self.region, original, self.size);
        let least = |size: u32, share: f64| (f64::from(size) * self.margin / share).ceil() as u32;
        (least(placement.size.0, placement.crop[2]), least(placement.size.1, placement.crop[3]))
    }

    /// Writes a picture into a tensor, whose own `padding` this is, and tells where it lies in it.
    ///
    /// # Errors
    /// `Internal` when the tensor or the picture is not of the declared size.
    pub fn run(
        &mut self,
        picture: &Planes<'_>,
        tensor: TensorMut<'_>,
        padding: &mut Padding,
    ) -> Result<Geometry, Reason> {
        let placement = Placement::of(self.fit, self.region, picture.original, self.size);
        let pad = (padding.0 != Some(placement)).then_some(match self.fit {
            Fit::Letterbox { value, position: _ } => value,
            Fit::Stretch | Fit::CenterCrop => 0,
        });
        let spread = Spread {
            swap: self.color == Color::Bgr,
            channels: self.color.channels(),
            layout: self.layout,
            tensor: self.size,
            placement,
            pad,
            factor: self.factor,
            addend: self.addend,
        };
        let want = self.want();
        if !spread.write(&mut self.sampler, picture, want, tensor) {
            return internal("the input tensor or the picture is not of the declared size".into());
        }
        padding.0 = Some(placement);
        Ok(placement.geometry(picture.original))
    }
}

fn internal<T>(detail: String) -> Result<T, Reason> {
    Err(Reason::new(ReasonCode::Internal, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_says_how_finely_a_jpeg_is_decoded() {
        let mut spec = crate::bundle::tests::sample().inputs.remove(0);
        (spec.shape, spec.fit) = (vec![1, 3, 240, 320], Fit::Stretch);
        let needed = |spec: &InputSpec| Preprocess::new(spec).unwrap().needed((1280, 720));
        assert_eq!(needed(&spec), (640, 480));
        spec.jpeg = JpegDetail::Fast;
        assert_eq!(needed(&spec), (320, 240));
        let mut half = Preprocess::new(&spec).unwrap();
        half.limit_to(Some([0.5, 0.0, 0.5, 1.0]));
        assert_eq!(half.needed((1280, 720)), (640, 240), "what is looked at is as large");
    }

    #[test]
    fn boxes_of_a_region_come_back_to_the_whole_picture() {
        // The right half of 200×100, into 50×50.
        let region = [0.5, 0.0, 0.5, 1.0];
        for fit in [Fit::Stretch, Fit::CenterCrop, Fit::Letterbox { value: 0, position: Anchor::Center }] {
            let placement = Placement::of(fit, region, (200, 100), (50, 50));
            let geometry = placement.geometry((200, 100));
            assert_eq!(geometry.to_original([0.0, 0.0, 50.0, 50.0]), [100.0, 0.0, 200.0, 100.0], "{fit:?}");
            assert_eq!(geometry.to_original([10.0, 20.0, 30.0, 60.0]), [120.0, 40.0, 160.0, 100.0]);
        }
        let placement = Placement::of(Fit::CenterCrop, [0.0, 0.5, 1.0, 0.5], (200, 100), (50, 50));
        let geometry = placement.geometry((200, 100));
        assert_eq!(geometry.to_original([0.0, 0.0, 50.0, 50.0]), [75.0, 50.0, 125.0, 100.0]);
    }
}
