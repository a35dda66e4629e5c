//! What is kept of the things that nothing needs any more. Pure.

use serde::{Deserialize, Serialize};

/// How much may be kept in store of what nothing needs: for a way back beyond the previous bundle that moves no
/// bytes, for what a new release has in common with an older one, and for downloads that were cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spare {
    /// So many at most.
    pub count: usize,
    /// So many bytes at most, all of them together.
    pub bytes: u64,
}

impl Spare {
    /// Nothing is kept.
    pub const NONE: Self = Self { count: 0, bytes: 0 };

    /// How many of these are kept, from the front: sizes in bytes, what is most worth keeping first. One that is
    /// too large ends it, so that what is kept is always the newest.
    pub fn keeps(&self, sizes: impl IntoIterator<Item = u64>) -> usize {
        let mut left = self.bytes;
        let fits = |size: u64| {
            left = left.checked_sub(size)?;
            Some(())
        };
        sizes.into_iter().take(self.count).map_while(fits).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_within_both_bounds() {
        let spare = |count, bytes| Spare { count, bytes };
        assert_eq!(spare(3, 100).keeps([10, 20, 30, 1]), 3);
        assert_eq!(spare(9, 100).keeps([60, 40, 1]), 2);
        assert_eq!(spare(9, 100).keeps([60, 41, 1]), 1, "a small older one does not outlive a newer one");
        assert_eq!(spare(9, u64::MAX).keeps([u64::MAX, 0, 1]), 2);
        assert_eq!(Spare::NONE.keeps([0, 0]), 0);
    }
}
