//! The sandbox: programs that try to escape, what programs receive and return, and the privileges that the tests run with.

mod calls;
mod escapes;
mod privileges;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rft::sandbox::{CallOutcome, Program, PythonValue, Sandbox, SandboxLimits, SandboxSession};

use crate::code_eval::sandbox;

/// Set in a run of the suite that has no namespaces.
const WITHOUT: &str = "RFT_TEST_WITHOUT_NAMESPACES";

/// Seconds that are more than a program here needs that ends by itself.
const LONG: u64 = 120;

/// Definitions that the programs share.
const PRELUDE: &str = r#"
import ctypes, gc, os, sys, threading, time

def tries(*acts):
    "The acts that went through without an error."
    done = []
    for number, act in enumerate(acts):
        try:
            act()
        except Exception:
            continue
        done.append(number)
    return done

def syscall(*arguments):
    "The error number of a system call; 0 if there is none."
    library = ctypes.CDLL(None, use_errno=True)
    answer = library.syscall(*[ctypes.c_long(it) if isinstance(it, int) else it for it in arguments])
    return ctypes.get_errno() if answer == -1 else 0
"#;

/// A program, and a folder of the test that it must not touch.
struct Trial {
    outside: tempfile::TempDir,
    session: SandboxSession,
    id: u32,
    /// The process namespace.
    namespace: Option<PathBuf>,
}

impl Trial {
    /// Loads a program, in which `OUTSIDE` is the folder's path.
    fn new(sandbox: &Sandbox, source: &str) -> Trial {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "the secret").unwrap();
        let source = format!("{PRELUDE}\nOUTSIDE = {:?}\n{source}", outside.path().to_str().unwrap());
        let limits = SandboxLimits::time(Duration::from_secs(10 * LONG));
        let session = sandbox.load(&Program { source: &source, entry_point: "f" }, &limits).unwrap();
        let id = session.process_id();
        Trial { outside, session, id, namespace: fs::read_link(format!("/proc/{id}/ns/pid")).ok() }
    }

    fn call(&mut self, seconds: u64) -> CallOutcome {
        self.session.call(&[], Duration::from_secs(seconds))
    }

    /// Ends the program, and checks that it has left nothing and changed nothing.
    fn end(self) {
        let Trial { outside, session, id, namespace } = self;
        let own = fs::read_link("/proc/self/ns/pid").ok();
        drop(session);
        assert!(!Path::new(&format!("/proc/{id}")).exists(), "process {id} is still there");
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(stat) = fs::read_to_string(process.path().join("stat")) else { continue };
            // After the name, which may contain anything: state, parent, group, session.
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            assert!(fields[2] != id.to_string() && fields[3] != id.to_string(), "left behind: {stat}");
            let its = fs::read_link(process.path().join("ns/pid")).ok();
            let is_inside = namespace.is_some() && namespace != own && its == namespace;
            assert!(!is_inside, "left behind: {stat}");
        }
        let names: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        let secret = outside.path().join("secret");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "the secret");
        let links = std::os::unix::fs::MetadataExt::nlink(&fs::metadata(&secret).unwrap());
        assert_eq!(links, 1, "a hard link was made");
        let prefix = format!("rft-escape-{id}");
        for folder in [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into(), "/dev/shm".into(), ".".into()] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                assert!(!entry.file_name().to_string_lossy().starts_with(&prefix), "{entry:?}");
            }
        }
    }
}

/// Runs a program once, for at most this many seconds; `None` if the sandbox does not work, so that the test is skipped.
fn outcome(source: &str, seconds: u64) -> Option<CallOutcome> {
    let mut trial = Trial::new(sandbox()?, source);
    let outcome = trial.call(seconds);
    trial.end();
    Some(outcome)
}

/// The program returns an empty list: none of its attempts succeeded.
fn nothing_goes_through(source: &str) {
    let Some(outcome) = outcome(source, LONG) else { return };
    assert_eq!(outcome, CallOutcome::Value(PythonValue::List(Vec::new())), "{source}");
}

/// The program returns error numbers, all of them "no such call".
fn no_such_calls(source: &str) {
    let Some(outcome) = outcome(source, LONG) else { return };
    let CallOutcome::Value(PythonValue::List(errors)) = &outcome else { panic!("{outcome:?}") };
    assert!(!errors.is_empty() && errors.iter().all(|it| *it == PythonValue::int(38)), "{errors:?}");
}

fn dies(source: &str, how: &str) {
    let Some(outcome) = outcome(source, LONG) else { return };
    assert!(matches!(&outcome, CallOutcome::Died(why) if why.contains(how)), "{outcome:?}");
}

/// The program ends by `os._exit(0)`. On a busy machine that can take longer than the fifth of a second that a process has
/// to end in after it has closed its channel, and then it is killed.
fn exits(source: &str) {
    let Some(outcome) = outcome(source, LONG) else { return };
    let is_expected = |why: &str| why.contains("exit status 0") || why.contains("SIGKILL");
    assert!(matches!(&outcome, CallOutcome::Died(why) if is_expected(why)), "{outcome:?}");
}
