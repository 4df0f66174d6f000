//! The compiled-in prior prompts, and prompts from users' files.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, anyhow, bail, ensure};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{PriorPrompt, Role, text_file};
use crate::config::{Content, Node, nearest_name, read_value};

/// File, and aliases. Listings have the same order.
const SHIPPED: [(&str, &[&str]); 6] = [
    (include_str!("../../prompts/none.toml"), &[]),
    (include_str!("../../prompts/reasoning.toml"), &["think"]),
    (include_str!("../../prompts/planning.toml"), &["plan"]),
    (include_str!("../../prompts/code.toml"), &[]),
    (include_str!("../../prompts/recall.toml"), &["knowledge"]),
    (include_str!("../../prompts/null-example.toml"), &["examples"]),
];

/// Control prompts, which isolate the effects of parts of the other prompts: file, and aliases.
const CONTROLS: [(&str, &[&str]); 2] =
    [(include_str!("../../prompts/answer-only.toml"), &[]), (include_str!("../../prompts/tag-swap.toml"), &[])];

/// Maximum length of a prompt file in bytes.
const LONGEST: u64 = 1 << 20;

/// A prompt as in its TOML file. The file cannot set the source of the wording.
#[derive(Serialize)]
struct PromptFile {
    name: String,
    text: String,
    tag: Option<String>,
    answer_tag: Option<String>,
    role: Role,
    paper_name: String,
    description: String,
    stems_from: String,
}

impl PriorPrompt {
    /// A warning if the text does not mention a tag that the format reward expects.
    pub fn warning(&self) -> Option<String> {
        let absent = |tag: &&String| !self.text.contains(&format!("<{tag}>"));
        let missing: Vec<String> =
            self.tag.iter().chain(&self.answer_tag).filter(absent).map(|tag| format!("<{tag}>")).collect();
        (!missing.is_empty()).then(|| {
            format!(
                "the text of the prior prompt `{}` does not contain {}, which the format reward expects in completions",
                self.name,
                missing.join(" and ")
            )
        })
    }

    /// The prompt as a TOML file that [`find`] can read.
    pub fn to_toml(&self) -> String {
        let prompt = self.clone();
        let file = PromptFile {
            name: prompt.name,
            text: prompt.text,
            tag: prompt.tag,
            answer_tag: prompt.answer_tag,
            role: prompt.role,
            paper_name: prompt.paper_name,
            description: prompt.description,
            stems_from: prompt.stems_from,
        };
        toml::to_string_pretty(&file).expect("a prompt can be written as TOML")
    }
}

/// The six shipped prompts, `none` first, in their first wording.
pub fn shipped() -> &'static [PriorPrompt] {
    static PROMPTS: OnceLock<Vec<PriorPrompt>> = OnceLock::new();
    PROMPTS.get_or_init(|| SHIPPED.iter().map(|(file, _)| first(file)).collect())
}

/// The shipped control prompts: `answer-only` has the structure of the others without a first element, `tag-swap`
/// the wording of one with the tags of another.
pub fn controls() -> &'static [PriorPrompt] {
    static PROMPTS: OnceLock<Vec<PriorPrompt>> = OnceLock::new();
    PROMPTS.get_or_init(|| CONTROLS.iter().map(|(file, _)| first(file)).collect())
}

fn first(file: &str) -> PriorPrompt {
    parse_shipped(file).swap_remove(0)
}

fn parse_shipped(file: &str) -> Vec<PriorPrompt> {
    parse(file, Path::new("shipped.toml"), "rft").expect("a shipped prompt is valid")
}

/// A shipped prompt.
struct ShippedPrompt {
    aliases: &'static [&'static str],
    /// At least one.
    wordings: Vec<PriorPrompt>,
}

/// All shipped prompts.
fn known() -> &'static [ShippedPrompt] {
    static PROMPTS: OnceLock<Vec<ShippedPrompt>> = OnceLock::new();
    let read = || {
        SHIPPED
            .iter()
            .chain(&CONTROLS)
            .map(|(file, aliases)| ShippedPrompt { aliases, wordings: parse_shipped(file) })
            .collect()
    };
    PROMPTS.get_or_init(read)
}

/// The prompt `reference`: a shipped one by its name or alias, else the user's TOML file at that path; with `@N`, its wording N.
///
/// # Errors
/// An unknown name or wording; a file that cannot be read or is not a prompt.
pub fn find(reference: &str) -> anyhow::Result<PriorPrompt> {
    let (name_or_path, wording) = split(reference);
    let found = |wordings: &[PriorPrompt]| {
        let last = wordings.len() - 1;
        wordings.get(wording).cloned().with_context(|| match last {
            0 => format!("the prior prompt `{name_or_path}` has only wording 0, not {wording}"),
            _ => format!("the prior prompt `{name_or_path}` has the wordings 0 to {last}, not {wording}"),
        })
    };
    if let Some(wordings) = wordings(name_or_path) {
        return found(wordings);
    }
    let path = Path::new(name_or_path);
    if path.is_file() || path.components().count() > 1 || path.extension().is_some() {
        return found(&read(path)?);
    }
    let names = known().iter().map(|it| it.wordings[0].name.as_str()).collect::<Vec<_>>().join(", ");
    bail!("unknown prior prompt `{name_or_path}`; expected one of {names}\nhint: {}", advice(name_or_path));
}

/// The shipped prompt `reference`: its name or alias, and possibly `@N`.
pub fn find_shipped(reference: &str) -> Option<&'static PriorPrompt> {
    let (name, wording) = split(reference);
    wordings(name)?.get(wording)
}

/// All wordings of the shipped prompt with the name or alias `name`.
pub fn wordings(name: &str) -> Option<&'static [PriorPrompt]> {
    let known = known().iter().find(|it| it.wordings[0].name == name || it.aliases.contains(&name))?;
    Some(&known.wordings)
}

/// A name or path, and the number of a wording: `reasoning@2` is wording 2 of `reasoning`.
fn split(reference: &str) -> (&str, usize) {
    let numbered = reference.rsplit_once('@').and_then(|(name, number)| {
        let plain = !name.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        Some((name, number.parse().ok().filter(|_| plain)?))
    });
    match numbered {
        Some(numbered) if !Path::new(reference).is_file() => numbered,
        _ => (reference, 0),
    }
}

/// The wordings in a user's file. The source of their wording is the file name and a hash of the contents.
fn read(path: &Path) -> anyhow::Result<Vec<PriorPrompt>> {
    let text = read_text(path)?;
    parse(&text, path, &source_name(path, &text))
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let name = path.display();
    let is_readable = path.metadata().ok().is_none_or(|it| it.is_file() && it.len() <= LONGEST);
    ensure!(is_readable, "read the prior prompt `{name}`: expected a TOML file of at most 1 MiB");
    text_file::read(path).with_context(|| format!("read the prior prompt `{name}`"))
}

/// The name of a file and the start of the hash of its text.
fn source_name(path: &Path, text: &str) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{file} {}", hex::encode(&Sha256::digest(text)[..6]))
}

/// Reads a file with several prompts, each a `[[prompt]]` with a `weight`; `None` if the file has the keys of one prompt.
pub(super) fn read_several(path: &Path) -> anyhow::Result<Option<Vec<(PriorPrompt, f64)>>> {
    let text = read_text(path)?;
    let root = Node::of_text(&text, path)?;
    let Content::Table(members) = root.content else { return Ok(None) };
    let Some((_, Node { content: Content::List(entries), .. })) =
        members.into_iter().find(|(key, _)| key.name == SEVERAL)
    else {
        return Ok(None);
    };
    let source = source_name(path, &text);
    let prompt = |mut entry: Node| {
        let mut weight = 1.0;
        if let Content::Table(members) = &mut entry.content
            && let Some(at) = members.iter().position(|(key, _)| key.name == WEIGHT)
        {
            let (_, node) = members.remove(at);
            weight = read_value(&node.to_value()).map_err(|fault| fault.at(&node.origin, WEIGHT))?;
            ensure!(weight > 0.0 && f64::is_finite(weight), "{}: expected a weight above 0", node.origin.site());
        }
        Ok((parse_node(&entry, path, &source)?.swap_remove(0), weight))
    };
    entries.into_iter().map(prompt).collect::<anyhow::Result<_>>().map(Some)
}

/// The text of a file that [`read_several`] can read.
pub(super) fn write_several<'a>(prompts: impl Iterator<Item = (&'a PriorPrompt, f64)>) -> String {
    let entries = prompts.map(|(prompt, weight)| format!("[[{SEVERAL}]]\n{WEIGHT} = {weight:?}\n{}", prompt.to_toml()));
    entries.collect::<Vec<_>>().join("\n")
}

/// The keys of a file with several prompts.
const SEVERAL: &str = "prompt";
const WEIGHT: &str = "weight";

/// The keys of a prompt file.
const KEYS: [&str; 9] =
    ["name", "text", "tag", "answer_tag", "role", "paper_name", "description", "stems_from", "wording"];

/// Reads the wordings in a prompt file. Errors have the line and column of the key.
fn parse(text: &str, path: &Path, source: &str) -> anyhow::Result<Vec<PriorPrompt>> {
    parse_node(&Node::of_text(text, path)?, path, source)
}

/// Reads the wordings of a prompt from the table with its keys.
fn parse_node(file: &Node, path: &Path, source: &str) -> anyhow::Result<Vec<PriorPrompt>> {
    let Content::Table(members) = &file.content else { bail!("{}: expected the keys of a prompt", file.origin.site()) };
    if let Some((key, _)) = members.iter().find(|(key, _)| !KEYS.contains(&key.name.as_str())) {
        let meant = nearest_name(&key.name, KEYS.into_iter());
        let hint =
            meant.map_or_else(|| format!("the keys are {}", KEYS.join(", ")), |it| format!("did you mean `{it}`?"));
        bail!("{}: unknown key `{}`\nhint: {hint}", key.origin.site(), key.name);
    }
    let member = |name: &str| members.iter().find(|(key, _)| key.name == name).map(|(_, node)| node);
    let string = |name: &str| -> anyhow::Result<Option<String>> {
        member(name).map(|node| read_value(&node.to_value()).map_err(|fault| fault.at(&node.origin, name))).transpose()
    };
    let required = |name: &str| {
        string(name)?.with_context(|| {
            format!(
                "{}: the key `{name}` is missing\nhint: `rft prompts show reasoning` prints a complete file",
                path.display()
            )
        })
    };
    let site = |name: &str| member(name).map_or_else(|| path.display().to_string(), |node| node.origin.site());
    let role = member("role").map(|node| read_value(&node.to_value()).map_err(|fault| fault.at(&node.origin, "role")));
    let (tag, answer_tag) = (string("tag")?, string("answer_tag")?);
    ensure!(
        tag.is_none() || answer_tag.is_some(),
        "{}: `tag` requires `answer_tag`, because the answer follows the element `tag`",
        site("tag")
    );
    ensure!(tag.is_none() || tag != answer_tag, "{}: `tag` and `answer_tag` must differ", site("answer_tag"));
    for (key, tag) in [("tag", &tag), ("answer_tag", &answer_tag)] {
        let Some(tag) = tag else { continue };
        let plain = tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        ensure!(
            plain && !tag.is_empty(),
            "{}: `{tag}` is not a valid tag\nhint: write `think`, not `<think>`",
            site(key)
        );
    }
    let first = PriorPrompt {
        name: required("name")?,
        text: required("text")?,
        paper_name: string("paper_name")?.unwrap_or_default(),
        tag,
        answer_tag,
        role: role.transpose()?.unwrap_or_default(),
        description: string("description")?.unwrap_or_default(),
        stems_from: string("stems_from")?.unwrap_or_default(),
        wording: source.to_owned(),
    };
    let others = member("wording").map_or_else(|| Ok(Vec::new()), other_texts)?;
    let other = |(at, text)| PriorPrompt { name: format!("{}@{}", first.name, at + 1), text, ..first.clone() };
    let others: Vec<PriorPrompt> = others.into_iter().enumerate().map(other).collect();
    Ok(std::iter::once(first).chain(others).collect())
}

/// The texts of the `[[wording]]` entries.
fn other_texts(node: &Node) -> anyhow::Result<Vec<String>> {
    let wrong = |node: &Node| anyhow!("{}: expected `[[wording]]` entries with the key `text`", node.origin.site());
    let Content::List(entries) = &node.content else { return Err(wrong(node)) };
    let text = |entry: &Node| match &entry.content {
        Content::Table(members) => match &members[..] {
            [(key, text)] if key.name == "text" => {
                read_value(&text.to_value()).map_err(|fault| fault.at(&text.origin, "text"))
            }
            _ => Err(wrong(entry)),
        },
        _ => Err(wrong(entry)),
    };
    entries.iter().map(text).collect()
}

/// A hint: the closest name if there is one, else how to pass a file.
fn advice(name: &str) -> String {
    known()
        .iter()
        .flat_map(|known| std::iter::once(known.wordings[0].name.as_str()).chain(known.aliases.iter().copied()))
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 2)
        .map_or_else(
            || "pass the path of a TOML file to use your own prompt".to_owned(),
            |(_, known)| format!("did you mean `{known}`?"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_prompt_asks_for_its_tags_and_a_box() {
        let names: Vec<_> = shipped().iter().map(|prompt| prompt.name.as_str()).collect();
        assert_eq!(names, ["none", "reasoning", "planning", "code", "recall", "null-example"]);
        for prompt in &shipped()[1..] {
            let (tag, answer) = (prompt.tag.as_ref().unwrap(), prompt.answer_tag.as_ref().unwrap());
            for needle in [format!("<{tag}>"), format!("</{tag}>"), format!("<{answer}>"), r"\boxed{}".to_owned()] {
                assert!(prompt.text.contains(&needle), "{} does not contain {needle}", prompt.name);
            }
            assert!(!prompt.text.contains('\n') && !prompt.text.ends_with(' '), "{}", prompt.name);
            assert_eq!(prompt.wording, "rft");
        }
        for prompt in controls() {
            let answer = prompt.answer_tag.as_ref().unwrap();
            for tag in prompt.tag.iter().chain([answer]) {
                assert!(prompt.text.contains(&format!("<{tag}>")) && prompt.text.contains(&format!("</{tag}>")));
            }
        }
        assert_eq!(controls()[0].tag, None);
        let words = |name: &str, tag: &str| find(name).unwrap().text.replace(tag, "");
        assert_eq!(words("tag-swap", "examples"), words("reasoning", "think"));
        assert_eq!(shipped()[0].tag, None);
        assert_eq!(shipped()[0].text, "");
    }

    #[test]
    fn aliases_select_their_prompts() {
        for (alias, name) in [
            ("think", "reasoning"),
            ("plan", "planning"),
            ("code", "code"),
            ("knowledge", "recall"),
            ("examples", "null-example"),
            ("none", "none"),
        ] {
            assert_eq!(find(alias).unwrap().name, name);
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_suggests_a_name() {
        let error = find("reasning").unwrap_err().to_string();
        assert!(
            error.contains("none, reasoning, planning, code, recall, null-example, answer-only, tag-swap"),
            "{error}"
        );
        assert!(error.ends_with("\nhint: did you mean `reasoning`?"), "{error}");
        assert!(find("zzzzzzzzzz").unwrap_err().to_string().contains("hint: pass the path of a TOML file"));
    }

    #[test]
    fn wordings_ask_for_the_same_in_other_words_of_about_the_same_length() {
        for prompt in &shipped()[1..] {
            let all = wordings(&prompt.name).unwrap();
            assert_eq!(all.len(), 5, "{}", prompt.name);
            assert_eq!(all[0], *prompt);
            let (tag, words) = (prompt.tag.as_ref().unwrap(), |it: &PriorPrompt| it.text.split(' ').count() as f64);
            for (at, wording) in all.iter().enumerate().skip(1) {
                assert_eq!(wording.name, format!("{}@{at}", prompt.name));
                assert!(all[..at].iter().all(|other| other.text != wording.text), "{}", wording.name);
                for needle in [format!("<{tag}> "), format!(" </{tag}>"), "<answer>".into(), r"\boxed{}".into()] {
                    assert!(wording.text.contains(&needle), "{} does not contain {needle}", wording.name);
                }
                assert!(wording.text.contains("the letter of a choice") && !wording.text.contains('\n'));
                let ratio = words(wording) / words(prompt);
                assert!((0.8..1.25).contains(&ratio), "{}: {ratio}", wording.name);
                let same = PriorPrompt { name: prompt.name.clone(), text: prompt.text.clone(), ..wording.clone() };
                assert_eq!(same, *prompt);
            }
        }
        assert_eq!(find("think@2").unwrap(), wordings("reasoning").unwrap()[2]);
        assert_eq!(find("reasoning@0").unwrap(), shipped()[1]);
        assert_eq!(find_shipped("planning@4").unwrap().strategy(), "planning");
        let error = |name: &str| find(name).unwrap_err().to_string();
        assert_eq!(error("reasoning@5"), "the prior prompt `reasoning` has the wordings 0 to 4, not 5");
        assert_eq!(error("none@1"), "the prior prompt `none` has only wording 0, not 1");
        assert!(error("reasoning@").starts_with("unknown prior prompt `reasoning@`"));
        assert!(error("@1").starts_with("unknown prior prompt `@1`"));
    }

    #[test]
    fn a_users_file_can_have_wordings() {
        let text =
            "name = \"mine\"\ntext = \"Think.\"\n[[wording]]\ntext = \"Ponder.\"\n[[wording]]\ntext = \"Muse.\"\n";
        let (_folder, path) = user_file(text);
        assert_eq!(find(&path).unwrap().text, "Think.");
        let second = find(&format!("{path}@2")).unwrap();
        assert_eq!((second.name.as_str(), second.text.as_str(), second.strategy()), ("mine@2", "Muse.", "mine"));
        assert!(find(&format!("{path}@3")).unwrap_err().to_string().ends_with("has the wordings 0 to 2, not 3"));
        for wrong in ["wording = 1\n", "[[wording]]\ntxt = \"\"\n", "wording = [\"a\"]\n", "[wording]\ntext = \"\"\n"] {
            let (_folder, path) = user_file(&format!("name = \"mine\"\ntext = \"Think.\"\n{wrong}"));
            let error = find(&path).unwrap_err().to_string();
            assert!(error.contains("mine.toml:3:") && error.contains("expected `[[wording]]` entries"), "{error}");
        }
    }

    fn user_file(text: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path.to_string_lossy().into_owned())
    }

    #[test]
    fn the_wording_of_a_users_file_is_its_name_and_hash() {
        let text = "name = \"mine\"\ntext = \"Think.\"\ntag = \"t\"\nanswer_tag = \"a\"\nrole = \"user\"\n";
        let (_folder, path) = user_file(text);
        let prompt = find(&path).unwrap();
        assert_eq!((prompt.name.as_str(), prompt.role, prompt.tag.as_deref()), ("mine", Role::User, Some("t")));
        let (file, hash) = prompt.wording.split_once(' ').unwrap();
        assert_eq!((file, hash.len()), ("mine.toml", 12));
        let (_other_folder, other) = user_file(&text.replace("Think.", "Think!"));
        assert_ne!(find(&other).unwrap().wording, prompt.wording);
    }

    #[test]
    fn a_users_file_must_be_a_prompt() {
        for (text, complaint) in [
            ("name = \"x\"\ntext = \"\"\ncolor = 1\n", "mine.toml:3:1: unknown key `color`"),
            ("name = \"x\"\n", "the key `text` is missing"),
            ("name = \"x\"\ntext = \"\"\ntag = \"t\"\n", "`tag` requires `answer_tag`"),
            ("name = \"x\"\ntext = \"\"\ntag = \"<t>\"\nanswer_tag = \"a\"\n", "`<t>` is not a valid tag"),
            ("name = \"x\"\ntext = \"\"\ntag = \"a\"\nanswer_tag = \"a\"\n", "must differ"),
        ] {
            let (_folder, path) = user_file(text);
            let error = format!("{:#}", find(&path).unwrap_err());
            assert!(error.contains(complaint), "{error}");
        }
        let error = format!("{:#}", find("no/such.toml").unwrap_err());
        assert!(error.starts_with("read the prior prompt `no/such.toml`"), "{error}");
    }
}
