//! The training loop in a test setup: a tiny random decoder, an engine that returns the completions that a test
//! specifies, and a folder for the run. A step takes milliseconds.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use rft::config::{ConfigLayers, RunConfig, resolve};
use rft::data::Question;
use rft::device::cpu::decoder::CpuDecoder;
use rft::device::cpu::learner::CpuLearner;
use rft::grpo::learner::{Keep, Learner};
use rft::model::config::ModelConfig;
use rft::model::lora::Adapter;
use rft::model::pack::Pack;
use rft::model::source::ModelSource;
use rft::model::weights::{RandomWeights, Weights};
use rft::prompt::{Mixture, PriorPrompt};
use rft::reward::RewardSet;
use rft::rollout::mock::MockEngine;
use rft::rollout::policy::Policy;
use rft::rollout::{Completion, Engine, Prompt, RolloutRequest, RolloutWatch};
use rft::run::metrics::MetricsRecord;
use rft::run::{GroupRecord, Progress, RunDir, Stop, completions, metrics};
use rft::train::sample::{RolloutScorer, TrainQuestion, render_all};
use rft::train::state::TrainState;
use rft::train::{TrainOutcome, Training, train};
use tempfile::TempDir;

pub struct Lab {
    pub config: RunConfig,
    pub policy: Policy,
    pub decoder: CpuDecoder,
    pub stop: Stop,
    mixture: Mixture,
    rewards: RewardSet,
    pub questions: Vec<TrainQuestion>,
    pub held_out: Vec<TrainQuestion>,
    pub folder: TempDir,
    said: Said,
}

/// The completions of a test's engine: (prompt, completion, step) to tokens.
pub type Respond<'a> = Box<dyn FnMut(&Prompt, usize, u64) -> Vec<u32> + 'a>;

impl Lab {
    /// Two steps of two questions with four completions each, with the changes in `sets`.
    pub fn new(sets: &[&str]) -> Self {
        let own = [
            "prompt.ppe=null-example",
            "rollout.prompts_per_step=2",
            "rollout.num_generations=4",
            "rollout.max_completion_length=80",
            "data.shuffle=false",
            "eval.questions=2",
            "lora.r=4",
            "train.steps=2",
        ];
        let sets = own.iter().chain(sets).map(ToString::to_string).collect();
        let layers = ConfigLayers { preset: Some("tiny".to_owned()), sets, ..ConfigLayers::default() };
        let config = resolve(&layers).unwrap().config;
        let mixture = Mixture::of_config(&config.prompt).unwrap();
        let prompts: Vec<&PriorPrompt> = mixture.prompts().collect();
        let rewards = RewardSet::for_prompts(&config.reward, &prompts, config.rollout.max_completion_length).unwrap();
        let source = ModelSource::open("tiny", "main").unwrap();
        let policy = Policy::load(&source, &config).unwrap();
        let model = ModelConfig {
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 8,
            ..source.config.clone()
        };
        let decoder = decoder(&model, &RandomWeights::new(&model, 5));
        let question = |i: usize| Question {
            id: format!("sum/{i}"),
            text: format!("What is {} + 5 - {}?", i, i),
            gold: "5".to_owned(),
            source: "lab".to_owned(),
            extra: serde_json::Map::new(),
        };
        let items = |range: std::ops::Range<usize>| {
            let questions = range.map(question).collect();
            render_all(&policy, &mixture, false, questions, config.rollout.max_prompt_length).unwrap().0
        };
        let (questions, held_out) = (items(0..8), items(8..8 + config.eval.questions));
        let (stop, folder, said) = (Stop::manual(), tempfile::tempdir().unwrap(), Said::default());
        Self { config, policy, decoder, stop, mixture, rewards, questions, held_out, folder, said }
    }

    /// Loads a decoder of the same shape with other weights.
    pub fn reload(&mut self, weights: impl FnOnce(RandomWeights) -> Box<dyn Weights>) {
        let model = self.decoder.config.clone();
        self.decoder = decoder(&model, &*weights(RandomWeights::new(&model, 5)));
    }

    pub fn run_dir(&self) -> RunDir {
        let path = self.folder.path().join("run");
        if path.exists() { RunDir::open(&path) } else { RunDir::create(self.folder.path(), Some("run"), "") }.unwrap()
    }

    /// A new state, or the state of the newest checkpoint.
    pub fn state(&self) -> TrainState {
        let (run, model) = (self.run_dir(), &self.decoder.config);
        match run.newest_checkpoint(|step, error| panic!("step {step}: {error:#}")).unwrap() {
            Some(step) => TrainState::load(&run.checkpoint(step), model, &self.config.lora),
            None => TrainState::new(model, &self.config.lora, self.config.train.seed),
        }
        .unwrap()
    }

    pub fn train(&self, engine: &mut dyn Engine, state: &mut TrainState) -> Result<TrainOutcome> {
        self.train_on(&mut CpuLearner::new(&self.decoder), engine, state)
    }

    pub fn train_on(
        &self,
        learner: &mut dyn Learner,
        engine: &mut dyn Engine,
        state: &mut TrainState,
    ) -> Result<TrainOutcome> {
        let (config, run) = (&self.config, self.run_dir());
        let training = Training {
            config,
            scorer: RolloutScorer {
                policy: &self.policy,
                mixture: &self.mixture,
                rewards: &self.rewards,
                prefill: false,
                max_completion_length: config.rollout.max_completion_length,
                truncation_penalty: config.grpo.truncation_penalty,
                seed: config.train.seed,
            },
            base: "lab",
            questions: &self.questions,
            held_out: &self.held_out,
            run: &run,
            progress: &Progress::lines(config.total_steps(self.questions.len()), self.said.clone()),
            show_completions: 0,
            stop: &self.stop,
        };
        train(&training, engine, learner, state)
    }

    /// Trains from a new state with an engine that returns `respond`; returns the state at the end.
    pub fn run<'a>(&'a self, respond: impl FnMut(&Prompt, usize, u64) -> Vec<u32> + 'a) -> (TrainOutcome, TrainState) {
        let mut state = self.state();
        let outcome = self.train(&mut self.engine(respond), &mut state).unwrap();
        (outcome, state)
    }

    pub fn engine<'a>(&'a self, respond: impl FnMut(&Prompt, usize, u64) -> Vec<u32> + 'a) -> Honest<'a> {
        let respond: Respond = Box::new(respond);
        let temperature = self.config.rollout.temperature as f32;
        Honest { mock: MockEngine { respond }, decoder: &self.decoder, temperature }
    }

    /// The tokens of a completion that ends by itself.
    pub fn ended(&self, text: &str) -> Vec<u32> {
        let mut tokens = self.cut(text);
        tokens.push(self.policy.stop_tokens[0]);
        tokens
    }

    /// The tokens of a truncated completion.
    pub fn cut(&self, text: &str) -> Vec<u32> {
        self.policy.tokenizer.encode(text)
    }

    /// A completion with the right answer in the right format.
    pub fn right(&self) -> Vec<u32> {
        let tag = self.mixture.parts()[0].prompt.tag.as_deref().unwrap();
        self.ended(&format!("<{tag}>1 + 1 = 2</{tag}><answer>\\boxed{{5}}</answer>"))
    }

    /// The metrics of the training steps.
    pub fn metrics(&self) -> Vec<MetricsRecord> {
        let mut lines = metrics::read(&self.run_dir().metrics()).unwrap();
        lines.retain(|line| line.values.contains_key("reward"));
        lines
    }

    pub fn completions(&self) -> Vec<GroupRecord> {
        completions::read(&self.run_dir().completions()).unwrap()
    }

    /// All messages of the run to the user.
    pub fn said(&self) -> String {
        String::from_utf8(self.said.0.lock().unwrap().clone()).unwrap()
    }
}

fn decoder(model: &ModelConfig, weights: &dyn Weights) -> CpuDecoder {
    CpuDecoder::load(model.clone(), weights, 512).unwrap()
}

/// An engine that returns the specified completions with their true log-probabilities.
pub struct Honest<'a> {
    mock: MockEngine<Respond<'a>>,
    decoder: &'a CpuDecoder,
    temperature: f32,
}

impl Engine for Honest<'_> {
    fn generate(
        &mut self,
        adapter: Option<&Adapter>,
        request: &RolloutRequest,
        watch: &mut dyn RolloutWatch,
    ) -> Result<Option<Vec<Vec<Completion>>>> {
        let Some(mut groups) = self.mock.generate(adapter, request, watch)? else { return Ok(None) };
        for (prompt, completions) in request.prompts.iter().zip(&mut groups) {
            for completion in completions {
                let mut pack = Pack::default();
                pack.push(&prompt.ids, &[&completion.tokens]);
                let activations = self.decoder.forward(adapter, &pack, Keep::Nothing);
                let stats = self.decoder.head().forward(&activations.hidden, &pack.pairs, self.temperature);
                completion.logprobs = stats.iter().map(|stats| stats.logprob).collect();
            }
        }
        Ok(Some(groups))
    }
}

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
