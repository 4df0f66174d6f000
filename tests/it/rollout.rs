//! The engine's promises: the tokens are a function of the request only, and the log-probabilities that it records
//! are bit-identical to those that training computes.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::qwen2;
use rft::config::LoraSection;
use rft::device::cpu::decoder::CpuDecoder;
use rft::device::cpu::engine::CpuEngine;
use rft::grpo::learner::Keep;
use rft::model::config::{Architecture, ModelConfig};
use rft::model::lora::Adapter;
use rft::model::pack::Pack;
use rft::model::reference::Reference;
use rft::model::weights::{RandomWeights, Weights};
use rft::ops::attention::{self, KvSpan, Part};
use rft::rng::{Purpose, Stream};
use rft::rollout::{Completion, Engine, Finish, Prompt, RolloutRequest, RolloutWatch, Sampling, Unwatched};
use std::collections::{BTreeMap, HashMap};

/// Random weights ten times as large as usual: their logits differ clearly.
struct Loud(RandomWeights);

impl Weights for Loud {
    fn get(&self, name: &str, shape: &[usize]) -> anyhow::Result<Vec<f32>> {
        let mut values = self.0.get(name, shape)?;
        if !name.ends_with("norm.weight") {
            values.iter_mut().for_each(|value| *value *= 10.0);
        }
        Ok(values)
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// The shape of the embedded model, with two layers.
fn small() -> ModelConfig {
    ModelConfig::qwen2(2, 128, (4, 2), 384, 333)
}

/// Products deeper than 512, odd widths, and more weights than the engine assumes to fit in the caches.
fn large() -> ModelConfig {
    let config = ModelConfig {
        architecture: Architecture::Qwen3,
        hidden_size: 520,
        intermediate_size: 1201,
        num_attention_heads: 5,
        num_key_value_heads: 1,
        head_dim: 64,
        qkv_bias: false,
        qk_norm: true,
        tie_word_embeddings: false,
        ..small()
    };
    assert!(decoder(&config).weight_bytes() > 16 << 20);
    config
}

fn decoder(config: &ModelConfig) -> CpuDecoder {
    let weights = Loud(RandomWeights::new(config, 1));
    CpuDecoder::load(config.clone(), &weights, config.max_position_embeddings).unwrap()
}

/// An adapter with a nonzero B, so that it changes the policy.
fn adapter(config: &ModelConfig) -> Adapter {
    let mut adapter = Adapter::new(config, &LoraSection::all_linear(8), 1).unwrap();
    let stream = Stream::new(31, Purpose::Test, &[]);
    let noise = (0..).map(|i| 0.05 * stream.normal(i) as f32);
    adapter.params.iter_mut().zip(noise).for_each(|(value, noise)| *value += noise);
    adapter
}

fn tokens(path: u64, len: usize, config: &ModelConfig) -> Vec<u32> {
    let stream = Stream::new(32, Purpose::Test, &[path]);
    (0..len as u64).map(|i| stream.below(i, config.vocab_size as u64) as u32).collect()
}

/// Prompts of different lengths, one longer than a block of keys.
fn prompts(config: &ModelConfig) -> Vec<Prompt> {
    let lengths = [5, 70, 1, 33, 12].into_iter().enumerate();
    lengths.map(|(i, len)| Prompt { ids: tokens(i as u64, len, config), key: 100 + i as u64 }).collect()
}

/// 24 tokens for each of 4 completions, without stop rules.
fn request<'a>(prompts: &'a [Prompt], sampling: &'a Sampling) -> RolloutRequest<'a> {
    RolloutRequest {
        prompts,
        num_generations: 4,
        sampling,
        max_completion_length: 24,
        seed: 7,
        step: 3,
        ends: &|_| false,
        stop_tokens: &[],
    }
}

fn generate(
    decoder: &CpuDecoder,
    adapter: Option<&Adapter>,
    max_rows: usize,
    request: &RolloutRequest,
) -> Vec<Vec<Completion>> {
    let mut engine = CpuEngine { decoder, max_rows };
    engine.generate(adapter, request, &mut Unwatched).unwrap().expect("the request was canceled")
}

fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

const ROWS: [usize; 7] = [1, 2, 16, 17, 64, 65, 512];

/// A token's hidden row does not depend on how many rows are computed with it.
#[test]
fn a_hidden_row_does_not_depend_on_other_rows() {
    for config in [small(), large()] {
        let (decoder, adapter) = (decoder(&config), adapter(&config));
        let width = config.hidden_size;
        let sequence = tokens(9, 600, &config);
        let hidden = |prompt: &[u32], completions: &[&[u32]]| {
            let mut pack = Pack::default();
            pack.push(prompt, completions);
            decoder.forward(Some(&adapter), &pack, Keep::Nothing).hidden
        };
        let all = hidden(&sequence, &[]);
        for rows in ROWS {
            assert!(hidden(&sequence[..rows], &[]) == all[..rows * width], "the first {rows} rows of 600");
        }
        // One row each: a completion of two tokens is one row and its target.
        let completions: Vec<&[u32]> = sequence.chunks(2).cycle().take(600).collect();
        let (prompt, all) = (&sequence[..3], hidden(&sequence[..3], &completions));
        for rows in ROWS {
            let some = hidden(prompt, &completions[600 - rows..]);
            assert!(some[3 * width..] == all[(603 - rows) * width..], "the last {rows} of 600 completions");
        }
    }
}

/// Decoding one token of some completions with their caches gives the rows of the pack that contains all of them.
#[test]
fn a_decode_step_gives_the_rows_of_the_packed_forward() {
    const STEPS: usize = 3;
    for config in [small(), large()] {
        let (decoder, adapter) = (decoder(&config), adapter(&config));
        let (heads, width) = (decoder.heads(), config.hidden_size);
        let prompt = tokens(0, 70, &config);
        let completions: Vec<Vec<u32>> = (1..=512).map(|i| tokens(i, STEPS + 1, &config)).collect();
        let mut pack = Pack::default();
        pack.push(&prompt, &completions.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let packed = decoder.forward(Some(&adapter), &pack, Keep::Nothing).hidden;

        let positions: Vec<u32> = (0..70).collect();
        let mut prefix = Vec::new();
        decoder.infer(Some(&adapter), &prompt, &positions, |_, qkv| {
            let mut span = KvSpan::new(heads, 70);
            span.extend(qkv);
            prefix.push(span);
            attention::forward(heads, qkv, &[Part { prompt: 0..70, branches: vec![] }]).0
        });
        for rows in ROWS {
            let mut own = vec![vec![KvSpan::new(heads, STEPS); rows]; config.num_hidden_layers];
            for step in 0..STEPS {
                let drawn: Vec<u32> = completions[..rows].iter().map(|completion| completion[step]).collect();
                let hidden = decoder.infer(Some(&adapter), &drawn, &vec![70 + step as u32; rows], |layer, qkv| {
                    let mut own: Vec<&mut KvSpan> = own[layer].iter_mut().collect();
                    attention::decode(heads, qkv, &vec![&prefix[layer]; rows], &mut own)
                });
                for (completion, row) in hidden.chunks(width).enumerate() {
                    let at = (70 + completion * STEPS + step) * width;
                    assert!(row == &packed[at..at + width], "step {step} of completion {completion} among {rows}");
                }
            }
        }
    }
}

#[test]
fn the_tokens_do_not_depend_on_the_schedule() {
    for config in [small(), large()] {
        let (decoder, adapter) = (decoder(&config), adapter(&config));
        let (prompts, sampling) = (prompts(&config), Sampling::plain(1.0));
        // Some completions end early, so that freed rows are reused.
        let request =
            RolloutRequest { ends: &|tokens| tokens[tokens.len() - 1] % 16 == 0, ..request(&prompts, &sampling) };
        let expected = generate(&decoder, Some(&adapter), 1000, &request);
        for (threads, max_rows) in [(1, 1), (1, 64), (2, 3), (2, 64), (4, 1), (4, 3), (4, 17)] {
            let got = with_threads(threads, || generate(&decoder, Some(&adapter), max_rows, &request));
            assert_eq!(got, expected, "{threads} threads, {max_rows} rows");
        }
        let reversed: Vec<Prompt> = prompts.iter().rev().cloned().collect();
        let mut got = generate(&decoder, Some(&adapter), 3, &RolloutRequest { prompts: &reversed, ..request });
        got.reverse();
        assert_eq!(got, expected, "prompts in reverse order");
        let more = generate(&decoder, Some(&adapter), 7, &RolloutRequest { num_generations: 6, ..request });
        assert!(more.iter().zip(&expected).all(|(more, group)| more[..4] == group[..]), "more completions per prompt");
    }
}

#[test]
fn completions_differ_by_index_step_and_seed() {
    let config = small();
    let (decoder, prompts, sampling) = (decoder(&config), prompts(&config), Sampling::plain(1.0));
    let request = request(&prompts, &sampling);
    let completions = |request: &RolloutRequest| {
        let groups = generate(&decoder, None, 64, request);
        groups.into_iter().flatten().map(|completion| completion.tokens).collect::<Vec<_>>()
    };
    let mut all = completions(&request);
    all.extend(completions(&RolloutRequest { step: 4, ..request }));
    all.extend(completions(&RolloutRequest { seed: 8, ..request }));
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

/// The gap between sampler and trainer is zero.
#[test]
fn recorded_log_probabilities_are_the_recomputed_ones() {
    for config in [small(), large()] {
        let (decoder, adapter, prompts) = (decoder(&config), adapter(&config), prompts(&config));
        for (adapter, sampling) in [
            (None, Sampling::plain(1.0)),
            (Some(&adapter), Sampling::plain(1.0)),
            (Some(&adapter), Sampling::plain(0.7)),
            (Some(&adapter), Sampling { top_k: 20, top_p: 0.9, min_p: 0.01, temperature: 1.3 }),
            (Some(&adapter), Sampling::greedy()),
        ] {
            let groups = generate(&decoder, adapter, 9, &request(&prompts, &sampling));
            let mut pack = Pack::default();
            for (prompt, group) in prompts.iter().zip(&groups) {
                pack.push(&prompt.ids, &group.iter().map(|completion| &completion.tokens[..]).collect::<Vec<_>>());
            }
            let hidden = decoder.forward(adapter, &pack, Keep::Nothing).hidden;
            let stats = decoder.head().forward(&hidden, &pack.pairs, sampling.policy_temperature());
            let recorded = groups.iter().flatten().flat_map(|completion| &completion.logprobs);
            assert!(recorded.eq(stats.iter().map(|stats| &stats.logprob)), "{sampling:?}");
            let mean = stats.iter().map(|stats| stats.logprob).sum::<f32>() / stats.len() as f32;
            assert!(mean.is_finite() && mean > -4.5, "mean {mean}: the logits of this model are nearly equal");
        }
    }
}

/// Stopping truncates a completion and does not change the tokens before.
#[test]
fn completions_end_at_the_first_reason() {
    let config = small();
    let (decoder, prompts, sampling) = (decoder(&config), prompts(&config), Sampling::plain(1.0));
    let whole = request(&prompts, &sampling);
    let unstopped = generate(&decoder, None, 64, &whole);
    assert!(unstopped.iter().flatten().all(|b| b.finish == Finish::Length && b.tokens.len() == 24));

    let stop_tokens: Vec<u32> = (0..12).collect();
    let ends = |tokens: &[u32]| tokens.len() > 1 && tokens.iter().rev().take(2).all(|token| token % 5 == 0);
    let stopped = generate(&decoder, None, 6, &RolloutRequest { stop_tokens: &stop_tokens, ends: &ends, ..whole });
    let (mut by_token, mut by_string, mut by_length) = (0, 0, 0);
    for (whole, completion) in unstopped.iter().flatten().zip(stopped.iter().flatten()) {
        let reason = (1..=24).find_map(|len| {
            let tokens = &whole.tokens[..len];
            let last = tokens[len - 1];
            let by_text = ends(tokens).then_some(Finish::String);
            stop_tokens.contains(&last).then_some(Finish::Token(last)).or(by_text).map(|finish| (len, finish))
        });
        let (len, finish) = reason.unwrap_or((24, Finish::Length));
        assert_eq!((&completion.tokens[..], &completion.logprobs[..]), (&whole.tokens[..len], &whole.logprobs[..len]));
        assert_eq!(completion.finish, finish);
        match finish {
            Finish::Token(_) => by_token += 1,
            Finish::String => by_string += 1,
            Finish::Length => by_length += 1,
        }
    }
    assert!(
        by_token > 0 && by_string > 0 && by_length > 0,
        "{by_token}, {by_string}, {by_length}: a case does not occur"
    );

    let one = generate(&decoder, None, 6, &RolloutRequest { max_completion_length: 1, ..whole });
    assert!(one.iter().flatten().zip(unstopped.iter().flatten()).all(|(one, whole)| one.tokens == whole.tokens[..1]));
}

/// Counts the calls of `cancelled`, returns true for one of them, and stores every reported token.
#[derive(Default)]
struct Impatient {
    asked: usize,
    patience: Option<usize>,
    told: BTreeMap<(usize, usize), Vec<u32>>,
}

impl RolloutWatch for Impatient {
    fn token(&mut self, prompt: usize, completion: usize, token: u32) {
        self.told.entry((prompt, completion)).or_default().push(token);
    }

    fn cancelled(&mut self) -> bool {
        self.asked += 1;
        self.patience.is_some_and(|patience| self.asked > patience)
    }
}

#[test]
fn a_watch_receives_every_token_and_can_stop_the_engine() {
    let config = small();
    let (decoder, prompts, sampling) = (decoder(&config), prompts(&config), Sampling::plain(1.0));
    let request = request(&prompts, &sampling);
    let mut engine = CpuEngine { decoder: &decoder, max_rows: 6 };
    let mut patient = Impatient::default();
    let groups = engine.generate(None, &request, &mut patient).unwrap().expect("the request was canceled");
    for (prompt, group) in groups.iter().enumerate() {
        for (completion, got) in group.iter().enumerate() {
            assert_eq!(patient.told[&(prompt, completion)], got.tokens);
        }
    }
    assert!(patient.asked >= 24, "called only {} times", patient.asked);

    for patience in [0, 1, 10] {
        let mut impatient = Impatient { patience: Some(patience), ..Impatient::default() };
        assert_eq!(engine.generate(None, &request, &mut impatient).unwrap(), None);
        assert_eq!(impatient.asked, patience + 1, "it continued after being canceled");
        assert!(impatient.told.values().all(|tokens| tokens.len() <= patience + 1));
    }
}

/// Groups as they are reported, each with the number of tokens sampled by then.
#[derive(Default)]
struct Groups {
    drawn: usize,
    told: Vec<(usize, usize, Vec<Completion>)>,
}

impl RolloutWatch for Groups {
    fn token(&mut self, _prompt: usize, _completion: usize, _token: u32) {
        self.drawn += 1;
    }

    fn group(&mut self, prompt: usize, completions: &[Completion]) {
        self.told.push((prompt, self.drawn, completions.to_vec()));
    }
}

#[test]
fn a_group_is_reported_when_its_last_completion_has_ended() {
    let config = small();
    let (decoder, prompts, sampling) = (decoder(&config), prompts(&config), Sampling::plain(1.0));
    let request = request(&prompts, &sampling);
    // As many rows as a group has completions: one group after the other, 4 completions of 24 tokens each.
    let (mut engine, mut watch) = (CpuEngine { decoder: &decoder, max_rows: 4 }, Groups::default());
    let groups = engine.generate(None, &request, &mut watch).unwrap().expect("the request was canceled");
    let expected: Vec<_> = groups.into_iter().enumerate().map(|(i, group)| (i, 96 * (i + 1), group)).collect();
    assert_eq!(watch.told, expected);
}

#[test]
fn requests_without_prompts_return_nothing() {
    let config = small();
    let (decoder, sampling) = (decoder(&config), Sampling::plain(1.0));
    assert!(generate(&decoder, None, 4, &request(&[], &sampling)).is_empty());
    let empty = [Prompt { ids: vec![], key: 0 }];
    let mut engine = CpuEngine { decoder: &decoder, max_rows: 4 };
    assert!(engine.generate(None, &request(&empty, &sampling), &mut Unwatched).is_err());
}

fn named_tensors(config: &ModelConfig) -> BTreeMap<String, Tensor> {
    let weights = Loud(RandomWeights::new(config, 1));
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values = weights.get(&name, &shape).unwrap();
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    config.tensors().into_iter().map(tensor).collect()
}

/// Greedy decoding with caches selects the tokens that the slow reference without caches finds most probable.
#[test]
fn greedy_tokens_are_the_most_probable_of_the_reference_decoder() {
    for config in [small(), large()] {
        let (decoder, prompts) = (decoder(&config), prompts(&config));
        let sampling = Sampling::greedy();
        let request = RolloutRequest { num_generations: 1, ..request(&prompts, &sampling) };
        let twin = Reference::new(config.clone(), &named_tensors(&config)).unwrap();
        for (prompt, group) in prompts.iter().zip(generate(&decoder, None, 64, &request)) {
            let ids: Vec<u32> = prompt.ids.iter().chain(&group[0].tokens).copied().collect();
            let logits = twin.forward(&Tensor::new(&ids[..ids.len() - 1], &Device::Cpu).unwrap().unsqueeze(0).unwrap());
            let best = logits.unwrap().squeeze(0).unwrap().argmax(D::Minus1).unwrap().to_vec1::<u32>().unwrap();
            assert_eq!(group[0].tokens, best[prompt.ids.len() - 1..]);
        }
    }
}

/// An independent decoder: candle-transformers' Qwen2 with the same weights.
#[test]
fn logits_are_those_of_candle_transformers() {
    let config = small();
    let decoder = decoder(&config);
    let theirs = qwen2::Config {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        num_hidden_layers: config.num_hidden_layers,
        num_attention_heads: config.num_attention_heads,
        num_key_value_heads: config.num_key_value_heads,
        max_position_embeddings: config.max_position_embeddings,
        sliding_window: config.max_position_embeddings,
        max_window_layers: config.num_hidden_layers,
        tie_word_embeddings: config.tie_word_embeddings,
        rope_theta: config.rope_theta,
        rms_norm_eps: config.rms_norm_eps,
        use_sliding_window: false,
        hidden_act: Activation::Silu,
    };
    let tensors: HashMap<String, Tensor> = named_tensors(&config).into_iter().collect();
    let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let mut model = qwen2::ModelForCausalLM::new(&theirs, weights).unwrap();
    for len in [1, 2, 65, 150] {
        let ids = tokens(len as u64, len, &config);
        model.clear_kv_cache();
        let logits = model.forward(&Tensor::new(&ids[..], &Device::Cpu).unwrap().unsqueeze(0).unwrap(), 0).unwrap();
        let expected: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
        let mut pack = Pack::default();
        pack.push(&ids, &[]);
        let hidden = decoder.forward(None, &pack, Keep::Nothing).hidden;
        let got = decoder.head().logits(&hidden[(len - 1) * config.hidden_size..]);
        let error = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let size = expected.iter().map(|x| x.abs()).fold(0.0, f32::max);
        assert!(error < 1e-5 * size, "{len} tokens: logits up to {size} differ by {error}");
    }
}
