//! Tests that interrupt work do so at a place in the work and not at a time: they wait for what the work leaves behind, and
//! hold it there. The only limit in seconds is one that ends a test which would otherwise wait forever.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Far longer than anything takes that a test waits for, on any machine.
pub const HANG: Duration = Duration::from_secs(600);

/// Waits until `found` finds something.
#[track_caller]
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < HANG, "waited for {what} for {HANG:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The result of work that may hang.
#[track_caller]
pub fn ends<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let name = thread::current().name().unwrap_or_default().to_owned();
    let worker = thread::Builder::new().name(name).spawn(move || sender.send(work())).unwrap();
    match receiver.recv_timeout(HANG) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} has not ended after {HANG:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(worker.join().unwrap_err()),
    }
}

/// The argument of `--set` for a reward whose command gives 0 to every completion, and can be held. It counts the completions
/// of training steps, without those of evaluations, that runs in its folder have asked it about; see [`hold_after`].
pub fn held_reward() -> String {
    // Without a weight, the command is not tested before the first step.
    format!("reward.custom=[{{name='held', weight=0, timeout={}, command=['sh', '-c', '''{HELD}''']}}]", HANG.as_secs())
}

const HELD: &str = r#"
while read -r line; do
    id=${line#*:}
    case $line in *'"question_id":"train-'*) echo >>asked ;; esac
    until [ ! -e held ] || [ ! -e asked ] || [ "$(wc -l <asked)" -le "$(cat held)" ]; do sleep 0.05; done
    echo "{\"id\":${id%%,*},\"score\":0}"
done
"#;

/// Holds runs in `folder` that have [`held_reward`] when this number of completions of training steps have their reward, until this is
/// called with more or [`release`] is called.
pub fn hold_after(folder: &Path, completions: usize) {
    // A rename, so that no process reads a part.
    fs::write(folder.join("held.part"), completions.to_string()).unwrap();
    fs::rename(folder.join("held.part"), folder.join("held")).unwrap();
}

pub fn release(folder: &Path) {
    fs::remove_file(folder.join("held")).unwrap();
}
