//! The compiled kernels in the binary, and which of them a GPU can run.
//!
//! A build embeds `assets/kernels`, or, with `RFT_BUILD_KERNELS=1`, the output of nvcc (`build.rs`).

use anyhow::{Result, bail};
use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::io::Read;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// The targets and the compiler of the kernels.
pub use embedded::ORIGIN;

/// A compiled file of `src/device/cuda/kernels`.
pub struct Image {
    /// The name of the source, without its extension.
    pub file: &'static str,
    /// Machine code, a fat binary, or PTX with a zero byte at its end: the input of `cuModuleLoadData`.
    pub data: Vec<u8>,
}

/// The images to load on a GPU of this compute capability: one for each file of kernels, sorted by name.
///
/// # Errors
/// If the GPU is older than every image.
pub fn for_capability(capability: (i32, i32)) -> Result<Vec<Image>> {
    let mut chosen = BTreeMap::new();
    for (file, target, data) in embedded::IMAGES {
        let best = chosen.entry(*file).or_insert((None, data));
        let rank = rank(target, capability);
        if rank > best.0 {
            *best = (rank, data);
        }
    }
    let image = |(file, (rank, data)): (&'static str, (Option<_>, &&[u8]))| {
        if rank.is_none() {
            let (major, minor) = capability;
            bail!("no kernels for compute capability {major}.{minor}: `{file}.cu` was compiled for {ORIGIN}");
        }
        Ok(Image { file, data: unpacked(data)? })
    };
    chosen.into_iter().map(image).collect()
}

/// How well code for `target` suits a GPU; larger is better. `None` if the code cannot run on it.
fn rank(target: &str, (major, minor): (i32, i32)) -> Option<(bool, i32)> {
    let Some((kind, number)) = target.split_once('_') else { return Some((false, 0)) };
    let number: i32 = number.parse().ok()?;
    // Machine code runs on its own generation, from its own version on. PTX is compiled by the driver, for any later
    // GPU.
    let machine_code = kind == "sm";
    let runs = number <= 10 * major + minor && (!machine_code || number / 10 == major);
    runs.then_some((machine_code, number))
}

fn unpacked(data: &[u8]) -> Result<Vec<u8>> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    if !data.starts_with(GZIP) {
        return Ok(data.to_vec());
    }
    let mut unpacked = Vec::new();
    GzDecoder::new(data).read_to_end(&mut unpacked)?;
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Whether the images were made by nvcc: then the driver chooses among their contents, which are compressed.
    fn built_here() -> bool {
        embedded::IMAGES.iter().any(|(_, target, _)| *target == "all")
    }

    fn images(capability: (i32, i32)) -> Vec<Image> {
        for_capability(capability).unwrap()
    }

    /// The names of the kernels in PTX.
    fn entries(ptx: &[u8]) -> Vec<String> {
        let text = std::str::from_utf8(ptx).unwrap();
        let names = text.lines().filter_map(|line| line.split_once(".entry ")).map(|(_, name)| name);
        names.map(|name| name.trim_end_matches('(').to_owned()).collect()
    }

    #[test]
    fn every_gpu_gets_the_code_that_suits_it() {
        if built_here() {
            return;
        }
        let runs = |target: &str, capability| rank(target, capability).is_some();
        assert!(runs("sm_80", (8, 9)) && !runs("sm_80", (9, 0)) && !runs("sm_90", (8, 0)));
        assert!(runs("compute_90", (12, 0)) && !runs("compute_90", (8, 9)));
        for capability in [(8, 0), (8, 6), (8, 9), (9, 0)] {
            assert!(images(capability).iter().all(|it| it.data.starts_with(b"\x7fELF")), "{capability:?}");
        }
        let machine = |capability| images(capability).swap_remove(0).data;
        assert_eq!(machine((8, 0)), machine((8, 9)));
        assert_ne!(machine((8, 0)), machine((9, 0)));
        for capability in [(10, 0), (12, 0)] {
            assert!(images(capability).iter().all(|it| it.data.starts_with(b"//") && it.data.ends_with(b"\0")));
        }
        let error = for_capability((7, 5)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("compute capability 7.5"), "{error}");
    }

    #[test]
    fn the_images_contain_the_same_kernels_and_they_are_launched() {
        if built_here() {
            return;
        }
        let mut kernels = BTreeSet::new();
        for ((ptx, ampere), hopper) in images((12, 0)).iter().zip(images((8, 0))).zip(images((9, 0))) {
            for name in entries(&ptx.data) {
                let section = format!(".text.{name}\0");
                for code in [&ampere.data, &hopper.data] {
                    let found = code.windows(section.len()).any(|it| it == section.as_bytes());
                    assert!(found, "{}: {name}", ptx.file);
                }
                assert!(kernels.insert(name), "two kernels with the same name");
            }
        }

        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/device/cuda");
        let sources = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let sources = sources.filter(|it| it.extension().is_some_and(|it| it == "rs") && !it.ends_with("images.rs"));
        let text: String = sources.map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let text: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for name in &kernels {
            assert!(text.contains(&format!("{name:?}")), "nothing launches `{name}`");
        }
        let launches = regex::Regex::new(r#"launch!\(\s*[\w.]+,\s*"(\w+)""#).unwrap();
        let launched: BTreeSet<&str> = launches.captures_iter(&text).map(|it| it.extract::<1>().1[0]).collect();
        assert!(launched.len() > 10, "{launched:?}");
        let missing: Vec<_> = launched.into_iter().filter(|name| !kernels.contains(*name)).collect();
        assert!(missing.is_empty(), "not in the images: {missing:?}\nhint: run scripts/kernels.sh");
    }
}
