//! One plain function over bytes for each parser that sees what somebody else wrote: what the fuzzer
//! calls, and what `tests/it/fuzz.rs` replays the corpus through (it includes this file).
//!
//! A function checks more than "it does not crash": what was read is written and read again, what comes in
//! pieces is compared with what comes at once, and what is asked of the outside is counted.

/// Deltas.
mod deltas;
/// Encrypted models, and the signatures of their makers.
mod makers;
/// The files of models and bundles.
mod models;
/// Frames and the streams that they are cut from.
mod pictures;
/// Signed commands and who may sign them.
mod signed;
/// Signed metadata and the file that carries it.
mod trust;
/// What comes over sockets, and the configuration.
mod words;

/// A name, which is that of the target and of its folder in the corpus, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 19] = [
    ("age", makers::age),
    ("archive", trust::archive),
    ("array", models::array),
    ("command", words::command),
    ("configuration", words::configuration),
    ("delta", deltas::delta),
    ("envelope", signed::envelope),
    ("frame", pictures::frame),
    ("manifest", models::manifest),
    ("messages", words::messages),
    ("mjpeg", pictures::mjpeg),
    ("model_signature", makers::model_signature),
    ("onnx", models::onnx),
    ("operators", signed::operators),
    ("picture", pictures::picture),
    ("repository", trust::repository),
    ("root_metadata", trust::root_metadata),
    ("samples", words::samples),
    ("y4m", pictures::y4m),
];

/// Runs the target of that name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    let (_, function) = target.unwrap_or_else(|| panic!("no target of the name {name}"));
    function(data);
}

/// Takes `N` bytes off the front, zeros where there are none left.
fn take<const N: usize>(data: &mut &[u8]) -> [u8; N] {
    let mut taken = [0; N];
    let length = N.min(data.len());
    let (front, rest) = data.split_at(length);
    taken[..length].copy_from_slice(front);
    *data = rest;
    taken
}

/// The same bytes in pieces, whose lengths the first byte of each decides.
fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let length = usize::from(*rest.first()?) % 61 + 1;
        let (piece, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        Some(piece)
    })
}
