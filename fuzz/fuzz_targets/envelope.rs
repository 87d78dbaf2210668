#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| token_supervisor::fuzz::envelope(data));
