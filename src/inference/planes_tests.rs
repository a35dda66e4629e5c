//! The sampler beside straightforward conversions that look at every pixel on its own.

use super::*;
use proptest::prelude::*;

const WHOLE: [f64; 4] = [0.0, 0.0, 1.0, 1.0];

fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn sampled(picture: &Planes<'_>, cut: [f64; 4], size: (u32, u32), want: Want) -> Vec<[u8; 3]> {
    let mut got = Vec::new();
    let whole = Sampler::default().sample(picture, cut, size, want, &mut |y, [r, g, b]| {
        assert_eq!(got.len(), y * size.0 as usize);
        got.extend((0..r.len()).map(|x| [r[x], g[x], b[x]]));
    });
    assert!(whole);
    got
}

/// BT.601 of limited range, from the definition.
fn bt601(y: f64, u: f64, v: f64) -> [f64; 3] {
    let (y, u, v) = ((y - 16.0) / 219.0, (u - 128.0) / 224.0, (v - 128.0) / 224.0);
    [y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u].map(|c| (c * 255.0).clamp(0.0, 255.0))
}

#[track_caller]
fn near(got: &[[u8; 3]], wanted: &[[f64; 3]], by: f64) {
    assert_eq!(got.len(), wanted.len());
    for (at, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        for c in 0..3 {
            assert!((f64::from(got[c]) - wanted[c]).abs() <= by, "pixel {at}: {got:?} {wanted:?}");
        }
    }
}

/// One channel resized with two samples in each direction, in doubles.
fn bilinear(samples: &dyn Fn(usize, usize) -> f64, from: (usize, usize), to: (u32, u32)) -> Vec<f64> {
    let axis = |i: u32, n: u32, length: usize| {
        let place =
            ((f64::from(i) + 0.5) * length as f64 / f64::from(n) - 0.5).clamp(0.0, length as f64 - 1.0);
        (place.floor() as usize, (place.floor() as usize + 1).min(length - 1), place.fract())
    };
    let mut all = Vec::new();
    for y in 0..to.1 {
        let (y0, y1, wy) = axis(y, to.1, from.1);
        for x in 0..to.0 {
            let (x0, x1, wx) = axis(x, to.0, from.0);
            let row = |y| samples(x0, y) * (1.0 - wx) + samples(x1, y) * wx;
            all.push(row(y0) * (1.0 - wy) + row(y1) * wy);
        }
    }
    all
}

/// Every raw YUV format with random bytes, and its samples by channel, column and row.
fn each_yuv(
    size: (u32, u32),
    mut look: impl FnMut(&Planes<'_>, [&dyn Fn(usize, usize) -> f64; 3], (usize, usize)),
) {
    let (w, h) = (size.0 as usize, size.1 as usize);
    let bytes = noise(w * h * 2);
    let at = |i: usize| f64::from(bytes[i]);
    look(
        &Planes::yuyv(&bytes, size),
        [&|x, y| at(y * 2 * w + 2 * x), &|x, y| at(y * 2 * w + 4 * x + 1), &|x, y| at(y * 2 * w + 4 * x + 3)],
        (w / 2, h),
    );
    look(
        &Planes::nv12(&bytes[..w * h * 3 / 2], size),
        [&|x, y| at(y * w + x), &|x, y| at(w * h + y * w + 2 * x), &|x, y| at(w * h + y * w + 2 * x + 1)],
        (w / 2, h / 2),
    );
    let quarter = w * h / 4;
    look(
        &Planes::yuv(&bytes[..w * h * 3 / 2], size, (w / 2, h / 2), Range::Limited),
        [&|x, y| at(y * w + x), &|x, y| at(w * h + y * (w / 2) + x), &|x, y| {
            at(w * h + quarter + y * (w / 2) + x)
        }],
        (w / 2, h / 2),
    );
}

#[test]
fn yuv_formats_equal_a_conversion_pixel_by_pixel() {
    let size = (24, 16);
    for to in [(24, 16), (12, 8), (7, 5), (50, 31)] {
        each_yuv(size, |picture, [y, u, v], chroma| {
            let from = (size.0 as usize, size.1 as usize);
            let (ys, us, vs) = (bilinear(y, from, to), bilinear(u, chroma, to), bilinear(v, chroma, to));
            let wanted: Vec<_> = (0..ys.len()).map(|i| bt601(ys[i], us[i], vs[i])).collect();
            // The rounding of each channel, times the gain of the colour differences.
            near(&sampled(picture, WHOLE, to, Want::Rgb), &wanted, 4.0);
            let grey: Vec<_> = ys.iter().map(|&y| [bt601(y, 128.0, 128.0)[0]; 3]).collect();
            near(&sampled(picture, WHOLE, to, Want::Grey), &grey, 1.7);
        });
    }
}

#[test]
fn known_colours_come_out() {
    // White, black, and the red of 75 % colour bars, in limited range.
    for (yuv, rgb) in
        [([235, 128, 128], [255.0; 3]), ([16, 128, 128], [0.0; 3]), ([65, 100, 212], [191.0, 0.0, 0.0])]
    {
        let bytes = [yuv[0], yuv[1], yuv[0], yuv[2]].repeat(4);
        near(&sampled(&Planes::yuyv(&bytes, (4, 2)), WHOLE, (2, 2), Want::Rgb), &[rgb; 4], 1.5);
    }
    // Full range: a JPEG's white is 255, and grey 100 stays 100.
    for value in [255u8, 100, 0] {
        let bytes = [[value; 4].to_vec(), vec![128; 2]].concat();
        let picture = Planes::yuv(&bytes, (2, 2), (1, 1), Range::Full);
        near(&sampled(&picture, WHOLE, (2, 2), Want::Rgb), &[[f64::from(value); 3]; 4], 0.0);
        near(&sampled(&picture, WHOLE, (1, 1), Want::Grey), &[[f64::from(value); 3]], 0.0);
    }
}

#[test]
fn packed_pictures_are_resized_by_channel_and_kept_where_nothing_changes() {
    let bytes = noise(20 * 10 * 3);
    let picture = Planes::rgb(&bytes, (20, 10));
    assert_eq!(sampled(&picture, WHOLE, (20, 10), Want::Rgb).concat(), bytes);
    let to = (9, 7);
    let [r, g, b] = [0, 1, 2].map(|c| bilinear(&|x, y| f64::from(bytes[(y * 20 + x) * 3 + c]), (20, 10), to));
    let wanted: Vec<_> = (0..r.len()).map(|i| [r[i], g[i], b[i]]).collect();
    near(&sampled(&picture, WHOLE, to, Want::Rgb), &wanted, 1.5);
    let wanted: Vec<_> = wanted.iter().map(|[r, g, b]| [0.299 * r + 0.587 * g + 0.114 * b; 3]).collect();
    near(&sampled(&picture, WHOLE, to, Want::Grey), &wanted, 2.0);
    let grey = Planes::grey(&bytes[..200], (20, 10));
    assert_eq!(
        sampled(&grey, WHOLE, (20, 10), Want::Rgb).iter().map(|p| p[1]).collect::<Vec<_>>(),
        &bytes[..200]
    );
}

#[test]
fn a_cut_is_as_if_it_had_been_cut_out_first() {
    let bytes = noise(32 * 16 * 3);
    let picture = Planes::rgb(&bytes, (32, 16));
    // Columns 8 to 24, rows 4 to 12.
    let cut_out: Vec<u8> =
        (4..12).flat_map(|y| bytes[(y * 32 + 8) * 3..(y * 32 + 24) * 3].to_vec()).collect();
    let alone = Planes::rgb(&cut_out, (16, 8));
    for to in [(16, 8), (5, 3), (40, 20)] {
        let cut = sampled(&picture, [0.25, 0.25, 0.5, 0.5], to, Want::Rgb);
        assert_eq!(cut, sampled(&alone, WHOLE, to, Want::Rgb), "{to:?}");
    }
}

#[test]
fn a_picture_with_too_few_bytes_is_told_and_not_read() {
    let bytes = vec![9; 24];
    let mut sampler = Sampler::default();
    for picture in [
        Planes::grey(&bytes, (5, 5)),
        Planes::rgb(&bytes, (3, 3)),
        Planes::yuyv(&bytes, (4, 4)),
        Planes::nv12(&bytes, (6, 4)),
        Planes::yuv(&bytes, (6, 4), (3, 2), Range::Full),
    ] {
        assert!(!sampler.sample(&picture, WHOLE, (2, 2), Want::Rgb, &mut |_, _| panic!("was read")));
    }
}

proptest! {
    #[test]
    fn no_size_and_no_cut_reads_outside(
        w in 1u32..40, h in 1u32..40, to in (1u32..40, 1u32..40),
        left in 0.0..0.9f64, top in 0.0..0.9f64, share in 0.01..1.0f64,
    ) {
        let bytes = vec![77; (w * h * 3) as usize];
        let cut = [left, top, share.min(1.0 - left), share.min(1.0 - top)];
        for picture in [Planes::rgb(&bytes, (w, h)), Planes::grey(&bytes, (w, h))] {
            let got = sampled(&picture, cut, to, Want::Rgb);
            prop_assert!(got.iter().all(|pixel| *pixel == [77; 3]));
        }
    }
}

#[test]
fn even_steps_give_the_same_pixels_as_any_others() {
    let (width, height) = (64u32, 36u32);
    let bytes: Vec<u8> = (0..width * height * 3 / 2).map(|at| ((at * 7919) >> 3) as u8).collect();
    let picture = Planes::yuv(&bytes, (width, height), (32, 18), Range::Full);
    for (wide, even) in [(64, [true, false]), (32, [true, true]), (30, [false, false])] {
        let mut sampler = Sampler::default();
        let mut sample = |even: Option<[bool; 2]>| {
            let mut pixels = Vec::new();
            if even.is_none() {
                // Kept from the picture before, but for this.
                sampler.across.iter_mut().for_each(|taps| taps.even = None);
            }
            assert!(sampler.sample(&picture, [0.0, 0.0, 1.0, 1.0], (wide, 20), Want::Rgb, &mut |_, rows| {
                rows.iter().for_each(|row| pixels.extend_from_slice(row));
            }));
            if let Some(even) = even {
                assert_eq!([0, 1].map(|at: usize| sampler.across[at].even.is_some()), even, "{wide}");
            }
            pixels
        };
        assert_eq!(sample(Some(even)), sample(None), "{wide}");
    }
}
