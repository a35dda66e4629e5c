//! Deltas, and the list that offers them.

use edgewarden::bundle::delta::{Layout, Old, Source, Tensor, apply, make, offers};
use std::io::Write;

/// Longest file that a delta is let lead to here.
const MOST: u64 = 1 << 16;

/// Takes bytes and keeps none.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A delta against an old file, which writes as many bytes as are wanted and not one more; a pair of files that comes
/// back as it was packed; and the bytes as a list of offers.
pub fn delta(mut data: &[u8]) {
    if let Ok(read) = offers::parse(data) {
        assert_eq!(offers::parse(&offers::write(&read)), Ok(read));
    }
    let _ = Layout::of_model(data);
    let [low, high, kind] = super::take::<3>(&mut data);
    let (old, rest) = data.split_at(usize::from(u16::from_le_bytes([low, high])).min(data.len()));
    let tensors: Vec<Tensor> = (0..u64::from(kind & 3))
        .map(|at| Tensor { name: "t".into(), at: at * 512, length: 512, width: 1 << (kind >> 6) })
        .collect();
    let mut packed = Vec::new();
    let source = |bytes| Source { bytes, tensors: &tensors };
    let before = (kind & 4 == 0).then_some(&old as &dyn Old);
    make(before.map(source), source(&rest), 1, &mut packed, &|_| {}).expect("any pair can be packed");
    let mut back = Vec::new();
    apply(before, &mut &packed[..], rest.len() as u64, &mut back, &|_| {})
        .expect("what was packed comes back");
    assert_eq!(back, rest);

    for size in [0, 1, 512, MOST] {
        let mut out = Count(0);
        let applied = apply(Some(&old), &mut &rest[..], size, &mut out, &|_| {});
        assert!(out.0 <= size);
        assert!(applied.is_err() || out.0 == size);
    }
}
