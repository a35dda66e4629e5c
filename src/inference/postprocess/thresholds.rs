//! Least scores: one for all classes, and those of single classes.

use crate::domain::manifest::Decode;

/// The least scores of a decoding.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Thresholds {
    all: f32,
    /// By class number; few.
    own: Vec<(u32, f32)>,
}

impl Thresholds {
    /// Those of a manifest's decoding; a class is named by its label, or by its number in digits.
    pub(super) fn of(decode: &Decode, labels: &[String]) -> Self {
        let Some((all, by_label, _)) = decode.limits() else { return Self { all: 0.0, own: Vec::new() } };
        let mut own = Vec::new();
        for (label, &threshold) in by_label {
            let before = own.len();
            let named = (0u32..).zip(labels).filter(|(_, known)| *known == label);
            own.extend(named.map(|(class, _)| (class, threshold)));
            if own.len() == before
                && let Ok(class) = label.parse()
            {
                own.push((class, threshold));
            }
        }
        Self { all, own }
    }

    /// That of one class.
    pub(super) fn of_class(&self, class: u32) -> f32 {
        let own = self.own.iter().find(|(number, _)| *number == class);
        own.map_or(self.all, |&(_, threshold)| threshold)
    }

    /// The least of all.
    pub(super) fn least(&self) -> f32 {
        self.own.iter().fold(self.all, |least, &(_, threshold)| least.min(threshold))
    }
}
