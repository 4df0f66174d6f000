//! Every call of a short run that changes a file fails once: the disk is full, the disk does not work, only a part of the bytes is
//! written, or the process is killed. No saved checkpoint may be lost, and no run may end without an error and with other
//! results.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use rft::disk::atomic::{self, commit_dir, verify_dir, write_error};
use rft::disk::files::{self, FileSystem};
use tempfile::TempDir;

use crate::train::without_clocks;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// ENOSPC; a write has written half of its bytes before.
    NoSpace,
    /// EIO; nothing is done.
    Broken,
    /// A write writes half of its bytes and returns their number, which is not an error.
    Short,
    /// SIGKILL: a write has written half of its bytes, the removal of a folder has removed one file.
    Kill,
}

const FAULTS: [Fault; 4] = [Fault::NoSpace, Fault::Broken, Fault::Short, Fault::Kill];

/// The file system of a child process: lists its calls in a file, and lets one of them fail.
struct FaultyFiles {
    list: Mutex<File>,
    calls: AtomicUsize,
    fault: Option<(usize, Fault)>,
}

const LIST: &str = "RFT_TEST_CALLS";
const FAULT: &str = "RFT_TEST_FAULT";
const WORK: &str = "RFT_TEST_WORK";

impl FaultyFiles {
    fn from_environment() -> Self {
        let list = OpenOptions::new().create(true).append(true).open(std::env::var(LIST).unwrap()).unwrap();
        let fault = std::env::var(FAULT).ok().map(|text| {
            let (call, kind) = text.split_once(' ').unwrap();
            (call.parse().unwrap(), FAULTS[kind.parse::<usize>().unwrap()])
        });
        Self { list: Mutex::new(list), calls: AtomicUsize::new(0), fault }
    }

    fn call<T>(
        &self,
        name: &str,
        path: &Path,
        real: impl FnOnce() -> io::Result<T>,
        half: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let fault = self.fault.filter(|(call, _)| *call == number).map(|(_, fault)| fault);
        let result = match fault {
            None => real(),
            Some(Fault::NoSpace) => {
                _ = half();
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            Some(Fault::Broken) => Err(io::Error::from_raw_os_error(libc::EIO)),
            Some(Fault::Short) => half(),
            Some(Fault::Kill) => {
                _ = half();
                let process = rustix::process::getpid();
                rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
                unreachable!("this process was killed")
            }
        };
        let end = if result.is_ok() { "ok" } else { "failed" };
        // A single write, so that a kill does not truncate it.
        self.list.lock().unwrap().write_all(format!("{name}\t{end}\t{}\n", path.display()).as_bytes()).unwrap();
        result
    }

    /// A call that has no half.
    fn whole<T>(&self, name: &str, path: &Path, real: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.call(name, path, real, || Err(io::Error::other("not done")))
    }
}

impl FileSystem for FaultyFiles {
    fn open(&self, path: &Path, options: &OpenOptions) -> io::Result<File> {
        self.whole("open", path, || options.open(path))
    }

    fn write(&self, file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<usize> {
        // Both closures need the file.
        let file = &*file;
        let part = bytes.len().div_ceil(2);
        self.call("write", path, || (&*file).write(bytes), || (&*file).write_all(&bytes[..part]).map(|()| part))
    }

    fn set_len(&self, file: &File, path: &Path, length: u64) -> io::Result<()> {
        self.whole("truncate", path, || file.set_len(length))
    }

    fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        self.whole("sync", path, || file.sync_all())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole("rename", to, || fs::rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.whole("remove", path, || fs::remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let half = || {
            let first = fs::read_dir(path)?.flatten().map(|it| it.path()).find(|it| it.is_file());
            first.map_or(Ok(()), fs::remove_file)
        };
        self.call("remove folder", path, || fs::remove_dir_all(path), half)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.whole("create folder", path, || fs::create_dir(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.whole("create folder", path, || fs::create_dir_all(path))
    }
}

/// The work of a child process: a command, or the replacement of a folder.
#[test]
#[ignore = "run by the other tests"]
fn child() {
    files::replace(Box::new(FaultyFiles::from_environment()));
    let work = std::env::var(WORK).unwrap();
    let done = if work == SAVE {
        save_checkpoints()
    } else {
        rft::cli::run(rft::cli::Cli::parse_from(work.lines())).map(drop)
    };
    if let Err(error) = done {
        rft::cli::report(&error);
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// Runs `work` in `folder` and lets a call fail. Returns its output and the calls.
fn run(folder: &Path, work: &str, fault: Option<(usize, Fault)>) -> (Output, Vec<Call>) {
    let list = folder.join("calls");
    _ = fs::remove_file(&list);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", "disk_faults::child"]).current_dir(folder);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RFT_")) {
        command.env_remove(name);
    }
    command.env(LIST, &list).env(WORK, work);
    if let Some((call, fault)) = fault {
        let kind = FAULTS.iter().position(|it| *it == fault).unwrap();
        command.env(FAULT, format!("{call} {kind}"));
    }
    let output = command.output().unwrap();
    let calls = fs::read_to_string(&list).unwrap_or_default();
    (output, calls.lines().map(Call::parse).collect())
}

/// A call that changed a file, or should have.
#[derive(Clone)]
struct Call {
    name: String,
    ok: bool,
    path: PathBuf,
}

impl Call {
    fn parse(line: &str) -> Self {
        let mut parts = line.split('\t').map(str::to_owned);
        let mut next = || parts.next().unwrap();
        Self { name: next(), ok: next() == "ok", path: next().into() }
    }
}

/// The checkpoints that the process had saved: renamed to their name, after which their folder was synced.
fn saved(calls: &[Call]) -> Vec<PathBuf> {
    let mut saved = Vec::new();
    for (at, call) in calls.iter().enumerate().filter(|(_, it)| it.name == "rename" && it.ok) {
        let name = call.path.file_name().unwrap().to_string_lossy();
        let synced = calls.get(at + 1).is_some_and(|it| it.name == "sync" && it.ok);
        if name.starts_with("step-") && !name.contains('.') && synced {
            saved.push(call.path.clone());
        }
    }
    saved
}

/// Work whose calls fail, and how it is continued.
struct Scenario {
    name: &'static str,
    /// The arguments, one per line.
    work: String,
    /// Continues the work after an error.
    resume: String,
    /// The folder of the results.
    results: &'static str,
    /// What is there before.
    before: Option<PathBuf>,
}

impl Scenario {
    /// All scenarios. What they start from is written to `folder`.
    fn all(folder: &Path) -> [Self; 5] {
        let sets = [
            "rollout.prompts_per_step=2",
            "rollout.num_generations=2",
            "rollout.max_completion_length=24",
            "lora.target_modules=[\"q_proj\"]",
            "lora.r=2",
            "train.save_steps=1",
            "eval.questions=2",
            "eval.every=2",
        ];
        let sets: String = sets.iter().map(|set| format!("\n--set={set}")).collect();
        let train = format!("rft\ntrain\n--ppe=null-example\n--threads=1\n--device=cpu\n--steps=3\n--name=run{sets}");
        let trained = folder.join("trained");
        fs::create_dir(&trained).unwrap();
        assert!(run(&trained, &train, None).0.status.success());

        // Left by an earlier process: a checkpoint without its list, and a part of another.
        let damaged = folder.join("damaged");
        for name in ["step-000001", "step-000002.tmp"] {
            fs::create_dir_all(damaged.join("saved").join(name)).unwrap();
            fs::write(damaged.join("saved").join(name).join("state"), "torn").unwrap();
        }
        let eval =
            "rft\neval\n--bench=arithmetic\n--limit=4\n--max-tokens=24\n--adapter=runs/run\n--out=out\n--threads=1";
        let merge = "rft\nmerge\nruns/run\n--out=out";
        let gguf = "rft\nmerge\nruns/run\n--gguf\n--dtype=q8_0\n--out=out/model.gguf";
        let resume = "rft\ntrain\n--resume=runs/run\n--threads=1";
        let again = |name, work: &str, results, before| Self {
            name,
            work: work.to_owned(),
            resume: work.to_owned(),
            results,
            before: Some(before),
        };
        [
            Self { name: "train", work: train, resume: resume.to_owned(), results: "runs/run", before: None },
            again("eval", eval, "out", trained.clone()),
            again("merge", merge, "out", trained.clone()),
            again("merge to GGUF", gguf, "out", trained),
            again("save over damaged checkpoints", SAVE, "saved", damaged),
        ]
    }

    fn start(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        if let Some(before) = &self.before {
            for (name, bytes) in tree(before) {
                let path = folder.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
        }
        folder
    }

    /// The calls and the results without a fault.
    fn undisturbed(&self) -> (Vec<Call>, Results) {
        let folder = self.start();
        let (output, calls) = run(folder.path(), &self.work, None);
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        (calls, Results::of(&folder.path().join(self.results)))
    }

    /// Lets a call fail, continues the work, and compares the results.
    fn check(&self, call: usize, fault: Fault, expected: &Results) -> Verdict {
        let folder = self.start();
        let results = || Results::of(&folder.path().join(self.results));
        let (output, calls) = run(folder.path(), &self.work, Some((call, fault)));
        let saved = saved(&calls);
        let lost = |saved: &&PathBuf| verify_dir(&folder.path().join(saved)).is_err();
        let mut verdict = Verdict { lost: saved.iter().filter(lost).count(), ..Verdict::default() };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            verdict.silent = results() != *expected;
            return verdict;
        }
        verdict.failed = true;
        // A short write is not an error, and every error is reported.
        let killed = output.status.code().is_none();
        let named = said.contains("error: ") && said.contains("write `");
        verdict.unreported = killed != (fault == Fault::Kill) || !(killed || named);
        if fault == Fault::Short || verdict.unreported {
            verdict.note = said;
        }

        let (output, _) = run(folder.path(), &self.resume, None);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            // The steps up to the last checkpoint are not trained again.
            let trained_again = (1..=saved.len()).any(|step| said.contains(&format!("step {step}/")));
            verdict.lost += usize::from(trained_again);
            verdict.silent = results() != *expected;
        } else if results() != *expected {
            // Without a checkpoint, the run can be started again.
            verdict.lost += usize::from(!saved.is_empty());
            verdict.stuck = saved.is_empty() && self.resume == self.work || !said.contains("hint: ");
            verdict.note += &said;
        }
        verdict
    }
}

const SAVE: &str = "save";

/// Saves a checkpoint over a damaged one, and another one twice.
fn save_checkpoints() -> anyhow::Result<()> {
    for step in ["saved/step-000001", "saved/step-000002", "saved/step-000002"] {
        commit_dir(Path::new(step), |folder| {
            files::create_dir_all(&folder.join("adapter")).map_err(|error| write_error(folder, &error))?;
            atomic::write(&folder.join("adapter/weights"), b"weights")?;
            atomic::write(&folder.join("state"), b"state")
        })?;
    }
    Ok(())
}

/// What a fault did.
#[derive(Default)]
struct Verdict {
    /// The work ended with an error, or was killed.
    failed: bool,
    /// Saved checkpoints that cannot be read, or were not used.
    lost: usize,
    /// The work ended without an error, but with other results.
    silent: bool,
    /// The work ended without a message, or with one that does not name the file.
    unreported: bool,
    /// It cannot be continued, and the message has no hint.
    stuck: bool,
    note: String,
}

impl Verdict {
    fn is_right(&self) -> bool {
        self.lost == 0 && !self.silent && !self.unreported && !self.stuck
    }
}

/// The results of some work, without times.
#[derive(PartialEq)]
struct Results(BTreeMap<PathBuf, Vec<u8>>);

impl Results {
    fn of(folder: &Path) -> Self {
        let mut files = tree(folder);
        files.retain(|path, _| {
            let name = path.to_string_lossy();
            // Parts that a killed process left, the lock, and the files that record sessions and times.
            !name.contains(".tmp")
                && !name.contains(".partial")
                && !name.contains("tfevents")
                && ![".lock", "manifest.json", "summary.json"].contains(&&*name)
                // A step that could not be logged has its lines in its checkpoint, whose list of files then differs.
                && !name.ends_with("unlogged.json")
                && !name.ends_with("files.json")
        });
        if let Some(bytes) = files.get_mut(Path::new("metrics.jsonl")) {
            let lines = without_clocks(&folder.join("metrics.jsonl"));
            *bytes = serde_json::to_vec(&lines).unwrap();
        }
        Self(files)
    }
}

/// All files of a folder.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn add(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                add(root, &path, files);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    add(folder, folder, &mut files);
    files
}

/// Tries `wanted` of all faults, spread evenly, or all of them. Prints the counts by scenario, and returns the sum of the lost
/// checkpoints, silent differences and other errors.
fn try_faults(wanted: Option<usize>) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let scenarios = Scenario::all(folder.path());
    let undisturbed: Vec<_> = scenarios.iter().map(Scenario::undisturbed).collect();
    let mut faults = Vec::new();
    for (scenario, (calls, _)) in undisturbed.iter().enumerate() {
        for fault in FAULTS {
            let fails = |(_, call): &(usize, &Call)| fault != Fault::Short || call.name == "write";
            faults.extend(calls.iter().enumerate().filter(fails).map(|(call, _)| (scenario, call, fault)));
        }
    }
    let all = faults.len();
    let wanted = wanted.unwrap_or(all);
    let chosen: Vec<_> = (0..wanted).map(|i| faults[i * all / wanted]).collect();

    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(&(scenario, call, fault)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = scenarios[scenario].check(call, fault, &undisturbed[scenario].1);
                    verdicts.lock().unwrap().push((scenario, call, fault, verdict));
                }
            });
        }
    });
    let verdicts = verdicts.into_inner().unwrap();
    println!(
        "{:<30} {:>6} {:>6} {:>7} {:>7} {:>17} {:>18}",
        "", "calls", "faults", "errors", "killed", "lost checkpoints", "silent differences"
    );
    let mut wrong = 0;
    for (index, scenario) in scenarios.iter().enumerate() {
        let of = || verdicts.iter().filter(|(it, ..)| *it == index);
        let killed = of().filter(|(.., fault, _)| *fault == Fault::Kill).count();
        println!(
            "{:<30} {:>6} {:>6} {:>7} {:>7} {:>17} {:>18}",
            scenario.name,
            undisturbed[index].0.len(),
            of().count(),
            of().filter(|(.., verdict)| verdict.failed).count() - killed,
            killed,
            of().map(|(.., verdict)| verdict.lost).sum::<usize>(),
            of().filter(|(.., verdict)| verdict.silent).count(),
        );
        for (_, call, fault, verdict) in of().filter(|(.., verdict)| !verdict.is_right()) {
            wrong += 1;
            let Call { name, path, .. } = &undisturbed[index].0[*call];
            let kinds = [
                (verdict.lost > 0, "lost a checkpoint"),
                (verdict.silent, "silent difference"),
                (verdict.unreported, "not reported"),
                (verdict.stuck, "cannot be continued"),
            ];
            let kinds: Vec<&str> = kinds.iter().filter(|(is, _)| *is).map(|(_, kind)| *kind).collect();
            println!("  call {call} ({name} {}), {fault:?}: {} {}", path.display(), kinds.join(", "), verdict.note);
        }
    }
    wrong
}

#[test]
fn faults_of_the_disk_lose_no_checkpoint_and_change_no_result() {
    assert_eq!(try_faults(Some(40)), 0);
}

/// Takes minutes; `scripts/disk-faults.sh` runs it.
#[test]
#[ignore = "takes minutes"]
fn every_fault_of_the_disk() {
    assert_eq!(try_faults(None), 0);
}
