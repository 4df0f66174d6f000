//! Generates samples with a model in this process.

use anyhow::Result;

use super::engine::{Completer, Completion, Draw, Job, LENGTH, Watch};
use crate::model::lora::Adapter;
use crate::rollout::policy::Policy;
use crate::rollout::{self, Branch, Engine, Finish, Prompt, Request};

/// Uses the group engine, which generates complete groups. An interrupted group is generated again; its stored samples are kept.
pub struct Local<'a> {
    pub engine: Box<dyn Engine + 'a>,
    pub adapter: Option<&'a Adapter>,
    /// Its stop strings must be those of [`Draw::stop`].
    pub policy: &'a Policy,
}

/// The step number for the random numbers of evaluations. No training step has it.
const STEP: u64 = u64::MAX;

impl Completer for Local<'_> {
    fn complete(&mut self, jobs: &[Job], draw: &Draw, watch: &mut dyn Watch) -> Result<()> {
        let Some(last) = jobs.iter().filter_map(|job| job.samples.last()).max() else { return Ok(()) };
        let prompts: Vec<Prompt> =
            jobs.iter().map(|job| Prompt { ids: job.prompt.ids.clone(), key: job.key }).collect();
        let request = Request {
            prompts: &prompts,
            num_generations: last + 1,
            sampling: &draw.sampling,
            max_completion_length: draw.max_tokens,
            seed: draw.seed,
            step: STEP,
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
    jobs: &'a [Job<'a>],
    policy: &'a Policy,
    watch: &'a mut dyn Watch,
    failed: Option<anyhow::Error>,
}

impl Groups<'_> {
    fn completion(&self, branch: &Branch) -> Completion {
        let finish = match branch.finish {
            Finish::Length => LENGTH.to_owned(),
            finish => self.policy.finish_name(finish),
        };
        Completion { text: self.policy.text(branch), tokens: branch.tokens.len(), finish }
    }
}

impl rollout::Watch for Groups<'_> {
    fn token(&mut self, _prompt: usize, _branch: usize, _token: u32) {
        self.watch.tokens(1);
    }

    fn group(&mut self, prompt: usize, branches: &[Branch]) {
        let job = &self.jobs[prompt];
        for &sample in &job.samples {
            if self.failed.is_some() {
                return;
            }
            let completion = self.completion(&branches[sample]);
            self.failed = self.watch.sample(job.question, sample, completion).err();
        }
    }

    fn cancelled(&mut self) -> bool {
        self.failed.is_some() || self.watch.cancelled()
    }
}
