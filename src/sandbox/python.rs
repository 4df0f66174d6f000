//! Finds the Python interpreter and the files it needs.
//!
//! The interpreter is queried once, outside the sandbox and only with our own program, before any untrusted program
//! runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use serde::Deserialize;

/// Prints one line of JSON about the interpreter that runs it. Libraries are loaded to see where they come from.
const QUESTION: &str = r#"
import json, os, sys, sysconfig
for name in ("ctypes", "hashlib", "zlib", "bz2", "lzma", "decimal", "resource"):
    try: __import__(name)
    except ImportError: pass
def numpy():
    try: import numpy
    except Exception: return None
    return {"version": numpy.__version__, "path": os.path.dirname(os.path.dirname(numpy.__file__))}
found = numpy()
try: mapped = {line.split(None, 5)[-1].strip() for line in open("/proc/self/maps") if "/" in line}
except OSError: mapped = set()
real = os.path.realpath
base = getattr(sys, "_base_executable", None) or sys.executable
library = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.dirname(os.__file__)]
dynamic = [path for path in sys.path if os.path.basename(path) == "lib-dynload"]
archive = [path for path in sys.path if path.endswith(".zip") and os.path.exists(path)]
print(json.dumps({
    "executable": real(base),
    "version": "%d.%d.%d" % sys.version_info[:3],
    "path": list(dict.fromkeys(archive + [path for path in library[2:] + library[:2] if path] + dynamic)),
    "libraries": sorted({os.path.dirname(real(path)) for path in mapped if ".so" in os.path.basename(path)}),
    "loader": sorted({real(path) for path in mapped if os.path.basename(path).startswith("ld-")}),
    "numpy": found,
}))
"#;

/// Usual names of an interpreter, the most common first.
const NAMES: [&str; 2] = ["python3", "python"];

/// The properties of an interpreter.
#[derive(Clone, Debug, Deserialize)]
pub struct Python {
    /// Not a link, and not a script that calls another interpreter.
    pub executable: PathBuf,
    pub version: String,
    /// The folders of its standard library.
    pub path: Vec<PathBuf>,
    /// The folders of the shared libraries that it has loaded.
    pub libraries: Vec<PathBuf>,
    /// The dynamic loader, which the kernel starts first.
    pub loader: Vec<PathBuf>,
    pub numpy: Option<Numpy>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Numpy {
    pub version: String,
    /// The folder that contains it, for the interpreter's path.
    pub path: PathBuf,
}

impl Python {
    /// Queries the interpreters on `PATH` and returns the first that works.
    ///
    /// # Errors
    /// There is no working interpreter.
    pub fn find() -> Result<Python> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let candidates = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
        match candidates.filter(|it| it.is_file()).find_map(|it| Python::ask(&it)) {
            Some(python) => Ok(python),
            None => bail!(
                "no Python 3.9 or later on PATH, which is needed to run programs\n\
                 hint: install Python 3.9 or later (numpy is optional)"
            ),
        }
    }

    /// Queries this interpreter; `None` if it does not work or is too old.
    fn ask(interpreter: &Path) -> Option<Python> {
        let mut command = Command::new(interpreter);
        command.args(["-I", "-c", QUESTION]).stdin(Stdio::null()).stderr(Stdio::null());
        let output = command.output().ok().filter(|it| it.status.success())?;
        let python: Python = serde_json::from_slice(&output.stdout).ok()?;
        let mut numbers = python.version.split('.').filter_map(|it| it.parse::<u32>().ok());
        (numbers.next() == Some(3) && numbers.next() >= Some(9)).then_some(python)
    }
}

#[cfg(target_os = "linux")]
impl Python {
    /// All folders and files that it may read: its library, shared libraries and numpy.
    pub(super) fn readable(&self) -> Vec<PathBuf> {
        let usual =
            ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"].map(PathBuf::from);
        let mut all: Vec<PathBuf> = usual.into_iter().chain(self.path.iter().chain(&self.libraries).cloned()).collect();
        if let Some(numpy) = &self.numpy {
            // Not the whole folder, which contains all other installed packages.
            all.extend(["numpy", "numpy.libs"].map(|name| numpy.path.join(name)));
        }
        all.push(self.executable.clone());
        all.retain(|path| path.exists());
        let every = all.clone();
        all.retain(|path| !every.iter().any(|other| other != path && path.starts_with(other)));
        all.sort();
        all.dedup();
        all
    }

    /// The only files that may be executed.
    pub(super) fn executables(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.executable).chain(&self.loader).map(PathBuf::as_path)
    }

    /// Where it looks for modules inside the sandbox.
    pub(super) fn module_path(&self) -> Vec<&Path> {
        let numpy = self.numpy.iter().map(|numpy| numpy.path.as_path());
        self.path.iter().map(PathBuf::as_path).chain(numpy).collect()
    }
}
