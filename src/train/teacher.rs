//! The teacher of a distilled prior prompt: the model without an adapter, under that prompt. The trained model, its student,
//! samples without a prior prompt.

use anyhow::{Result, ensure};

use super::sample::TrainQuestion;
use crate::config::{NO_PROMPT, RunConfig};
use crate::data::Question;
use crate::prompt::Mixture;
use crate::rng::name_hash;
use crate::rollout::policy::Policy;

/// # Errors
/// The prior prompts of the run cannot be distilled: they are several, or none.
pub fn check(config: &RunConfig, mixture: &Mixture) -> Result<()> {
    ensure!(
        !mixture.is_mixed(),
        "`prompt.mix`: train.method = \"distill\" distills one prior prompt\nhint: choose one with --ppe"
    );
    ensure!(
        mixture.prompts().all(|prior| prior.name != NO_PROMPT),
        "`prompt.ppe`: train.method = \"distill\" distills a prior prompt, and `{NO_PROMPT}` is none\n\
         hint: choose a prior prompt with --ppe"
    );
    ensure!(
        !config.prompt.prefill,
        "`prompt.prefill`: a completion of the teacher would start with the opening tag, and one of the student, which has no \
         prior prompt, would not\nhint: set prompt.prefill = false"
    );
    Ok(())
}

/// Adds the teacher's prompt to each of `items`. Questions whose prompt is longer than `max_length` are left out; they are the second
/// value.
pub fn render(
    policy: &Policy,
    mixture: &Mixture,
    items: Vec<TrainQuestion>,
    max_length: usize,
) -> Result<(Vec<TrainQuestion>, Vec<Question>)> {
    let (mut rendered, mut left_out) = (Vec::with_capacity(items.len()), Vec::new());
    let prior = &mixture.parts()[0].prompt;
    for item in items {
        let prompt = policy.prompt(prior, &item.question.text, false, name_hash(&item.question.id))?;
        if prompt.ids.len() <= max_length {
            rendered.push(TrainQuestion { teacher: Some(prompt.ids), ..item });
        } else {
            left_out.push(item.question);
        }
    }
    Ok((rendered, left_out))
}
