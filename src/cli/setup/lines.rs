//! Two texts line by line: what is new, what is gone, what stays. Pure.

/// A line of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// In both.
    Same(&'a str),
    /// Only in the old text.
    Gone(&'a str),
    /// Only in the new one.
    New(&'a str),
}

/// Compares two texts of few lines: the longest common run of lines stays, the rest goes or comes. Takes
/// as many steps as the product of their lengths.
pub fn compare<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    // common[i][j]: lines that old[i..] and new[j..] have in common, in their order.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(Line::Gone(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_line_by_line() {
        use Line::{Gone, New, Same};
        assert_eq!(compare("", "a\nb\n"), [New("a"), New("b")]);
        assert_eq!(compare("a\nb\n", ""), [Gone("a"), Gone("b")]);
        assert_eq!(
            compare("a\nb\nc\n", "a\nx\nc\nd\n"),
            [Same("a"), Gone("b"), New("x"), Same("c"), New("d")]
        );
        assert_eq!(compare("a\n", "a\n"), [Same("a")]);
    }
}
