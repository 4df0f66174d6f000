//! The prior prompts that are compiled in, and the way to a user's own.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{PriorPrompt, Role};

/// File, and the other names it answers to. The order is the one every listing shows.
const SHIPPED: [(&str, &[&str]); 6] = [
    (include_str!("../../prompts/none.toml"), &[]),
    (include_str!("../../prompts/reasoning.toml"), &["think"]),
    (include_str!("../../prompts/planning.toml"), &["plan"]),
    (include_str!("../../prompts/code.toml"), &[]),
    (include_str!("../../prompts/recall.toml"), &["knowledge"]),
    (include_str!("../../prompts/null-example.toml"), &["examples"]),
];

/// Prompts that no study proposes and that tell what the others' parts do: file, and the other names it answers to.
const CONTROLS: [(&str, &[&str]); 2] =
    [(include_str!("../../prompts/answer-only.toml"), &[]), (include_str!("../../prompts/tag-swap.toml"), &[])];

/// A prompt as its TOML file states it. Whose words they are is not for the file to say.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    text: String,
    tag: Option<String>,
    answer_tag: Option<String>,
    #[serde(default)]
    role: Role,
    #[serde(default)]
    paper_name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    stems_from: String,
}

impl PriorPrompt {
    /// The prompt as a TOML file that [`find`] reads back.
    pub fn to_toml(&self) -> String {
        let prompt = self.clone();
        let file = File {
            name: prompt.name,
            text: prompt.text,
            tag: prompt.tag,
            answer_tag: prompt.answer_tag,
            role: prompt.role,
            paper_name: prompt.paper_name,
            description: prompt.description,
            stems_from: prompt.stems_from,
        };
        toml::to_string_pretty(&file).expect("a prompt holds only what TOML can hold")
    }
}

/// The six prompts that come with `rft`, `none` first.
pub fn shipped() -> &'static [PriorPrompt] {
    static PROMPTS: OnceLock<Vec<PriorPrompt>> = OnceLock::new();
    PROMPTS.get_or_init(|| SHIPPED.iter().map(|(file, _)| parse_shipped(file)).collect())
}

/// The prompts that come with `rft` as controls: `answer-only` has the frame of the others without a first element, `tag-swap`
/// the words of one with the tags of another.
pub fn controls() -> &'static [PriorPrompt] {
    static PROMPTS: OnceLock<Vec<PriorPrompt>> = OnceLock::new();
    PROMPTS.get_or_init(|| CONTROLS.iter().map(|(file, _)| parse_shipped(file)).collect())
}

fn parse_shipped(file: &str) -> PriorPrompt {
    parse(file, "rft".to_owned()).expect("a shipped prompt is well-formed")
}

/// Every prompt that comes with `rft`, with its other names.
fn known() -> impl Iterator<Item = (&'static PriorPrompt, &'static [&'static str])> {
    let prompts = shipped().iter().zip(SHIPPED).chain(controls().iter().zip(CONTROLS));
    prompts.map(|(prompt, (_, aliases))| (prompt, aliases))
}

/// The prompt called `name_or_path`: a shipped one by its name or alias, else the user's TOML file at that path.
///
/// # Errors
/// A name that nobody bears; a file that cannot be read or is not a prompt.
pub fn find(name_or_path: &str) -> anyhow::Result<PriorPrompt> {
    if let Some(prompt) = find_shipped(name_or_path) {
        return Ok(prompt.clone());
    }
    let path = Path::new(name_or_path);
    if path.is_file() || path.components().count() > 1 || path.extension().is_some() {
        return read(path);
    }
    let names = known().map(|(prompt, _)| prompt.name.as_str()).collect::<Vec<_>>().join(", ");
    bail!("no prior prompt is called `{name_or_path}`; there are {names}\nhint: {}", advice(name_or_path));
}

/// The shipped prompt called `name`, by its name or alias.
pub fn find_shipped(name: &str) -> Option<&'static PriorPrompt> {
    known().find(|(prompt, aliases)| prompt.name == name || aliases.contains(&name)).map(|(prompt, _)| prompt)
}

/// A prompt in a user's file; its wording names the file and what stood in it.
fn read(path: &Path) -> anyhow::Result<PriorPrompt> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read the prior prompt `{}`", path.display()))?;
    let hash = hex::encode(&Sha256::digest(&text)[..6]);
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    parse(&text, format!("{file} {hash}")).with_context(|| format!("read the prior prompt `{}`", path.display()))
}

fn parse(toml: &str, wording: String) -> anyhow::Result<PriorPrompt> {
    let File { name, text, tag, answer_tag, role, paper_name, description, stems_from } = toml::from_str(toml)?;
    ensure!(tag.is_none() || answer_tag.is_some(), "`tag` goes with an `answer_tag`: the answer follows what it holds");
    ensure!(tag.is_none() || tag != answer_tag, "`tag` and `answer_tag` must differ");
    for tag in tag.iter().chain(&answer_tag) {
        let plain = tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        ensure!(plain && !tag.is_empty(), "the tag `{tag}` must be a bare word\nhint: write `think`, not `<think>`");
    }
    Ok(PriorPrompt { name, paper_name, tag, answer_tag, role, text, description, stems_from, wording })
}

/// The nearest name where one is near, else how to give a file.
fn advice(name: &str) -> String {
    known()
        .flat_map(|(prompt, aliases)| std::iter::once(prompt.name.as_str()).chain(aliases.iter().copied()))
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 2)
        .map_or_else(
            || "give the path of a TOML file for a prompt of your own".to_owned(),
            |(_, known)| format!("did you mean `{known}`?"),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_prompt_asks_for_its_own_tags_and_a_box() {
        let names: Vec<_> = shipped().iter().map(|prompt| prompt.name.as_str()).collect();
        assert_eq!(names, ["none", "reasoning", "planning", "code", "recall", "null-example"]);
        for prompt in &shipped()[1..] {
            let (tag, answer) = (prompt.tag.as_ref().unwrap(), prompt.answer_tag.as_ref().unwrap());
            for needle in [format!("<{tag}>"), format!("</{tag}>"), format!("<{answer}>"), r"\boxed{}".to_owned()] {
                assert!(prompt.text.contains(&needle), "{} lacks {needle}", prompt.name);
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
    fn aliases_lead_to_their_prompts() {
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
    fn an_unknown_name_is_an_error_with_the_nearest_one() {
        let error = find("reasning").unwrap_err().to_string();
        assert!(
            error.contains("none, reasoning, planning, code, recall, null-example, answer-only, tag-swap"),
            "{error}"
        );
        assert!(error.ends_with("\nhint: did you mean `reasoning`?"), "{error}");
        assert!(find("zzzzzzzzzz").unwrap_err().to_string().contains("hint: give the path of a TOML file"));
    }

    fn user_file(text: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path.to_string_lossy().into_owned())
    }

    #[test]
    fn a_users_file_carries_its_name_and_hash() {
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
            ("name = \"x\"\ntext = \"\"\ncolour = 1\n", "unknown field `colour`"),
            ("name = \"x\"\n", "missing field `text`"),
            ("name = \"x\"\ntext = \"\"\ntag = \"t\"\n", "goes with an `answer_tag`"),
            ("name = \"x\"\ntext = \"\"\ntag = \"<t>\"\nanswer_tag = \"a\"\n", "bare word"),
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
