//! Arrays as NumPy saves them (`.npy`, format versions 1 to 3): the shape and the numbers.
//!
//! The format is a magic word, a version, the length of a header, the header as a Python dictionary of
//! three entries in one line, and the numbers. It is read here because the crates for it bring a parser of
//! the whole language's literals along.

/// What every such file begins with.
pub const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header that is read, bytes; NumPy's own are below 200 for arrays without named fields.
const MAX_HEADER: usize = 4096;

/// An array.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Its axes, outermost first.
    pub shape: Vec<usize>,
    /// Its numbers, the last axis running fastest.
    pub values: Vec<f32>,
}

impl Array {
    /// Reads one of so many numbers at most.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn parse(file: &[u8], most: usize) -> Result<Self, String> {
        let cut = || "the file is cut short".to_owned();
        let rest = file.strip_prefix(MAGIC).ok_or("no NumPy file")?;
        let (length, rest) = match rest {
            [1, _, low, high, rest @ ..] => (usize::from(u16::from_le_bytes([*low, *high])), rest),
            [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
            [version, _, ..] if *version > 3 => {
                return Err(format!("NumPy format {version} is not known; save it with numpy.save"));
            }
            _ => return Err(cut()),
        };
        if length > MAX_HEADER {
            return Err(format!("a header of {length} bytes; save a plain array of numbers"));
        }
        let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
        let header = std::str::from_utf8(header).map_err(|_| "the header is no text")?;
        let entry = |key: &str| {
            let (_, after) = header.split_once(&format!("'{key}':"))?;
            Some(after.trim_start())
        };
        let missing = |key: &str| format!("the header has no {key}");
        let columns_first = match entry("fortran_order").ok_or_else(|| missing("fortran_order"))? {
            text if text.starts_with("False") => false,
            text if text.starts_with("True") => true,
            _ => return Err(missing("fortran_order")),
        };
        let shape = entry("shape").and_then(tuple).ok_or_else(|| missing("shape"))?;
        let kind = entry("descr").and_then(|text| text.strip_prefix('\'')?.split_once('\''));
        let kind =
            kind.map(|(kind, _)| kind).ok_or("named fields are not read; save a plain array of numbers")?;
        let count = shape.iter().try_fold(1_usize, |count, axis| count.checked_mul(*axis));
        let count = count
            .filter(|count| *count <= most)
            .ok_or_else(|| format!("its shape {} is more than {most} numbers", told(&shape)))?;
        if columns_first && shape.iter().filter(|axis| **axis > 1).count() > 1 {
            return Err("saved in Fortran's order; save numpy.ascontiguousarray(x)".to_owned());
        }
        let values = numbers(kind, data)?.take(count).collect::<Vec<_>>();
        if values.len() < count {
            return Err(cut());
        }
        Ok(Self { shape, values })
    }
}

/// A shape as Python writes it.
pub fn told(shape: &[usize]) -> String {
    let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("({}{})", axes.join(", "), if shape.len() == 1 { "," } else { "" })
}

fn tuple(text: &str) -> Option<Vec<usize>> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    inside.split(',').map(str::trim).filter(|axis| !axis.is_empty()).map(|axis| axis.parse().ok()).collect()
}

fn numbers<'a>(kind: &str, data: &'a [u8]) -> Result<Box<dyn Iterator<Item = f32> + 'a>, String> {
    fn each<'a, const N: usize>(
        data: &'a [u8],
        read: fn([u8; N]) -> f32,
    ) -> Box<dyn Iterator<Item = f32> + 'a> {
        Box::new(data.as_chunks::<N>().0.iter().map(move |bytes| read(*bytes)))
    }
    Ok(match kind {
        "<f4" => each(data, f32::from_le_bytes),
        ">f4" => each(data, f32::from_be_bytes),
        "<f8" => each(data, |bytes| f64::from_le_bytes(bytes) as f32),
        ">f8" => each(data, |bytes| f64::from_be_bytes(bytes) as f32),
        "<f2" => each(data, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
        "|u1" => each(data, |[byte]| f32::from(byte)),
        "|i1" => each(data, |[byte]| f32::from(byte as i8)),
        "<u2" => each(data, |bytes| f32::from(u16::from_le_bytes(bytes))),
        "<i2" => each(data, |bytes| f32::from(i16::from_le_bytes(bytes))),
        "<i4" => each(data, |bytes| i32::from_le_bytes(bytes) as f32),
        "<i8" => each(data, |bytes| i64::from_le_bytes(bytes) as f32),
        other => {
            let other: String = other.chars().take(16).collect();
            return Err(format!("numbers of the kind \"{other}\" are not read; save x.astype(\"float32\")"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{header:<117}\n");
        [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
    }

    fn header(kind: &str, order: &str, shape: &str) -> String {
        format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}")
    }

    #[test]
    fn arrays_are_read_as_numpy_wrote_them() {
        // numpy.save(f, numpy.array([[1.5, -2], [3, numpy.nan]], "<f8")), the numbers by struct.pack.
        let data: Vec<u8> = [1.5, -2.0, 3.0, f64::NAN].iter().flat_map(|n: &f64| n.to_le_bytes()).collect();
        let array = Array::parse(&file(&header("<f8", "False", "(2, 2)"), &data), 4).unwrap();
        assert_eq!((array.shape, &array.values[..3]), (vec![2, 2], &[1.5, -2.0, 3.0][..]));
        assert!(array.values[3].is_nan());
        for (kind, data) in [
            ("<f4", &[0, 0, 0x40, 0xc0][..]),
            (">f4", &[0xc0, 0x40, 0, 0]),
            ("<f2", &[0, 0xc2]),
            ("|i1", &[0xfd]),
            ("<i2", &[0xfd, 0xff]),
            ("<i8", &[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ] {
            let array = Array::parse(&file(&header(kind, "True", "(1,)"), data), 9).unwrap();
            assert_eq!((array.shape, array.values), (vec![1], vec![-3.0]), "{kind}");
        }
        assert_eq!(Array::parse(&file(&header("|u1", "False", "()"), &[7]), 1).unwrap().values, [7.0]);
    }

    #[test]
    fn what_is_no_such_array_is_told_and_takes_no_memory() {
        let floats = |order, shape| header("<f4", order, shape);
        for (file, wanted) in [
            (b"PK\x03\x04".to_vec(), "no NumPy file"),
            (MAGIC.to_vec(), "cut short"),
            ([MAGIC, &[9, 0, 0, 0]].concat(), "format 9 is not known"),
            ([MAGIC, &[2, 0, 0, 0, 0, 0x7f]].concat(), "save a plain array"),
            (file(&floats("False", "(2,)"), &[0; 7]), "cut short"),
            (file(&floats("False", "(99999999999, 99999999999)"), &[]), "more than 100 numbers"),
            (file(&floats("True", "(2, 2)"), &[0; 16]), "ascontiguousarray"),
            (file(&floats("Maybe", "(2,)"), &[]), "no fortran_order"),
            (file(&floats("False", "(2, x)"), &[]), "no shape"),
            (file(&header("<c8", "False", "(1,)"), &[0; 8]), "astype(\"float32\")"),
            (
                file("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", &[0; 4]),
                "named fields",
            ),
        ] {
            let fault = Array::parse(&file, 100).unwrap_err();
            assert!(fault.contains(wanted), "{fault}, wanted: {wanted}");
        }
        let whole = file(&floats("False", "(3,)"), &[0; 12]);
        for length in 0..whole.len() {
            assert!(Array::parse(&whole[..length], 100).is_err());
        }
    }
}
