//! What ARCHITECTURE.md says is never allowed, held by reading the sources.

mod imports;

use imports::Imports;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The modules of the crate, from the ground up: each may use those before it.
const LAYERS: [&str; 26] = [
    "rng", "ops", "stats", "disk", "server", "sandbox", "math", "config", "model", "prompt", "rollout", "data",
    "behavior", "run", "code", "reward", "grpo", "device", "eval", "train", "plan", "report", "sweep", "verify",
    "watch", "cli",
];

/// A source file and its lines without comments, the first line being 1.
struct Source {
    /// Below `src`, with `/` between the parts.
    path: String,
    text: String,
}

impl Source {
    fn module(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap_or_default()
    }

    fn is_test(&self) -> bool {
        ["tests.rs", "/fuzz.rs"].iter().any(|it| self.path.ends_with(it)) || self.path.contains("/tests/")
    }

    /// Numbered lines of code: comments are left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(i, line)| (i + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The text before the file's own tests.
    fn before_tests(&self) -> &str {
        let modules = ["mod tests {", "pub mod tests {", "pub(crate) mod tests {"];
        let tests = modules.iter().filter_map(|it| self.text.find(&format!("\n#[cfg(test)]\n{it}"))).min();
        if self.is_test() { "" } else { &self.text[..tests.unwrap_or(self.text.len())] }
    }

    /// The lines before the file's own tests.
    fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.before_tests().lines().count();
        self.code().take_while(move |(number, _)| *number <= lines)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// Files below `directory`, sorted.
fn files(directory: &Path, enter: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() || !enter(&path) {
            continue;
        }
        if path.is_dir() { found.extend(files(&path, enter)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let rust = files(&src, &|path| path.is_dir() || path.extension().is_some_and(|it| it == "rs"));
    let source = |path: PathBuf| Source {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/"),
    };
    let sources: Vec<Source> = rust.into_iter().map(source).collect();
    assert!(sources.len() > 20, "only {} sources found below {}", sources.len(), src.display());
    sources
}

/// Whether `line` holds `word` with no letter, digit or underscore on either side.
fn has_word(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(inside)
            && !line[at + word.len()..].chars().next().is_some_and(inside)
    })
}

/// Fails with every line of `lines` that `broken` holds of.
fn none<'a>(
    rule: &str,
    lines: impl Iterator<Item = (&'a Source, usize, &'a str)>,
    broken: impl Fn(&Source, &str) -> bool,
) {
    let lines = lines.filter(|(source, _, line)| broken(source, line));
    let found: Vec<String> = lines.map(|(s, n, line)| format!("src/{}:{n}: {}", s.path, line.trim())).collect();
    assert!(found.is_empty(), "{rule}\n{}", found.join("\n"));
}

fn code(sources: &[Source]) -> impl Iterator<Item = (&Source, usize, &str)> {
    sources.iter().flat_map(|source| source.code().map(move |(number, line)| (source, number, line)))
}

fn product(sources: &[Source]) -> impl Iterator<Item = (&Source, usize, &str)> {
    sources.iter().flat_map(|source| source.product().map(move |(number, line)| (source, number, line)))
}

#[test]
fn what_needs_no_tensors_does_not_import_candle() {
    let free = [
        "math", "reward", "sandbox", "stats", "prompt", "data", "config", "rng", "behavior", "report", "server",
        "sweep", "watch",
    ];
    none("these modules work without tensors", code(&sources()), |source, line| {
        free.contains(&source.module()) && line.contains("candle")
    });
}

/// The fast path has no autograd: candle is what it is compared with, and a reader of GGUF files.
#[test]
fn the_fast_path_does_not_import_candle() {
    let fast = ["ops", "rollout", "grpo", "train"];
    none("the fast path works on plain slices", product(&sources()), |source, line| {
        fast.contains(&source.module()) && line.contains("candle")
    });
}

#[test]
fn only_the_command_line_and_the_progress_print() {
    let macros = ["println!", "print!", "eprintln!", "eprint!", "dbg!"];
    let allowed = |path: &str| path.starts_with("cli/") || path == "main.rs" || path.starts_with("run/progress");
    none("print in `cli` and `run::progress` only", product(&sources()), |source, line| {
        !allowed(&source.path)
            && macros.iter().any(|name| has_word(line, name.trim_end_matches('!')) && line.contains(name))
    });
}

/// Whether the keyword is in the line, not a flag or a name that has the word in it.
fn is_unsafe(line: &str) -> bool {
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|begin| has_word(line, begin))
}

#[test]
fn unsafe_code_is_confined_and_has_its_reason() {
    let sources = sources();
    none("unsafe code and SIMD intrinsics", code(&sources), |source, line| {
        let allowed = ["ops/", "device/cuda/", "sandbox/", "model/safetensors.rs", "device/candle.rs"]
            .iter()
            .any(|place| source.path.starts_with(place));
        !allowed && (is_unsafe(line) || line.contains("std::arch"))
    });
    for source in &sources {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.code().filter(|(_, line)| is_unsafe(line)) {
            let before = &lines[number.saturating_sub(6)..number];
            let reason = before.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
            assert!(reason, "src/{}:{number}: no SAFETY sentence above `{}`", source.path, line.trim());
        }
    }
}

/// The tests replace the file system in `disk/files.rs` and let every call fail.
#[test]
fn all_writes_go_through_one_module() {
    let calls = [
        "fs::write(",
        "fs::create_dir",
        "fs::rename(",
        "fs::remove_",
        "fs::copy(",
        "fs::hard_link(",
        " File::create",
        "(File::create",
        "fs::File::create",
        "File::options(",
        ".sync_all(",
        ".sync_data(",
    ];
    // Downloads are compared with their hashes, and the sandbox sets up the root of another process.
    let own = ["disk/files.rs", "model/hub/", "sandbox/"];
    none("write with `crate::disk`", product(&sources()), |source, line| {
        let found = calls.iter().any(|call| line.contains(call))
            || (line.contains("OpenOptions::new()") && !line.contains("files::open("));
        found && !own.iter().any(|it| source.path.starts_with(it))
    });
}

/// A value is a function of what it is for: `rng` is the only source of randomness.
#[test]
fn randomness_is_counter_based() {
    let words =
        ["rand", "randn", "rand_like", "randn_like", "gumbel_softmax", "VarMap", "Init", "rand_chacha", "thread_rng"];
    none("draw from `crate::rng`", product(&sources()), |source, line| {
        // A type in the signature of a trait of candle's.
        let named = source.path == "device/candle.rs" && has_word(line, "Init");
        source.module() != "rng" && !named && words.iter().any(|word| has_word(line, word))
    });
    let manifest = read("Cargo.toml");
    let rand = manifest.lines().find(|line| line.starts_with("rand"));
    assert_eq!(rand, None, "`rng` needs no crate");
}

/// Sums over tensors go in the order of their names.
#[test]
fn what_computes_does_not_walk_hash_tables() {
    let ordered = ["ops", "device", "rollout", "grpo", "train", "model"];
    none("use BTreeMap", product(&sources()), |source, line| {
        ordered.contains(&source.module()) && (has_word(line, "HashMap") || has_word(line, "HashSet"))
    });
}

fn imports(sources: &[Source]) -> Imports {
    Imports::read(sources.iter().filter(|it| !it.is_test()).map(|it| (it.path.as_str(), it.before_tests().to_owned())))
}

#[test]
fn modules_use_only_what_is_below_them() {
    let sources = sources();
    let place = |module: &str| LAYERS.iter().position(|it| *it == module);
    let (mut upwards, mut checked) = (Vec::new(), 0);
    for (module, (path, imports)) in &imports(&sources).0 {
        // The root of the library has nothing but the modules' names.
        let Some(of) = module.first() else { continue };
        for import in imports {
            let named = &import.named[0];
            checked += usize::from(named != of);
            if place(named) > place(of) {
                upwards.push(format!(
                    "src/{path}:{}: `{}` uses `{named}`, which is above `{of}`",
                    import.line, import.text
                ));
            }
        }
    }
    assert!(
        upwards.is_empty(),
        "{} imports upwards; ARCHITECTURE.md has the layers\n{}",
        upwards.len(),
        upwards.join("\n")
    );
    assert!(checked > 500, "only {checked} imports of other modules found");
}

/// Re-exports in a `mod.rs` do not count.
#[test]
fn the_files_of_a_module_have_no_circles() {
    let circles = imports(&sources()).circles();
    assert!(circles.is_empty(), "files that use each other in a circle\n{}", circles.join("\n"));
}

#[test]
fn the_layers_are_all_modules_and_the_architecture_has_them() {
    let library = read("src/lib.rs");
    let mut modules: Vec<&str> =
        library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut layers = LAYERS.to_vec();
    modules.sort_unstable();
    layers.sort_unstable();
    assert_eq!(layers, modules, "LAYERS and src/lib.rs");
    let order = LAYERS.map(|it| format!("`{it}`")).join(" < ");
    let architecture = read("ARCHITECTURE.md").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(architecture.contains(&order), "ARCHITECTURE.md does not have this order of the layers:\n{order}");
}

#[test]
fn a_module_with_files_of_its_own_is_a_folder_with_mod_rs() {
    let sources = sources();
    let has = |path: &str| sources.iter().any(|it| it.path == path);
    for source in &sources {
        let Some((folder, _)) = source.path.rsplit_once('/') else { continue };
        assert!(has(&format!("{folder}/mod.rs")), "src/{folder} has no mod.rs");
        assert!(!has(&format!("{folder}.rs")), "src/{folder}.rs and src/{folder}/ both exist");
    }
}

#[test]
fn every_module_has_its_place_in_the_architecture() {
    let architecture = read("ARCHITECTURE.md");
    let library = read("src/lib.rs");
    let modules = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let mut count = 0;
    for module in modules {
        count += 1;
        let rows = [format!("| `src/{module}/` |"), format!("| `src/{module}.rs` |")];
        let has = architecture.lines().any(|line| rows.iter().any(|row| line.starts_with(row.as_str())));
        assert!(has, "the code map in ARCHITECTURE.md does not explain `{module}`");
    }
    assert!(count > 10, "only {count} modules read from src/lib.rs");
}

#[test]
fn main_only_dispatches() {
    let lines = read("src/main.rs").lines().count();
    assert!(lines < 50, "src/main.rs has {lines} lines");
}

#[test]
fn files_stay_short_enough_to_read() {
    for source in sources() {
        let lines = source.product().map(|(number, _)| number).last().unwrap_or(0);
        assert!(lines <= 600, "src/{} has {lines} lines before its tests; two ideas?", source.path);
    }
}

/// The files under version control; of a source archive, all of them.
fn tracked() -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    match listed.ok().filter(|listed| listed.status.success()) {
        Some(listed) => {
            let names = String::from_utf8(listed.stdout).unwrap();
            names.split_terminator('\0').map(|name| root().join(name)).collect()
        }
        None => files(root(), &|path| !path.ends_with("target") && !path.ends_with("runs")),
    }
}

/// Whoever clones this has other directories.
#[test]
fn no_file_names_a_place_of_one_machine() {
    // Spelled in parts, or this file would be the first to be found.
    let mut places: Vec<String> = ["root", "work", "mnt"].map(|name| format!("/{name}/")).into();
    places.push(root().display().to_string());
    places.extend(std::env::var("HOME").ok().filter(|home| home.len() > 1).map(|home| home + "/"));
    let mut read = 0;
    for path in tracked() {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        read += 1;
        for (number, line) in text.lines().enumerate() {
            for place in &places {
                let starts = |at: usize| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|c| c.is_whitespace() || "\"'`(=:".contains(c)) && !line[..at].ends_with("://")
                };
                let found = line.match_indices(place.as_str()).any(|(at, _)| starts(at));
                assert!(!found, "{}:{}: {}", path.display(), number + 1, line.trim());
            }
        }
    }
    assert!(read > 30, "only {read} text files found");
}
