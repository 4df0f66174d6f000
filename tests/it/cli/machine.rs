//! What the commands print about the machine.

use super::{error, folder, rft};

/// Commands that need a GPU name what is missing, and do not run on a CPU.
#[test]
fn gpu_commands_name_what_is_missing() {
    for command in [vec!["selftest"], vec!["perf", "decode"]] {
        if rft::device::gpus() == 0 {
            let said = error(&folder(), &command);
            assert!(said.contains("no CUDA driver") && said.contains("hint: run `rft doctor`"), "{said}");
        }
        let on_cpu = [&command[..], &["--device", "cpu"]].concat();
        assert!(error(&folder(), &on_cpu).contains("hint: `cargo "));
    }
}

#[test]
fn doctor_reports_the_layers_of_the_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    let doctor = |args: &[&str]| rft(folder.path()).arg("doctor").args(args).output().unwrap();
    let output = doctor(&["--output-format", "json"]);
    assert!(output.status.success());
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["cuda"]["driver"].is_null(), rft::device::gpus() == 0, "{found}");
    assert!(found["folders"].as_array().unwrap().iter().all(|it| it["free"].as_u64() > Some(0)), "{found}");
    match rft::sandbox::Sandbox::probe(false) {
        Ok(sandbox) => {
            assert_eq!(found["sandbox"]["layers"], serde_json::to_value(sandbox.layers()).unwrap());
            assert!(String::from_utf8(doctor(&[]).stdout).unwrap().contains(&sandbox.layers().python));
        }
        Err(error) => assert!(found["sandbox"]["failures"][0].as_str().unwrap().contains(&error.to_string())),
    }
}
