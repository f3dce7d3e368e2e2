//! libFuzzer under the tests that feed parsers of outside bytes: they are private, so their own tests call it. Built only
//! with `--cfg fuzzing`, by `scripts/fuzz-parsers`.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int};
use std::path::Path;
use std::time::Duration;

type Feed<'a> = &'a dyn Fn(&[u8]);

thread_local! {
    static FED: Cell<Option<Feed<'static>>> = const { Cell::new(None) };
}

unsafe extern "C" {
    /// <https://llvm.org/docs/LibFuzzer.html#using-libfuzzer-as-a-library>
    fn LLVMFuzzerRunDriver(
        argc: *mut c_int,
        argv: *mut *mut *mut c_char,
        callback: extern "C" fn(*const u8, usize) -> c_int,
    ) -> c_int;
}

/// Where libFuzzer's own `main` would lead; it is never called.
#[expect(improper_ctypes_definitions, reason = "as libfuzzer-sys declares it")]
#[unsafe(no_mangle)]
extern "C" fn rust_fuzzer_test_input(_: &[u8]) -> i32 {
    0
}

extern "C" fn fed(bytes: *const u8, length: usize) -> c_int {
    let bytes = match length {
        0 => &[][..],
        // SAFETY: libFuzzer gives a buffer of this length, for this call.
        _ => unsafe { std::slice::from_raw_parts(bytes, length) },
    };
    if let Some(feed) = FED.get() {
        feed(bytes);
    }
    0
}

/// Feeds seeds and what coverage makes of them, for so long. Then the process ends: well, or, after a panic, an input that
/// takes too long or too much memory, with that input in `folder`.
///
/// # Panics
/// The folder cannot be written.
pub fn run(seeds: &[&[u8]], time: Duration, folder: &Path, feed: Feed<'_>) -> ! {
    let corpus = folder.join("corpus");
    std::fs::create_dir_all(&corpus).expect("a folder for inputs");
    for (at, seed) in seeds.iter().enumerate() {
        std::fs::write(corpus.join(format!("seed-{at}")), seed).expect("a seed is written");
    }
    let arguments = [
        "fuzzing".to_owned(),
        format!("-max_total_time={}", time.as_secs()),
        "-max_len=4096".to_owned(),
        "-timeout=5".to_owned(),
        "-print_final_stats=1".to_owned(),
        format!("-artifact_prefix={}/", folder.display()),
        corpus.display().to_string(),
    ];
    let arguments = arguments.map(|text| CString::new(text).expect("no zero in it"));
    let mut pointers: Vec<*mut c_char> = arguments
        .iter()
        .map(|text| text.as_ptr().cast_mut())
        .chain([std::ptr::null_mut()])
        .collect();
    // A panic ends the process before it unwinds into C++.
    libfuzzer_sys::initialize(std::ptr::null(), std::ptr::null());
    // SAFETY: it is called from this thread only, before this function ends, and that never returns.
    FED.set(Some(unsafe {
        std::mem::transmute::<Feed<'_>, Feed<'static>>(feed)
    }));
    let mut count = c_int::try_from(arguments.len()).expect("a few");
    let mut argv = pointers.as_mut_ptr();
    // SAFETY: both are valid until the process ends.
    let code = unsafe { LLVMFuzzerRunDriver(&raw mut count, &raw mut argv, fed) };
    std::process::exit(code)
}
