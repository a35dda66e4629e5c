//! From a frame to an answer: decode, pre-process, run, decode the outputs.
//!
//! A frame passes the files in this order: `pixels` (bytes → planes, no larger than needed),
//! `preprocess` (planes → tensor, through the rows of `planes`), `session` (the only file that names the runtime), `postprocess`
//! A frame passes the files in this order: `pixels` (bytes → pixels, no larger than needed),
//! `preprocess` (pixels → tensor), `session` (the only place that names the runtime), `postprocess`
//! `preprocess` (pixels → tensor; a window of samples goes there at once: `feed` knows which), `session` (the only file that names the runtime), `postprocess`
//! (output tensors → boxes and classes in pixels of the original picture); `engine` joins them and takes
//! the time of each. This folder does not know where frames come from in a running device, who decides
//! what runs, or how answers travel on.

pub mod draw;
pub mod engine;
mod front;
pub mod given;
pub mod golden;
pub mod graph_cache;
pub mod hardware;
pub mod inspect;
pub mod library;
mod npy;
pub mod picture;
pub mod pixels;
pub mod planes;
pub mod postprocess;
pub mod preprocess;
pub mod prove;
pub mod reduce;
pub mod samples;
pub mod session;
pub mod source;

pub use engine::{Engine, LoadReport};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tuning_tests;
