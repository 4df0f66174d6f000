//! The JSON of requests to servers and of their replies.
//!
//! A prompt is sent as token ids, and the reply must contain the ids and the log-probabilities of the sampled tokens, so that
//! nothing depends on the server's tokenizer or chat template. vLLM's and llama.cpp's forms of the completions API are sent
//! in one request, because each ignores the fields of the other; SGLang has an API of its own.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::ServerKind;
use crate::rollout::Sampling;

/// The path of requests for completions.
pub fn path(kind: ServerKind) -> &'static str {
    match kind {
        ServerKind::Vllm | ServerKind::Command => "/v1/completions",
        ServerKind::Sglang => "/generate",
    }
}

/// One completion to request.
pub struct CompletionRequest<'a> {
    /// The name of the adapter or of the model.
    pub model: &'a str,
    pub prompt: &'a [u32],
    pub max_tokens: usize,
    pub sampling: &'a Sampling,
    pub stop_tokens: &'a [u32],
    pub stop_strings: &'a [String],
    pub seed: u32,
}

/// The body of a request.
pub fn body(kind: ServerKind, request: &CompletionRequest) -> String {
    /// A top-k that disables it on every server.
    const ALL: usize = 1 << 30;
    let CompletionRequest { model, prompt, max_tokens, sampling, stop_tokens, stop_strings, seed } = request;
    let Sampling { temperature, top_p, top_k, min_p } = sampling;
    let top_k = if *top_k == 0 { ALL } else { *top_k };
    let body = match kind {
        ServerKind::Sglang => json!({
            "input_ids": prompt,
            "lora_path": model,
            "return_logprob": true,
            "sampling_params": {
                "max_new_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "min_p": min_p,
                "top_k": if top_k == ALL { -1 } else { top_k as i64 }, "repetition_penalty": 1.0,
                "stop_token_ids": stop_tokens, "stop": stop_strings, "no_stop_trim": true, "sampling_seed": seed,
                "skip_special_tokens": false,
            },
        }),
        ServerKind::Vllm | ServerKind::Command => json!({
            "model": model, "prompt": prompt, "n": 1, "max_tokens": max_tokens, "seed": seed, "logprobs": 1,
            "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p, "stop": stop_strings,
            // vLLM.
            "stop_token_ids": stop_tokens, "include_stop_str_in_output": true, "skip_special_tokens": false,
            "repetition_penalty": 1.0, "return_tokens_as_token_ids": true, "add_special_tokens": false,
            // llama.cpp.
            "repeat_penalty": 1.0, "samplers": ["temperature", "top_k", "top_p", "min_p"], "return_tokens": true,
            "cache_prompt": true,
        }),
    };
    body.to_string()
}

/// The sampled tokens of a reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    pub tokens: Vec<u32>,
    /// One per token.
    pub logprobs: Vec<f32>,
    /// Whether the server stopped for another reason than the maximum length.
    pub stopped: bool,
    /// Tokens of the prompt, if the server counts them.
    pub prompt_tokens: Option<usize>,
}

/// Parses a reply. The error describes an incomplete reply.
pub fn reply(kind: ServerKind, body: &str) -> Result<Sampled, String> {
    let sampled = match kind {
        ServerKind::Sglang => sglang(body)?,
        ServerKind::Vllm | ServerKind::Command => openai(body)?,
    };
    if sampled.tokens.is_empty() {
        return Err("a completion without tokens".to_owned());
    }
    match sampled.logprobs.iter().position(|it| !it.is_finite()) {
        Some(at) => Err(format!("log-probability {at} is not a number")),
        None => Ok(sampled),
    }
}

#[derive(Deserialize)]
struct OpenAiReply {
    choices: Vec<OpenAiChoice>,
    usage: Option<OpenAiUsage>,
}

#[derive(Deserialize)]
struct OpenAiChoice {
    finish_reason: Option<String>,
    logprobs: Option<OpenAiLogprobs>,
}

#[derive(Deserialize)]
struct OpenAiUsage {
    prompt_tokens: usize,
}

/// vLLM has parallel lists; llama.cpp has one list of objects.
#[derive(Deserialize)]
#[serde(untagged)]
enum OpenAiLogprobs {
    Objects { content: Vec<TokenLogprob> },
    Lists { tokens: Vec<String>, token_logprobs: Vec<Option<f32>> },
}

#[derive(Deserialize)]
struct TokenLogprob {
    id: u32,
    logprob: f32,
}

fn openai(body: &str) -> Result<Sampled, String> {
    let reply: OpenAiReply = serde_json::from_str(body).map_err(|error| format!("invalid reply: {error}"))?;
    let choice = reply.choices.into_iter().next().ok_or("reply without a choice")?;
    let logprobs = choice.logprobs.ok_or("reply without `logprobs`")?;
    let (tokens, logprobs) = match logprobs {
        OpenAiLogprobs::Objects { content } => content.into_iter().map(|it| (it.id, it.logprob)).unzip(),
        OpenAiLogprobs::Lists { tokens, token_logprobs } => {
            if tokens.len() != token_logprobs.len() {
                return Err(format!("{} tokens with {} log-probabilities", tokens.len(), token_logprobs.len()));
            }
            let id = |text: &String| {
                let id = text.strip_prefix("token_id:").and_then(|id| id.parse().ok());
                id.ok_or_else(|| format!("`{text}` instead of a token id"))
            };
            let tokens: Vec<u32> = tokens.iter().map(id).collect::<Result<_, String>>()?;
            let logprobs: Option<Vec<f32>> = token_logprobs.into_iter().collect();
            (tokens, logprobs.ok_or("a token without log-probability")?)
        }
    };
    let stopped = match choice.finish_reason.as_deref() {
        Some("stop") => true,
        Some("length") => false,
        other => return Err(format!("unknown finish reason `{}`", other.unwrap_or("nothing"))),
    };
    Ok(Sampled { tokens, logprobs, stopped, prompt_tokens: reply.usage.map(|it| it.prompt_tokens) })
}

#[derive(Deserialize)]
struct SglangReply {
    meta_info: SglangMeta,
}

#[derive(Deserialize)]
struct SglangMeta {
    finish_reason: Value,
    prompt_tokens: Option<usize>,
    /// Log-probability, token id, and the token's text or null.
    output_token_logprobs: Vec<(f32, u32, Value)>,
}

fn sglang(body: &str) -> Result<Sampled, String> {
    let reply: SglangReply = serde_json::from_str(body).map_err(|error| format!("invalid reply: {error}"))?;
    let meta = reply.meta_info;
    let stopped = match meta.finish_reason["type"].as_str() {
        Some("stop") => true,
        Some("length") => false,
        other => return Err(format!("unknown finish reason `{}`", other.unwrap_or("nothing"))),
    };
    let (tokens, logprobs) = meta.output_token_logprobs.into_iter().map(|(logprob, id, _)| (id, logprob)).unzip();
    Ok(Sampled { tokens, logprobs, stopped, prompt_tokens: meta.prompt_tokens })
}

/// The request that makes a server load the adapter in `folder` under `name`: path and body.
pub fn load(kind: ServerKind, name: &str, folder: &str) -> (&'static str, String) {
    let path = if kind == ServerKind::Sglang { "/load_lora_adapter" } else { "/v1/load_lora_adapter" };
    (path, json!({ "lora_name": name, "lora_path": folder }).to_string())
}

/// The request that makes a server forget the adapter `name`.
pub fn unload(kind: ServerKind, name: &str) -> (&'static str, String) {
    let path = if kind == ServerKind::Sglang { "/unload_lora_adapter" } else { "/v1/unload_lora_adapter" };
    (path, json!({ "lora_name": name }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(sampling: &'a Sampling) -> CompletionRequest<'a> {
        CompletionRequest {
            model: "rft-1",
            prompt: &[7, 8],
            max_tokens: 96,
            sampling,
            stop_tokens: &[2],
            stop_strings: &[],
            seed: 5,
        }
    }

    #[test]
    fn requests_ask_for_ids_and_log_probabilities() {
        let sampling = Sampling::plain(1.0);
        let vllm: Value = serde_json::from_str(&body(ServerKind::Vllm, &request(&sampling))).unwrap();
        assert_eq!((&vllm["prompt"], &vllm["logprobs"]), (&json!([7, 8]), &json!(1)));
        assert_eq!((&vllm["model"], &vllm["seed"], &vllm["stop_token_ids"]), (&json!("rft-1"), &json!(5), &json!([2])));
        assert_eq!(vllm["return_tokens_as_token_ids"], true);
        let sglang: Value = serde_json::from_str(&body(ServerKind::Sglang, &request(&sampling))).unwrap();
        assert_eq!((&sglang["input_ids"], &sglang["lora_path"]), (&json!([7, 8]), &json!("rft-1")));
        assert_eq!((&sglang["return_logprob"], &sglang["sampling_params"]["top_k"]), (&json!(true), &json!(-1)));
    }

    #[test]
    fn replies_of_all_servers_are_read() {
        let vllm = r#"{"choices":[{"text":"ab","finish_reason":"stop","stop_reason":2,"logprobs":{"text_offset":[0,1],
            "token_logprobs":[-0.5,-0.25],"tokens":["token_id:11","token_id:2"],"top_logprobs":null}}],
            "usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4}}"#;
        let expected =
            Sampled { tokens: vec![11, 2], logprobs: vec![-0.5, -0.25], stopped: true, prompt_tokens: Some(2) };
        assert_eq!(reply(ServerKind::Vllm, vllm).unwrap(), expected);
        let llama_cpp = r#"{"choices":[{"text":"a","finish_reason":"length","logprobs":{"content":[
            {"id":11,"token":"a","bytes":[97],"logprob":-0.5,"top_logprobs":[]}]}}],"usage":{"prompt_tokens":2}}"#;
        let sampled = reply(ServerKind::Command, llama_cpp).unwrap();
        assert_eq!((sampled.tokens, sampled.stopped), (vec![11], false));
        let sglang = r#"{"text":"ab","meta_info":{"finish_reason":{"type":"stop","matched":2},"prompt_tokens":2,
            "output_token_logprobs":[[-0.5,11,null],[-0.25,2,"x"]]}}"#;
        assert_eq!(reply(ServerKind::Sglang, sglang).unwrap(), expected);
    }

    #[test]
    fn incomplete_replies_are_refused() {
        let whole =
            r#"{"choices":[{"finish_reason":"stop","logprobs":{"tokens":["token_id:1"],"token_logprobs":[-1]}}]}"#;
        assert!(reply(ServerKind::Vllm, whole).is_ok());
        for end in 0..whole.len() {
            assert!(reply(ServerKind::Vllm, &whole[..end]).is_err(), "{end}");
        }
        for (from, to, reason) in [
            ("[-1]", "[]", "1 tokens with 0 log-probabilities"),
            ("[-1]", "[null]", "without log-probability"),
            ("token_id:1", "a", "`a` instead of a token id"),
            (r#"{"tokens":["token_id:1"],"token_logprobs":[-1]}"#, "null", "without `logprobs`"),
            (r#"["token_id:1"],"token_logprobs":[-1]"#, r#"[],"token_logprobs":[]"#, "without tokens"),
            ("\"stop\"", "\"abort\"", "`abort`"),
        ] {
            let error = reply(ServerKind::Vllm, &whole.replace(from, to)).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
