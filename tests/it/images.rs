//! The compiled kernels in `assets/kernels` match the sources.

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

const HINT: &str = "hint: run scripts/kernels.sh";

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn manifest() -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/kernels/manifest.toml");
    fs::read_to_string(path).unwrap().parse().unwrap()
}

#[test]
fn images_are_compiled_from_the_current_kernels() {
    let mut hash = Sha256::new();
    for path in files("src/device/cuda/kernels") {
        let text = fs::read(&path).unwrap();
        hash.update(format!("{} {}\n", name(&path), text.len()));
        hash.update(text);
    }
    let recorded = manifest()["sources"].as_str().unwrap().to_owned();
    assert_eq!(hex(hash), recorded, "the kernels have changed since assets/kernels was made\n{HINT}");
}

#[test]
fn images_match_the_manifest() {
    let found: BTreeMap<String, String> = files("assets/kernels")
        .into_iter()
        .filter(|path| !path.ends_with("manifest.toml"))
        .map(|path| {
            let mut image = Vec::new();
            GzDecoder::new(fs::File::open(&path).unwrap()).read_to_end(&mut image).unwrap();
            (name(&path), hex(Sha256::new_with_prefix(image)))
        })
        .collect();
    let recorded = manifest()["images"].clone().try_into().unwrap();
    assert_eq!(found, recorded, "{HINT}");
    let sources = files("src/device/cuda/kernels").iter().filter(|it| it.extension().unwrap() == "cu").count();
    assert_eq!(found.len(), 3 * sources, "three images for each file of kernels\n{HINT}");
}
