//! The maximum completion length that the model's context allows, and the prompts that leave too little of it.

use anyhow::{Result, bail, ensure};

use super::asked::EvalQuestion;
use super::profile::Style;

/// The share of the context that a prompt must leave for a completion, unless the default length is shorter: one part in this
/// number. Without it, one prompt that fills the context would reduce the completions of all questions to a few tokens.
const SHARE: usize = 4;

/// Maximum number of questions named in a note. `results.json` has all.
const NAMED: usize = 20;

/// What [`fit`] has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FitNotes {
    /// The maximum completion length was reduced.
    pub length: Option<String>,
    /// There are prompts that do not fit.
    pub does_not_fit: Option<String>,
}

/// Checks that the context has room for a length that the user set.
///
/// # Errors
/// It has no room after the longest prompt.
pub fn check(max_tokens: usize, asked: &[EvalQuestion], context: usize, name: &str) -> Result<()> {
    let longest = asked.iter().map(|it| it.prompt.ids.len()).max().unwrap_or(0);
    let room = context.saturating_sub(longest);
    ensure!(
        max_tokens <= room,
        "the longest prompt of `{name}` has {longest} tokens, which leaves {room} of the model's {context} for a completion\n\
         hint: {}",
        match room {
            0 => "omit --max-tokens; questions whose prompts do not fit then count as wrong".to_owned(),
            _ => format!("lower --max-tokens to {room}, or omit it"),
        }
    );
    Ok(())
}

/// Reduces the default length of `style` to what the longest prompt that fits leaves of the context, so that all questions have the
/// same length, and marks the prompts that do not fit.
///
/// # Errors
/// No prompt fits.
pub fn fit(style: &mut Style, asked: &mut [EvalQuestion], context: usize, name: &str) -> Result<FitNotes> {
    let least = style.max_tokens.min(context / SHARE).max(1);
    let (mut longest, mut shortest) = (0, usize::MAX);
    for question in asked.iter_mut() {
        let prompt = question.prompt.ids.len();
        question.fits = prompt + least <= context;
        shortest = shortest.min(prompt);
        if question.fits {
            longest = longest.max(prompt);
        }
    }
    let outside: Vec<&str> = asked.iter().filter(|it| !it.fits).map(|it| it.id.as_str()).collect();
    if outside.len() == asked.len() {
        bail!(
            "no prompt of `{name}` leaves {least} of the model's {context} tokens for a completion: the shortest has {shortest}\n\
             hint: use a model with a longer context"
        );
    }
    let mut notes = FitNotes::default();
    let room = context - longest;
    if room < style.max_tokens {
        notes.length = Some(format!(
            "completions have at most {room} tokens instead of {}, because the model's context has {context} and the longest \
             prompt {longest}",
            style.max_tokens
        ));
        style.max_tokens = room;
    }
    if !outside.is_empty() {
        let named = outside[..outside.len().min(NAMED)].join(", ");
        let more = match outside.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more, which `results.json` lists"),
        };
        notes.does_not_fit = Some(format!(
            "{} of {} questions count as wrong, because their prompts leave fewer than {least} of the model's {context} tokens \
             for a completion: {named}{more}",
            outside.len(),
            asked.len()
        ));
    }
    Ok(notes)
}
