//! The JSON of requests and replies.
//!
//! In addition to standard fields there are extensions. They are sent even with neutral values, because servers have
//! their own defaults: vLLM reads them from the model's `generation_config.json` (Qwen2.5-Coder's has a repetition
//! penalty of 1.1 and top-k 20), llama.cpp's server has top-k 40 and min-p 0.05 and truncates before it applies the
//! temperature. They use different values of top-k to disable it, but all accept a number above any vocabulary size.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::eval::engine::{Draw, EvalCompletion, LENGTH};
use crate::prompt::template::Rendered;
use crate::rng::Stream;

/// The form of requests for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PromptForm {
    /// Send prompts as token ids, not as text.
    pub ids: bool,
    /// Send fields that OpenAI's API does not have.
    pub extensions: bool,
}

impl Default for PromptForm {
    fn default() -> Self {
        Self { ids: false, extensions: true }
    }
}

/// A top-k that disables it on every server.
const ALL: usize = 1 << 30;

#[derive(Serialize)]
struct WireRequest<'a> {
    model: &'a str,
    prompt: WirePrompt<'a>,
    n: usize,
    max_tokens: usize,
    temperature: f32,
    top_p: f32,
    seed: u32,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_p: Option<f32>,
    #[serde(flatten)]
    extensions: Option<Extensions>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WirePrompt<'a> {
    Text(&'a str),
    Ids(&'a [u32]),
}

#[derive(Serialize)]
struct Extensions {
    /// vLLM. False, because the template has written the special tokens.
    add_special_tokens: bool,
    /// vLLM, SGLang.
    repetition_penalty: f32,
    /// llama.cpp.
    repeat_penalty: f32,
    /// llama.cpp: apply the temperature first, as other servers do.
    samplers: [&'static str; 4],
}

const PLAIN: Extensions = Extensions {
    add_special_tokens: false,
    repetition_penalty: 1.0,
    repeat_penalty: 1.0,
    samplers: ["temperature", "top_k", "top_p", "min_p"],
};

/// The body of a request for one completion.
pub(super) fn request(model: &str, prompt: &Rendered, draw: &Draw, seed: u32, form: PromptForm) -> String {
    let sampling = &draw.sampling;
    let (top_k, min_p) = (sampling.top_k, sampling.min_p);
    let request = WireRequest {
        model,
        prompt: if form.ids { WirePrompt::Ids(&prompt.ids) } else { WirePrompt::Text(&prompt.text) },
        n: 1,
        max_tokens: draw.max_tokens,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        seed,
        stop: &draw.stop,
        top_k: (form.extensions || top_k > 0).then_some(if top_k > 0 { top_k } else { ALL }),
        min_p: (form.extensions || min_p > 0.0).then_some(min_p),
        extensions: form.extensions.then_some(PLAIN),
    };
    serde_json::to_string(&request).expect("text and finite numbers can be written as JSON")
}

/// A sample's seed, with 31 bits: some servers read a signed number, and for llama.cpp the largest number means "random".
pub(super) fn seed(stream: &Stream) -> u32 {
    (stream.u64(0) >> 33) as u32
}

/// A complete reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub prompt_tokens: usize,
    pub completion: EvalCompletion,
}

#[derive(Deserialize)]
struct RawReply {
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    text: String,
    finish_reason: Option<String>,
    /// vLLM: the stop string, or the id of a stop token other than the tokenizer's end of sequence. In SGLang it is
    /// `matched_stop`, which has every token.
    #[serde(alias = "matched_stop")]
    stop_reason: Option<Value>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
}

/// Parses a reply. The error describes an invalid or incomplete reply.
pub fn reply(body: &str, stop: &[String]) -> Result<Reply, String> {
    let raw: RawReply = serde_json::from_str(body).map_err(|error| format!("invalid reply: {error}"))?;
    let usage = raw.usage.ok_or("reply without `usage`, which has the number of tokens")?;
    let choice = raw.choices.into_iter().next().ok_or("reply without a choice")?;
    let finish = match (choice.finish_reason.as_deref(), choice.stop_reason) {
        (Some("length"), _) => LENGTH.to_owned(),
        (Some("stop"), Some(Value::String(_))) => "stop string".to_owned(),
        (Some("stop"), Some(Value::Number(id))) => format!("token {id}"),
        (Some("stop"), _) => "stop".to_owned(),
        (other, _) => return Err(format!("unknown finish reason `{}`", other.unwrap_or("nothing"))),
    };
    let mut text = choice.text;
    if let Some(end) = stop.iter().filter_map(|stop| text.find(stop)).min() {
        text.truncate(end); // a server may keep the stop string
    }
    let completion = EvalCompletion { text, tokens: usage.completion_tokens, finish };
    Ok(Reply { prompt_tokens: usage.prompt_tokens, completion })
}

/// The names of the served models.
pub fn models(body: &str) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct ModelList {
        data: Vec<ListedModel>,
    }
    #[derive(Deserialize)]
    struct ListedModel {
        id: String,
    }
    let list: ModelList = serde_json::from_str(body).map_err(|error| format!("invalid list of models: {error}"))?;
    Ok(list.data.into_iter().map(|model| model.id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::Sampling;

    fn draw(sampling: Sampling, stop: &[&str]) -> Draw {
        Draw { sampling, max_tokens: 8192, stop: stop.iter().map(|&it| it.to_owned()).collect(), seed: 1 }
    }

    fn sent(draw: &Draw, form: PromptForm) -> Value {
        let prompt = Rendered { text: "a \"b\"\n".into(), ids: vec![7, 8] };
        serde_json::from_str(&request("m", &prompt, draw, 5, form)).unwrap()
    }

    #[test]
    fn a_request_overrides_the_defaults_of_servers() {
        let study = Sampling { temperature: 0.6, top_p: 0.95, top_k: 0, min_p: 0.0 };
        let whole = serde_json::json!({
            "model": "m", "prompt": "a \"b\"\n", "n": 1, "max_tokens": 8192, "temperature": 0.6, "top_p": 0.95,
            "seed": 5, "stop": ["</s>"], "top_k": 1 << 30, "min_p": 0.0, "add_special_tokens": false,
            "repetition_penalty": 1.0, "repeat_penalty": 1.0,
            "samplers": ["temperature", "top_k", "top_p", "min_p"]
        });
        assert_eq!(sent(&draw(study.clone(), &["</s>"]), PromptForm::default()), whole);

        let standard = PromptForm { ids: true, extensions: false };
        let bare = serde_json::json!({
            "model": "m", "prompt": [7, 8], "n": 1, "max_tokens": 8192, "temperature": 0.6, "top_p": 0.95, "seed": 5
        });
        assert_eq!(sent(&draw(study.clone(), &[]), standard), bare);
        let truncated = sent(&draw(Sampling { top_k: 20, min_p: 0.5, ..study }, &[]), standard);
        assert_eq!((&truncated["top_k"], &truncated["min_p"]), (&20.into(), &0.5.into()));
    }

    #[test]
    fn finish_reasons_of_all_servers_are_read() {
        let body = |fields: &str| {
            let usage = r#""usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}"#;
            format!(r#"{{"id":"x","choices":[{{"index":0,"text":"ab\nQ: c","logprobs":null,{fields}}}],{usage}}}"#)
        };
        let finish = |fields: &str| reply(&body(fields), &[]).map(|it| it.completion.finish);
        assert_eq!(finish(r#""finish_reason":"length""#).unwrap(), LENGTH);
        assert_eq!(finish(r#""finish_reason":"stop""#).unwrap(), "stop");
        assert_eq!(finish(r#""finish_reason":"stop","stop_reason":null"#).unwrap(), "stop");
        assert_eq!(finish(r#""finish_reason":"stop","stop_reason":"Q:""#).unwrap(), "stop string");
        assert_eq!(finish(r#""finish_reason":"stop","matched_stop":151645"#).unwrap(), "token 151645");
        assert!(finish(r#""finish_reason":"abort""#).unwrap_err().contains("`abort`"));
        assert!(finish(r#""finish_reason":null"#).is_err());

        let cut = reply(&body(r#""finish_reason":"stop""#), &["c".into(), "\nQ:".into()]).unwrap();
        let completion = EvalCompletion { text: "ab".into(), tokens: 2, finish: "stop".into() };
        assert_eq!(cut, Reply { prompt_tokens: 3, completion });
    }

    #[test]
    fn an_incomplete_reply_is_an_error() {
        let whole =
            r#"{"choices":[{"text":"a","finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
        assert!(reply(whole, &[]).is_ok());
        for end in 0..whole.len() {
            assert!(reply(&whole[..end], &[]).is_err(), "{end}");
        }
        for bad in [
            r#"{"choices":[{"text":"a","finish_reason":"stop"}]}"#,
            r#"{"choices":[{"text":"a","finish_reason":"stop"}],"usage":null}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
            r#"{"choices":[{"text":"a","finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#,
        ] {
            assert!(reply(bad, &[]).is_err(), "{bad}");
        }
    }
}
