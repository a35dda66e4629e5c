//! From a frame to an answer: decode, pre-process, run, decode the outputs.
//!
//! A picture passes the files in this order: `pixels` (bytes → planes, no larger than needed),
//! `preprocess` (planes → tensor, through the rows of `planes`), `session` (with the folder beside it the
//! only place that names the runtime), `postprocess` (output tensors → boxes and classes in pixels of the
//! original picture). A window of samples goes into the tensor at once (`preprocess/series`). `preparer`
//! knows which of the two a model takes; `engine` joins everything and takes the time of each stage.
//! Where frames come from is in `source`, and no other file here knows it. This folder does not know who
//! decides what runs, or how answers travel on.
//!
//! The program is shipped built for size, but for the functions with a name `hot_…`: they see every pixel or every
//! value of a frame (`packaging/small.sh`). Such a function is not generic, and what it is to be fast with is inlined
//! into it.

pub mod draw;
pub mod engine;
pub mod given;
pub mod golden;
pub mod graph_cache;
pub mod hardware;
pub mod inspect;
pub mod library;
pub mod npy;
pub mod picture;
pub mod pixels;
pub mod planes;
pub mod postprocess;
mod preparer;
pub mod preprocess;
pub mod prove;
pub mod reduce;
pub mod samples;
pub mod session;
pub mod shrink;
pub mod source;

pub use engine::{Engine, LoadReport};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tuning_tests;
