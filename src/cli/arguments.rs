//! The arguments of the command line before and after clap: `--json`, and keys of the configuration that were typed as flags.

use std::ffi::OsString;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Cli;
use crate::config::find_key;

/// The usual short names of keys.
const SHORT: [(&str, &str); 6] = [
    ("lr", "learning_rate"),
    ("batch_size", "prompts_per_step"),
    ("kl_coef", "beta"),
    ("rank", "r"),
    ("max_tokens", "max_completion_length"),
    ("group_size", "num_generations"),
];

/// The parsed command line. Ends the process after an error, `--help` or `--version`.
pub fn parse() -> Cli {
    Cli::try_parse_from(long_format(std::env::args_os().collect())).unwrap_or_else(|mut error| {
        if let Some(hint) = hint(&error) {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.into()]));
        }
        error.exit()
    })
}

/// `--json` is short for `--output-format json`.
fn long_format(arguments: Vec<OsString>) -> Vec<OsString> {
    let end = arguments.iter().position(|it| it == "--").unwrap_or(arguments.len());
    let long = |(at, argument): (usize, OsString)| {
        if at < end && argument == "--json" { "--output-format=json".into() } else { argument }
    };
    arguments.into_iter().enumerate().map(long).collect()
}

/// How to set the key that was typed as a flag.
fn hint(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    let key = key_of(flag)?;
    Some(format!("set this key with `--set {key}=VALUE`; `rft config explain {key}` explains it"))
}

/// The key that a flag means, such as `train.learning_rate` for `--lr`.
fn key_of(flag: &str) -> Option<String> {
    let name = flag.trim_start_matches('-').split('=').next()?.replace('-', "_");
    let name = SHORT.iter().find(|(short, _)| *short == name).map_or(name.as_str(), |(_, key)| key);
    match find_key(name) {
        Ok(key) => Some(key.key),
        Err(nearest) => nearest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_point_to_keys() {
        for (flag, key) in [
            ("--lr", "train.learning_rate"),
            ("--num-generations", "rollout.num_generations"),
            ("--learning-rate=1e-5", "train.learning_rate"),
            ("--beta", "grpo.beta"),
            ("--rollout.temperature", "rollout.temperature"),
        ] {
            assert_eq!(key_of(flag).as_deref(), Some(key), "{flag}");
        }
        assert_eq!(key_of("--xyzzy"), None);
    }

    #[test]
    fn json_is_a_format() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(long_format(words("rft runs --json")), words("rft runs --output-format=json"));
        assert_eq!(long_format(words("rft generate -- --json")), words("rft generate -- --json"));
    }
}
