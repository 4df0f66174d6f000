//! What some tests need and a machine may lack. A test that lacks it is skipped: it prints the reason, is counted in the file
//! that `RFT_TEST_SKIPPED` names, and passes. It fails instead where `RFT_TEST_REQUIRE` lists what is missing.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// The names that `RFT_TEST_REQUIRE` can list, separated by commas.
const NAMES: [&str; 10] = [
    "browser",           // Chromium
    "data",              // RFT_DATA_DIR names a folder with the published data sets
    "emulated-gpu",      // a C++ compiler, to build tests/device
    "evalplus-verdicts", // RFT_EVALPLUS_VERDICTS names the output of tests/oracle/evalplus.py
    "landlock",          // the kernel's Landlock
    "llama-cpp",         // RFT_LLAMA_CPP is a Python with the package xllamacpp
    "models",            // RFT_MODELS_DIR names a folder with real models
    "namespaces",        // user namespaces
    "root",              // the tests run as root, so that they can become another user
    "sandbox",           // python3, and what of the kernel the sandbox for programs needs
];

/// The value of `found`. Where it is an error, the reason, the test is skipped: this returns `None`, and so should the test.
pub fn require<T>(name: &str, found: Result<T, impl Display>) -> Option<T> {
    assert!(NAMES.contains(&name), "`{name}` is not in the list of requirements");
    let required = std::env::var("RFT_TEST_REQUIRE").unwrap_or_default();
    let mut required = required.split(',').map(str::trim).filter(|it| !it.is_empty());
    let is_required = required.clone().any(|it| it == name);
    if let Some(unknown) = required.find(|it| !NAMES.contains(it)) {
        panic!("RFT_TEST_REQUIRE: `{unknown}` is not one of {}", NAMES.join(", "));
    }
    let reason = match found {
        Ok(found) => return Some(found),
        // Without a hint, which is on the next line.
        Err(reason) => format!("{name}: {reason:#}").lines().next().unwrap_or_default().to_owned(),
    };
    assert!(!is_required, "RFT_TEST_REQUIRE lists `{name}`, which is missing here: {reason}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    eprintln!("skipped: {reason}");
    if let Some(path) = std::env::var_os("RFT_TEST_SKIPPED") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(format!("{test}\t{reason}\n").as_bytes()).unwrap();
    }
    None
}

/// The folder that a variable of the environment names, or none and the test is skipped.
fn folder(name: &str, variable: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from);
    require(name, folder.ok_or_else(|| format!("{variable} is not set")))
}

/// The folder with the published data sets.
pub fn data() -> Option<PathBuf> {
    folder("data", "RFT_DATA_DIR")
}

/// The folder with real models.
pub fn models() -> Option<PathBuf> {
    folder("models", "RFT_MODELS_DIR")
}

/// The output of `tests/oracle/evalplus.py`.
pub fn evalplus_verdicts() -> Option<PathBuf> {
    folder("evalplus-verdicts", "RFT_EVALPLUS_VERDICTS")
}

/// A file of the published data sets or of a real model, where its folder is there and may lack it.
pub fn file(name: &str, path: PathBuf) -> Option<PathBuf> {
    let found = if path.is_file() { Ok(path) } else { Err(format!("there is no {}", path.display())) };
    require(name, found)
}
