//! Which file uses which, read from the sources: `use` declarations and paths, with re-exports followed to the file that has the
//! item.

use std::collections::{BTreeMap, BTreeSet};

/// A module by its path below the crate, such as `["math", "lex"]`.
pub type Module = Vec<String>;

/// A path of a module in a file.
pub struct Import {
    pub line: usize,
    /// As it is written, without braces.
    pub text: String,
    /// The module that the path names.
    pub named: Module,
    /// The module that has the item: another one where `named` only re-exports it.
    pub found: Module,
}

/// The imports of every module, each with the module's file.
pub struct Imports(pub BTreeMap<Module, (String, Vec<Import>)>);

impl Imports {
    /// `files` are the paths below `src` with their text; tests are left out of it.
    pub fn read<'a>(files: impl Iterator<Item = (&'a str, String)>) -> Imports {
        let parsed: BTreeMap<Module, (&str, Parsed)> =
            files.map(|(path, text)| (module_of(path), (path, Parsed::of(&text)))).collect();
        let crate_ = Crate(&parsed);
        let imports = parsed.iter().map(|(module, (path, parsed))| {
            let mut imports = Vec::new();
            for it in &parsed.paths {
                let Some((named, item)) = crate_.resolve(module, &it.segments) else { continue };
                // A re-export of a module's own files does not count as a use of them.
                let re_export = it.public && path.ends_with("/mod.rs") && named.starts_with(module);
                if named.is_empty() || re_export {
                    continue;
                }
                let found = crate_.follow(named.clone(), item, &mut BTreeSet::new());
                let text = it.segments.join("::");
                imports.push(Import { line: it.line, text, named, found });
            }
            (module.clone(), (path.to_string(), imports))
        });
        Imports(imports.collect())
    }

    /// Imports between the files of one module of the crate that are part of a circle, as sentences.
    pub fn circles(&self) -> Vec<String> {
        let mut left: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
        for (module, (_, imports)) in &self.0 {
            let inside = imports.iter().map(|it| &it.found).filter(|it| *it != module && it.first() == module.first());
            left.insert(module, inside.collect());
        }
        // What uses nothing that is left, or is used by nothing that is left, is in no circle.
        loop {
            let used: BTreeSet<&Module> = left.values().flatten().copied().collect();
            let before = left.len();
            let keys: BTreeSet<&Module> = left.keys().copied().collect();
            left.retain(|module, uses| used.contains(module) && uses.iter().any(|it| keys.contains(it)));
            if left.len() == before {
                break;
            }
        }
        let file = |module: &Module| format!("src/{}", self.0[module].0);
        let mut found = Vec::new();
        for module in left.keys() {
            for it in self.0[*module].1.iter().filter(|it| it.found != **module && left.contains_key(&it.found)) {
                found.push(format!("{}:{}: `{}` of {}", file(module), it.line, it.text, file(&it.found)));
            }
        }
        found
    }
}

/// `["math"]` of `math/mod.rs`, `["math", "form"]` of `math/form.rs`, an empty path for `lib.rs`.
fn module_of(path: &str) -> Module {
    let path = path.trim_end_matches(".rs");
    let path = if ["lib", "main"].contains(&path) { "" } else { path.strip_suffix("/mod").unwrap_or(path) };
    path.split('/').filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

struct Crate<'a>(&'a BTreeMap<Module, (&'a str, Parsed)>);

impl Crate<'_> {
    fn child(&self, module: &[String], name: &str) -> Option<Module> {
        let child: Module = module.iter().cloned().chain([name.to_owned()]).collect();
        self.0.contains_key(&child).then_some(child)
    }

    /// The module of this crate that a path of `module` names, and the item in it.
    fn resolve(&self, module: &Module, path: &[String]) -> Option<(Module, Option<String>)> {
        let mut rest = path.iter().map(String::as_str).peekable();
        let mut at = module.clone();
        match rest.peek().copied()? {
            "crate" => {
                at.clear();
                rest.next();
            }
            "self" => _ = rest.next(),
            "super" => {
                while rest.next_if_eq(&"super").is_some() {
                    at.pop();
                }
            }
            first => _ = self.child(module, first)?,
        }
        for name in rest {
            match self.child(&at, name) {
                Some(child) => at = child,
                None if name == "self" => {}
                None => return Some((at, Some(name.to_owned()))),
            }
        }
        Some((at, None))
    }

    /// The module that defines `item`, which `module` may only have imported.
    fn follow(&self, module: Module, item: Option<String>, seen: &mut BTreeSet<Module>) -> Module {
        let (Some(name), Some((_, parsed))) = (&item, self.0.get(&module)) else { return module };
        if parsed.defined.contains(name) || !seen.insert(module.clone()) {
            return module;
        }
        let by_name = parsed.paths.iter().find(|it| it.name.as_ref() == Some(name));
        if let Some((next, item)) = by_name.and_then(|it| self.resolve(&module, &it.segments)) {
            return self.follow(next, item, seen);
        }
        for glob in parsed.paths.iter().filter(|it| it.name.as_deref() == Some("*")) {
            let Some((next, _)) = self.resolve(&module, &glob.segments) else { continue };
            if self.0.get(&next).is_some_and(|(_, it)| it.defined.contains(name)) {
                return next;
            }
        }
        module
    }
}

/// A path in a file.
struct Found {
    segments: Vec<String>,
    line: usize,
    /// The name that a `use` declaration gives it; nothing for a path in an expression.
    name: Option<String>,
    /// A `pub use`.
    public: bool,
}

/// A file, taken to pieces.
#[derive(Default)]
struct Parsed {
    paths: Vec<Found>,
    /// The names of items outside of all braces.
    defined: BTreeSet<String>,
}

struct Token<'a> {
    text: &'a str,
    line: usize,
}

impl Parsed {
    fn of(text: &str) -> Parsed {
        let bare = bare(text);
        let tokens = tokens(&bare);
        let mut parsed = Parsed::default();
        let text = |i: usize| tokens.get(i).map_or("", |it: &Token| it.text);
        let (mut i, mut depth) = (0, 0_usize);
        while i < tokens.len() {
            match text(i) {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" if depth == 0 => {
                    parsed.defined.insert(text(i + 1).to_owned());
                }
                "use" => {
                    let public = i > 0 && [")", "pub"].contains(&text(i - 1));
                    i = tree(&tokens, i + 1, &[], public, &mut parsed.paths);
                    continue;
                }
                it if is_name(it) && text(i + 1) == "::" && !(i > 0 && ["::", "."].contains(&text(i - 1))) => {
                    let (line, mut segments) = (tokens[i].line, vec![it.to_owned()]);
                    while text(i + 1) == "::" && is_name(text(i + 2)) {
                        segments.push(text(i + 2).to_owned());
                        i += 2;
                    }
                    parsed.paths.push(Found { segments, line, name: None, public: false });
                }
                _ => {}
            }
            i += 1;
        }
        parsed
    }
}

/// Reads the tree of a `use` declaration from `at`; returns the place behind it.
fn tree(tokens: &[Token], mut at: usize, prefix: &[String], public: bool, paths: &mut Vec<Found>) -> usize {
    let text = |i: usize| tokens.get(i).map_or("", |it: &Token| it.text);
    let (mut segments, line) = (prefix.to_vec(), tokens.get(at).map_or(0, |it| it.line));
    loop {
        match text(at) {
            "::" => {
                at += 1;
                continue;
            }
            "{" => {
                at += 1;
                while !["}", ""].contains(&text(at)) {
                    at = tree(tokens, at, &segments, public, paths);
                    at += usize::from(text(at) == ",");
                }
                return at + 1;
            }
            "*" => {
                paths.push(Found { segments, line, name: Some("*".to_owned()), public });
                return at + 1;
            }
            it if is_name(it) => {
                // `a::{self}` is `a`.
                if it != "self" || segments.is_empty() {
                    segments.push(it.to_owned());
                }
                at += 1;
            }
            _ => return at,
        }
        if text(at) == "::" {
            continue;
        }
        let renamed = text(at) == "as";
        let name = if renamed { Some(text(at + 1).to_owned()) } else { segments.last().cloned() };
        paths.push(Found { segments, line, name, public });
        return at + 2 * usize::from(renamed);
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::` and single other characters, without white space.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if first.is_alphanumeric() || first == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        if !first.is_whitespace() {
            tokens.push(Token { text: &rest[..length], line });
        }
        line += usize::from(first == '\n');
        rest = &rest[length..];
    }
    tokens
}

/// The text with spaces for comments, strings and characters.
fn bare(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut bare = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match at(i) {
            '/' if at(i + 1) == '/' => (i..chars.len()).find(|&j| at(j) == '\n').unwrap_or(chars.len()),
            '/' if at(i + 1) == '*' => {
                let close = |j: &usize| at(*j) == '*' && at(j + 1) == '/';
                (i + 2..chars.len()).find(close).map_or(chars.len(), |j| j + 2)
            }
            '"' => string_end(&chars, i + 1),
            'r' if ['"', '#'].contains(&at(i + 1)) && !(i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_')) => {
                raw_string_end(&chars, i + 1).unwrap_or(i)
            }
            '\'' if at(i + 1) == '\\' => (i + 3..chars.len()).find(|&j| at(j) == '\'').map_or(chars.len(), |j| j + 1),
            '\'' if at(i + 2) == '\'' => i + 3,
            _ => i,
        };
        if end == i {
            bare.push(at(i));
            i += 1;
        }
        for &c in &chars[i.min(end)..end] {
            bare.push(if c == '\n' { '\n' } else { ' ' });
        }
        i = i.max(end);
    }
    bare
}

/// Behind the closing quote of a string whose text begins at `i`.
fn string_end(chars: &[char], mut i: usize) -> usize {
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// The same of a raw string, whose hashes begin at `i`; nothing for a raw name such as `r#type`.
fn raw_string_end(chars: &[char], i: usize) -> Option<usize> {
    let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
    if chars.get(i + hashes) != Some(&'"') {
        return None;
    }
    let closes =
        |j: &usize| chars[*j] == '"' && chars[j + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    Some((i + hashes + 1..chars.len()).find(closes).map_or(chars.len(), |j| j + 1 + hashes))
}

#[test]
fn paths_are_read_from_any_form_of_import() {
    let files = [
        ("lib.rs", "pub mod a; pub mod b;"),
        ("a/mod.rs", "mod x;\nmod y;\npub use x::{One, Two as Other};\npub fn own() {}"),
        ("a/x.rs", "use crate::{b::{self, Thing}, rng};\npub struct One; pub struct Two; // crate::c\n"),
        (
            "a/y.rs",
            "const S: &str = \"crate::b\"; const C: char = '\"';\nfn f<'a>(_: &'a str) { super::super::b::g(); }",
        ),
        ("b.rs", "use crate::a::{Other, own};\npub struct Thing; fn g() { crate::a::One; }"),
    ];
    let imports = Imports::read(files.iter().map(|(path, text)| (*path, text.to_string())));
    let of = |module: &str| {
        let module: Module = module.split('/').map(str::to_owned).collect();
        let import = |it: &Import| format!("{}: {} = {}", it.line, it.text, it.found.join("/"));
        imports.0[&module].1.iter().map(import).collect::<Vec<_>>()
    };
    assert_eq!(of("a"), [""; 0]);
    assert_eq!(of("a/x"), ["1: crate::b = b", "1: crate::b::Thing = b"]);
    assert_eq!(of("a/y"), ["2: super::super::b::g = b"]);
    assert_eq!(of("b"), ["1: crate::a::Other = a/x", "1: crate::a::own = a", "2: crate::a::One = a/x"]);
    assert_eq!(imports.circles(), [""; 0]);
}

#[test]
fn circles_are_found_and_re_exports_are_none() {
    let circles = |mod_: &str, x: &str, y: &str| {
        let files = [("a/mod.rs", mod_), ("a/x.rs", x), ("a/y.rs", y)];
        Imports::read(files.iter().map(|(path, text)| (*path, text.to_string()))).circles()
    };
    let types = "pub use x::X; pub struct Y;";
    assert_eq!(circles(types, "use super::Y;\npub struct X;", "use super::X;"), [""; 0]);
    assert_eq!(
        circles(types, "use super::Y;\npub struct X;\nuse super::y::f;", "use super::X;\npub fn f() {}"),
        ["src/a/x.rs:3: `super::y::f` of src/a/y.rs", "src/a/y.rs:1: `super::X` of src/a/x.rs"]
    );
    assert_eq!(
        circles("pub struct Y;\nfn f() { x::g() }", "use super::Y;\npub fn g() {}", ""),
        ["src/a/mod.rs:2: `x::g` of src/a/x.rs", "src/a/x.rs:1: `super::Y` of src/a/mod.rs"]
    );
}
