//! What a file is: any bytes give a description or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = msao_sandbox::inspect(bytes);
});
