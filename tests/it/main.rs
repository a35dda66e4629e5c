//! The one integration-test binary: real processes, real servers.

mod process;
