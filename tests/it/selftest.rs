//! The self-test of the CUDA path, on the emulated GPU of tests/device.

use crate::cli::{folder, rft_path};
use crate::device::on_device;
use std::path::Path;
use std::process::Command;

/// Groups of checks of more than a single operation.
const WHOLE: [&str; 5] = ["decoder", "checkpointing", "rollout", "memory", "training"];

/// The output of the self-test for these groups, one JSON object per check.
fn selftest(groups: &[String], settings: &[(&str, &str)], more: &[&str]) -> Option<String> {
    let folder = folder();
    let mut command = on_device(folder.path(), settings)?;
    command.args(["selftest", "--output-format=json", &format!("--filter={}", groups.join(","))]).args(more);
    let output = command.output().unwrap();
    let (checks, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let failed: Vec<&str> = checks.lines().filter(|line| line.contains("\"ok\":false")).collect();
    assert!(output.status.success(), "{}: {said}{}", output.status, failed.join("\n"));
    Some(checks)
}

/// The groups of checks, in their order.
fn groups() -> Vec<String> {
    let output = Command::new(rft_path()).args(["selftest", "--list"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn all_checks_pass() {
    let groups: Vec<String> = groups().into_iter().filter(|name| name != "rollout").collect();
    assert!(WHOLE.iter().filter(|name| **name != "rollout").all(|name| groups.iter().any(|it| it == name)));
    let Some(checks) = selftest(&groups, &[], &[]) else { return };
    for group in groups {
        assert!(checks.contains(&format!("\"name\":\"{group}: ")), "nothing was checked of {group}");
    }
}

/// If a kernel's bits depend on which thread comes first, it lacks a barrier. In one of the orders, buffers end where
/// memory ends, so that nothing is read or written past them.
#[test]
fn results_do_not_depend_on_the_order_of_threads() {
    let operations: Vec<String> = groups().into_iter().filter(|name| !WHOLE.contains(&name.as_str())).collect();
    let Some(forward) = selftest(&operations, &[], &[]) else { return };
    let reverse = [("RFT_EMU_ORDER", "reverse"), ("RFT_EMU_ALIGN", "16")];
    assert!(selftest(&operations, &reverse, &["--guarded"]).unwrap() == forward, "reverse");
    assert!(selftest(&operations, &[("RFT_EMU_ORDER", "shuffled")], &[]).unwrap() == forward, "shuffled");
}

/// Some of the faults of scripts/planted-faults.sh, which plants more of them and runs more checks.
#[test]
fn planted_faults_fail_in_their_group() {
    let folder = folder();
    // Builds the device, or skips the test.
    let Some(_) = on_device(folder.path(), &[]) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/planted-faults.sh");
    let mut command = Command::new(script);
    command.arg(rft_path()).args(["future-token", "rope-position", "uncorrected-adamw"]);
    let output = command.env("GROUPS_OF_CHECKS", "rope,adamw,attention").output().unwrap();
    let (table, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{table}{said}");
    assert_eq!(table.lines().filter(|line| line.contains(" found ")).count(), 3, "{table}");
}
