//! A picture made smaller for people.

/// Shrinks a picture of `width` × `height` pixels of `channels` bytes to `across` × `down`: each pixel becomes the mean
/// of what it covers. False, and nothing is written, when a length is wrong or the picture would grow.
#[unsafe(export_name = "hot_shrink")]
pub fn shrink(
    from: &[u8],
    (width, height): (usize, usize),
    channels: usize,
    to: &mut [u8],
    (across, down): (usize, usize),
) -> bool {
    let bytes = |width: usize, height: usize| width.checked_mul(height)?.checked_mul(channels);
    let right = bytes(width, height).is_some_and(|all| all > 0 && from.len() >= all)
        && bytes(across, down).is_some_and(|all| all > 0 && to.len() == all)
        && across <= width
        && down <= height;
    if !right {
        return false;
    }
    // A source pixel counts as `across` × `down` parts, of which a pixel of the result covers `width` × `height`.
    let parts = width as u64 * height as u64;
    let columns: Vec<_> = (0..across).map(|x| covered(x, width, across).collect::<Vec<_>>()).collect();
    let mut sums = vec![0u64; across * channels];
    for (y, line) in to.chunks_exact_mut(across * channels).enumerate() {
        sums.fill(0);
        for (row, tall) in covered(y, height, down) {
            let row = &from[row * width * channels..][..width * channels];
            for (sums, columns) in sums.chunks_exact_mut(channels).zip(&columns) {
                for &(column, wide) in columns {
                    let pixel = &row[column * channels..][..channels];
                    for (sum, value) in sums.iter_mut().zip(pixel) {
                        *sum += wide * tall * u64::from(*value);
                    }
                }
            }
        }
        for (value, sum) in line.iter_mut().zip(&sums) {
            *value = ((sum + parts / 2) / parts) as u8;
        }
    }
    true
}

/// The samples of `from` that sample `at` of `to` covers, with the parts of each, of which there are `to` in one.
fn covered(at: usize, from: usize, to: usize) -> impl Iterator<Item = (usize, u64)> {
    let (start, end) = (at * from, (at + 1) * from);
    (start / to..end.div_ceil(to))
        .map(move |sample| (sample, (end.min((sample + 1) * to) - start.max(sample * to)) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pixel_is_the_mean_of_what_it_covers() {
        let row = [0, 30, 60, 90, 120];
        let mut two = [0; 2];
        assert!(shrink(&row, (5, 1), 1, &mut two, (2, 1)));
        // Two pixels and a half each.
        assert_eq!(two, [24, 96]);
        let colours = [10, 200, 0, 20, 100, 0, 30, 0, 4, 40, 100, 4];
        let mut one = [0; 3];
        assert!(shrink(&colours, (2, 2), 3, &mut one, (1, 1)));
        assert_eq!(one, [25, 100, 2]);
        let mut same = [0; 12];
        assert!(shrink(&colours, (2, 2), 3, &mut same, (2, 2)));
        assert_eq!(same, colours);
    }

    #[test]
    fn one_colour_stays_it_at_every_size() {
        let from = [255; 37 * 23];
        for (across, down) in [(1, 1), (36, 22), (37, 1), (5, 23), (19, 11)] {
            let mut to = vec![0; across * down];
            assert!(shrink(&from, (37, 23), 1, &mut to, (across, down)));
            assert!(to.iter().all(|value| *value == 255), "{across}×{down}");
        }
    }

    #[test]
    fn wrong_lengths_are_told() {
        let (from, mut to) = ([7; 12], [0; 4]);
        for (size, new) in
            [((4, 4), (2, 2)), ((4, 3), (2, 1)), ((1, 3), (2, 2)), ((0, 0), (2, 2)), ((4, 3), (0, 2))]
        {
            assert!(!shrink(&from, size, 1, &mut to, new), "{size:?} {new:?}");
        }
        assert!(!shrink(&from, (4, 3), 0, &mut to, (2, 2)));
        assert_eq!(to, [0; 4]);
    }
}
