//! The fuzzer's way to the target `root_metadata` of `edgewarden_fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edgewarden_fuzz::run("root_metadata", data));
