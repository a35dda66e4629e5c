//! The fuzzer's way to the target `delta` of `edgewarden_fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edgewarden_fuzz::run("delta", data));
