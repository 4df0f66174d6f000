//! The suite of escapes again as an ordinary user and without namespaces, and the end of programs with the process that started
//! them.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Trial, WITHOUT};
use crate::code_eval::sandbox;
use crate::progress::until;
use crate::require::require;

/// Not a test: waits inside a program until it is killed. Used by the next test.
#[test]
#[ignore = "run by another test"]
fn helper_that_waits() {
    let mut trial = Trial::new(sandbox().unwrap(), "def f(): time.sleep(1000)");
    fs::write(std::env::var("RFT_TEST_NOTE").unwrap(), trial.id.to_string()).unwrap();
    trial.call(1000);
}

#[test]
fn programs_are_killed_with_the_process_that_started_them() {
    let Some(_) = sandbox() else { return };
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("note");
    let mut helper = Command::new(std::env::current_exe().unwrap());
    let args = ["sandbox::privileges::helper_that_waits", "--exact", "--ignored", "--test-threads=1"];
    let mut helper = helper.args(args).env("RFT_TEST_NOTE", &note).spawn().unwrap();
    let id = until("the program's id", || fs::read_to_string(&note).ok().filter(|it| !it.is_empty()));
    assert!(Path::new(&format!("/proc/{id}")).exists());
    // SIGKILL, so that the process cannot clean up.
    helper.kill().unwrap();
    helper.wait().unwrap();
    until("the program's end", || (!Path::new(&format!("/proc/{id}")).exists()).then_some(()));
}

/// A folder in which every user can write.
fn shared_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// Runs the suite again with this command; its temporary folder must be empty afterwards.
fn again(mut command: Command, what: &str) {
    let (folder, notes) = (shared_folder(), shared_folder());
    let skipped = notes.path().join("skipped");
    let output = command
        .args(["sandbox::escapes", "--test-threads=2"])
        .env("TMPDIR", folder.path())
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("RFT_TEST_SKIPPED", &skipped)
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {text}");
    assert!(text.contains("test sandbox::escapes::escape_by_proc ... ok"), "{what}: {text}");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{what}: {left:?}");
    if let Ok(skipped) = fs::read_to_string(skipped) {
        let reason = skipped.lines().next().unwrap_or_default();
        require::<()>("sandbox", Err(format!("the suite was not run {what}: {reason}")));
    }
}

#[test]
fn the_escape_suite_passes_as_an_ordinary_user() {
    use std::os::unix::process::CommandExt;
    let is_root = rustix::process::geteuid().is_root();
    let Some(_) = sandbox() else { return };
    let Some(()) = require("root", is_root.then_some(()).ok_or("an ordinary user runs the tests")) else { return };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.uid(65_534).gid(65_534);
    again(command, "as an ordinary user");
}

#[test]
fn the_escape_suite_passes_without_namespaces() {
    let Some(sandbox) = sandbox() else { return };
    let landlock = (sandbox.layers().landlock > 0).then_some(()).ok_or("the kernel lacks it");
    let Some(()) = require("landlock", landlock) else { return };
    // In a user namespace of its own a process may forbid itself any further ones.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let without = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]).arg(program);
        command
    };
    let trial = match without(Path::new("true")).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("start `unshare`: {error}")),
    };
    let Some(()) = require("namespaces", trial) else { return };
    let mut command = without(&std::env::current_exe().unwrap());
    command.env(WITHOUT, "1");
    again(command, "without namespaces");
}
