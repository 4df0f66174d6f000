use super::*;
use rft::model::config::Architecture;

const ALL: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

fn config(architecture: Architecture) -> ModelConfig {
    ModelConfig {
        architecture,
        vocab_size: 17,
        hidden_size: 12,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        rms_norm_eps: 1e-6,
        rope_theta: 100.0,
        rope_scaling: (architecture == Architecture::Llama).then_some(Llama3Scaling {
            factor: 4.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 32,
        }),
        qkv_bias: architecture == Architecture::Qwen2,
        qk_norm: architecture == Architecture::Qwen3,
        tie_word_embeddings: architecture == Architecture::Qwen2,
        max_position_embeddings: 64,
        eos_token_ids: vec![0],
    }
}

fn double(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    tensors.into_iter().map(|(name, tensor)| (name, tensor.to_dtype(DType::F64).unwrap())).collect()
}

fn model(architecture: Architecture) -> Reference {
    let config = config(architecture);
    let weights = double(random_weights(&config, 1, 0.3).unwrap());
    let adapter = double(random_adapter(&config, &ALL, 2, 2, 0.3).unwrap());
    Reference::new(config, &weights).unwrap().with_lora(&adapter, 0.5).unwrap()
}

fn ids(batch: usize, len: usize) -> Tensor {
    let stream = Stream::new(3, Purpose::Test, &[]);
    let ids: Vec<u32> = (0..(batch * len) as u64).map(|i| stream.below(i, 17) as u32).collect();
    Tensor::from_vec(ids, (batch, len), &Device::Cpu).unwrap()
}

/// The sum of the log-probabilities of every next token, each with its own weight so that no error can cancel.
fn loss(model: &Reference, ids: &Tensor) -> Tensor {
    let (batch, len) = ids.dims2().unwrap();
    let logits = model.forward(ids).unwrap().narrow(1, 0, len - 1).unwrap();
    let logits = logits.contiguous().unwrap().flatten_to(1).unwrap();
    let targets = ids.narrow(1, 1, len - 1).unwrap().contiguous().unwrap().flatten_all().unwrap();
    let weights: Vec<f64> = (0..batch * (len - 1)).map(|i| 1.0 + i as f64 * 0.1).collect();
    let weights = Tensor::new(weights, &Device::Cpu).unwrap();
    (log_probabilities(&logits, &targets).unwrap() * weights).unwrap().sum_all().unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn gradients_equal_finite_differences() {
    let ids = ids(2, 6);
    for architecture in [Architecture::Qwen2, Architecture::Qwen3, Architecture::Llama] {
        let model = model(architecture);
        let gradients = loss(&model, &ids).backward().unwrap();
        for (name, var) in model.vars().iter().chain(model.lora_vars()) {
            let gradient = flat(gradients.get(var).unwrap_or_else(|| panic!("{name} has no gradient")));
            let values = flat(var);
            for pick in 0..3 {
                let at = Stream::new(4, Purpose::Test, &[name_hash(name)]).below(pick, values.len() as u64) as usize;
                let moved = |by: f64| {
                    let mut values = values.clone();
                    values[at] += by;
                    var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap()).unwrap();
                    loss(&model, &ids).to_scalar::<f64>().unwrap()
                };
                let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                moved(0.0);
                let error = (numeric - gradient[at]).abs() / (1.0 + numeric.abs());
                assert!(error < 1e-6, "{architecture:?} {name}[{at}]: {numeric} against {}", gradient[at]);
            }
        }
    }
}

#[test]
fn a_shared_past_equals_the_whole_rows() {
    let model = model(Architecture::Qwen2);
    let (prefix, rows) = (ids(1, 3), ids(4, 5));
    let whole = Tensor::cat(&[&prefix.broadcast_as((4, 3)).unwrap(), &rows], 1).unwrap();
    let expected = flat(&model.forward(&whole).unwrap().narrow(1, 3, 5).unwrap());

    let (_, past) = model.hidden(&prefix, None).unwrap();
    let (hidden, past) = model.hidden(&rows, Some(&past)).unwrap();
    assert_eq!(past.0[0].0.dims(), [4, 2, 8, 4]);
    let logits = flat(&model.head(&hidden.flatten_to(1).unwrap()).unwrap());
    assert_eq!(logits.len(), expected.len());
    for (a, b) in logits.iter().zip(&expected) {
        assert!((a - b).abs() < 1e-12, "{a} against {b}");
    }
}

#[test]
fn a_later_token_changes_nothing_before_it() {
    let model = model(Architecture::Qwen3);
    let logits = |ids: &Tensor| flat(&model.forward(ids).unwrap().narrow(1, 0, 4).unwrap());
    let before = ids(1, 6);
    let after = Tensor::cat(&[&before.narrow(1, 0, 5).unwrap(), &Tensor::new(&[[16u32]], &Device::Cpu).unwrap()], 1);
    assert_eq!(logits(&before), logits(&after.unwrap()));
}

#[test]
fn a_missing_or_misshapen_tensor_is_named() {
    let config = config(Architecture::Llama);
    let mut weights = random_weights(&config, 1, 0.3).unwrap();
    let embedding = weights.remove("lm_head.weight").unwrap();
    let error = Reference::new(config.clone(), &weights).err().unwrap().to_string();
    assert!(error.contains("`lm_head.weight` is missing"), "{error}");
    weights.insert("lm_head.weight".to_owned(), embedding.t().unwrap());
    let error = Reference::new(config, &weights).err().unwrap().to_string();
    assert!(error.contains("has shape [12, 17], not [17, 12]"), "{error}");
}
