//! The algorithms of matrix products on a GPU: measured, stored, used by later runs, and kept by a resumed run.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::cli::folder;
use crate::device::{TRAIN, on_device, succeeded};
use crate::train::Trace;

const SETUP: &str = "Emulated H200, cuBLASLt 130000";

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The choices that `rft perf tune` has stored, with the emulated library's last algorithm for every product: its
/// measurements are random, and this one gives other bits than the first suggestion.
fn store_last_algorithms(folder: &Path) -> Option<()> {
    let mut command = on_device(folder, &[])?;
    command.args(["perf", "tune", "--model-shape=tiny", "--lora-rank=16", "--rows=8"]);
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = succeeded(output);
    let products = printed.lines().count();
    assert!(products > 10 && printed.lines().all(|line| line.contains("suggestion ")), "{printed}");
    assert!(said.contains(&format!("{products} products, ")), "{said}");

    let path = folder.join("rft/products.json");
    let mut stored = read(&path);
    let products = stored[SETUP].as_object_mut().unwrap();
    for algorithm in products.values_mut() {
        let text = algorithm.as_str().unwrap();
        *algorithm = format!("{}{:016x}", &text[..112], 2).into();
    }
    fs::write(path, stored.to_string()).unwrap();
    Some(())
}

#[test]
fn a_run_keeps_the_algorithms_that_it_started_with() {
    let (plain, tuned) = (folder(), folder());
    let Some(()) = store_last_algorithms(tuned.path()) else { return };
    for folder in [&plain, &tuned] {
        succeeded(on_device(folder.path(), &[]).unwrap().args(TRAIN).arg("--device=cuda").output().unwrap());
    }
    let run = tuned.path().join("runs/run");
    let (plain, whole) = (Trace::of(&plain.path().join("runs/run")), Trace::of(&run));
    assert!(plain.metrics != whole.metrics, "other algorithms give the same bits");
    let kept = read(&run.join("products.json"));
    let stored = read(&tuned.path().join("rft/products.json"));
    let kept = kept[SETUP].as_object().unwrap();
    assert!(stored[SETUP].as_object().unwrap().iter().all(|(shape, algorithm)| kept.get(shape) == Some(algorithm)));

    // Resumed after the first step, with no stored choices: the run's own file is used, and without it the bits differ.
    let resume = |name: &str, settings: &[(&str, &str)], change: &dyn Fn(&Path)| {
        let folder = folder();
        let copy = folder.path().join(name);
        copy_folder(&run, &copy);
        fs::remove_dir_all(copy.join("checkpoints/step-000002")).unwrap();
        change(&copy);
        let mut command = on_device(folder.path(), settings).unwrap();
        let said = succeeded(command.args(["train", "--resume", name]).output().unwrap());
        (said, Trace::of(&copy), read(&copy.join("products.json")))
    };
    let (said, trace, _) = resume("same", &[], &|_| ());
    assert!(!said.contains("warning: "), "{said}");
    trace.assert_same(&whole);
    let (_, trace, _) = resume("without", &[], &|copy| fs::remove_file(copy.join("products.json")).unwrap());
    assert!(trace.metrics != whole.metrics, "the file of the run was not used");

    let (said, _, products) = resume("elsewhere", &[("RFT_EMU_GPU", "a100")], &|_| ());
    let warning =
        format!("warning: started on {SETUP}, resumed on Emulated A100, cuBLASLt 130000: the results will differ");
    assert!(said.contains(&warning), "{said}");
    assert_eq!(products.as_object().unwrap().len(), 2, "the choices of the first GPU are kept");
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.is_dir() { copy_folder(&entry, &to) } else { _ = fs::copy(entry, to).unwrap() }
    }
}
