//! The one integration-test binary: real servers, real files, real processes.

mod mqtt;
mod support;
