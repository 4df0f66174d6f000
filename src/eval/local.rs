//! Generates samples with a model in this process.

use anyhow::Result;

use super::engine::{Completer, Draw, EvalCompletion, EvalJob, EvalWatch, LENGTH};
use crate::model::lora::Adapter;
use crate::rollout::policy::Policy;
use crate::rollout::{self, Completion, EVALUATION_STEP, Engine, Finish, Prompt, RolloutRequest};

/// Uses the group engine, which generates complete groups. An interrupted group is generated again; its stored samples are kept.
pub struct Local<'a> {
    pub engine: Box<dyn Engine + 'a>,
    pub adapter: Option<&'a Adapter>,
    /// Its stop strings must be those of [`Draw::stop`].
    pub policy: &'a Policy,
}

impl Completer for Local<'_> {
    fn complete(&mut self, jobs: &[EvalJob], draw: &Draw, watch: &mut dyn EvalWatch) -> Result<()> {
        let Some(last) = jobs.iter().filter_map(|job| job.samples.last()).max() else { return Ok(()) };
        let prompts: Vec<Prompt> =
            jobs.iter().map(|job| Prompt { ids: job.prompt.ids.clone(), key: job.key }).collect();
        let request = RolloutRequest {
            prompts: &prompts,
            num_generations: last + 1,
            sampling: &draw.sampling,
            max_completion_length: draw.max_tokens,
            seed: draw.seed,
            step: EVALUATION_STEP,
            ends: &|tokens| self.policy.ends(tokens),
            stop_tokens: &self.policy.stop_tokens,
        };
        let mut groups = Groups { jobs, policy: self.policy, watch, failed: None };
        self.engine.generate(self.adapter, &request, &mut groups)?;
        groups.failed.map_or(Ok(()), Err)
    }
}

/// Selects the requested samples of complete groups.
struct Groups<'a> {
    jobs: &'a [EvalJob<'a>],
    policy: &'a Policy,
    watch: &'a mut dyn EvalWatch,
    failed: Option<anyhow::Error>,
}

impl Groups<'_> {
    fn completion(&self, completion: &Completion) -> EvalCompletion {
        let finish = match completion.finish {
            Finish::Length => LENGTH.to_owned(),
            finish => self.policy.finish_name(finish),
        };
        EvalCompletion { text: self.policy.text(completion), tokens: completion.tokens.len(), finish }
    }
}

impl rollout::RolloutWatch for Groups<'_> {
    fn token(&mut self, _prompt: usize, _completion: usize, _token: u32) {
        self.watch.tokens(1);
    }

    fn group(&mut self, prompt: usize, completions: &[Completion]) {
        let job = &self.jobs[prompt];
        for &sample in &job.samples {
            if self.failed.is_some() {
                return;
            }
            let completion = self.completion(&completions[sample]);
            self.failed = self.watch.sample(job.question, sample, completion).err();
        }
    }

    fn cancelled(&mut self) -> bool {
        self.failed.is_some() || self.watch.cancelled()
    }
}
