//! The prior prompts of a run: usually one; several form a mixture, in which every group draws one.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{PriorPrompt, find, find_shipped, registry};
use crate::config::{MixEntry, PromptSection};
use crate::rng::{Purpose, Stream};

/// One or more prior prompts with different names, and their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture(Vec<WeightedPrompt>);

/// A prior prompt, which is drawn with a probability proportional to its weight.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedPrompt {
    pub prompt: PriorPrompt,
    pub weight: f64,
}

impl From<PriorPrompt> for Mixture {
    fn from(prompt: PriorPrompt) -> Self {
        Self(vec![WeightedPrompt { prompt, weight: 1.0 }])
    }
}

impl Mixture {
    /// The prompts that `section` selects.
    ///
    /// # Errors
    /// A name that is not known, a file that is not a prompt, two prompts with the same name.
    pub fn of_config(section: &PromptSection) -> Result<Self> {
        Self::of_entries(&section.entries())
    }

    /// The prompts that `entries` name, see [`Mixture::of_config`].
    pub fn of_entries(entries: &[MixEntry]) -> Result<Self> {
        if let [MixEntry { ppe, .. }] = entries {
            return Self::find(ppe);
        }
        let mut parts: Vec<WeightedPrompt> = Vec::new();
        for (at, MixEntry { ppe, weight }) in entries.iter().enumerate() {
            let key = format!("`prompt.mix[{at}].ppe`");
            let prompt = find(ppe).context(key.clone())?;
            if let Some(same) = parts.iter().position(|it| it.prompt.name == prompt.name) {
                bail!(
                    "{key}: `{ppe}` is a prompt with the name `{}`, as prompt.mix[{same}]\n\
                     hint: name each prompt once; two files need different values of `name`",
                    prompt.name
                );
            }
            parts.push(WeightedPrompt { prompt, weight: *weight });
        }
        Ok(Self(parts))
    }

    /// A prompt by its name or its file, or all prompts of a file that a run with a mixture wrote.
    pub fn find(reference: &str) -> Result<Self> {
        let path = Path::new(reference);
        if find_shipped(reference).is_none() && path.is_file() {
            return Self::read(path);
        }
        find(reference).map(Self::from)
    }

    /// Reads the file that [`Mixture::to_toml`] writes.
    pub fn read(path: &Path) -> Result<Self> {
        match registry::read_several(path)? {
            Some(prompts) if prompts.is_empty() => bail!("{}: expected at least one prompt", path.display()),
            Some(prompts) => {
                Ok(Self(prompts.into_iter().map(|(prompt, weight)| WeightedPrompt { prompt, weight }).collect()))
            }
            None => find(&path.display().to_string()).map(Self::from),
        }
    }

    /// The prompts as a file: of a single prompt, a prompt file as users write them.
    pub fn to_toml(&self) -> String {
        match &self.0[..] {
            [one] => one.prompt.to_toml(),
            several => registry::write_several(several.iter().map(|it| (&it.prompt, it.weight))),
        }
    }

    pub fn parts(&self) -> &[WeightedPrompt] {
        &self.0
    }

    pub fn prompts(&self) -> impl Iterator<Item = &PriorPrompt> {
        self.0.iter().map(|part| &part.prompt)
    }

    /// Whether there are several prompts.
    pub fn is_mixed(&self) -> bool {
        self.0.len() > 1
    }

    /// The name of the prompt, or those of all with a sign between them: `reasoning + planning@1`, and with different weights
    /// `3 reasoning + 1 planning@1`.
    pub fn name(&self) -> String {
        let equal = self.0.iter().all(|it| it.weight == self.0[0].weight);
        let part = |it: &WeightedPrompt| {
            if equal { it.prompt.name.clone() } else { format!("{} {}", it.weight, it.prompt.name) }
        };
        self.0.iter().map(part).collect::<Vec<_>>().join(" + ")
    }

    /// The names and weights, as in the configuration.
    pub fn entries(&self) -> Vec<MixEntry> {
        self.0.iter().map(|it| MixEntry { ppe: it.prompt.name.clone(), weight: it.weight }).collect()
    }

    /// The source of the wording of the prompts, or the sources of all if they differ.
    pub fn wording(&self) -> String {
        let mut sources: Vec<&str> = self.prompts().map(|prompt| prompt.wording.as_str()).collect();
        sources.dedup();
        sources.join(", ")
    }

    /// The index of the prompt that a question gets in a step. It depends on nothing but the arguments.
    pub fn draw(&self, seed: u64, step: u64, question: u64) -> usize {
        if !self.is_mixed() {
            return 0;
        }
        let total: f64 = self.0.iter().map(|it| it.weight).sum();
        let mut rest = Stream::new(seed, Purpose::PriorPrompt, &[step, question]).f64(0) * total;
        let drawn = self.0.iter().position(|it| {
            rest -= it.weight;
            rest < 0.0
        });
        // Rounding can leave a rest after the last prompt.
        drawn.unwrap_or(self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixture(parts: &[(&str, f64)]) -> Mixture {
        let mix = parts.iter().map(|(ppe, weight)| MixEntry { ppe: (*ppe).to_owned(), weight: *weight }).collect();
        let section = PromptSection { ppe: None, wording: 0, mix, template: "model".to_owned(), prefill: false };
        Mixture::of_config(&section).unwrap()
    }

    #[test]
    fn draws_follow_the_weights() {
        let mixture = mixture(&[("reasoning", 1.0), ("planning@1", 2.0), ("none", 5.0)]);
        let mut counts = [0; 3];
        for step in 1..=100 {
            for question in 0..160 {
                counts[mixture.draw(42, step, question)] += 1;
            }
        }
        // Four standard deviations of 16,000 draws.
        for (count, share) in counts.into_iter().zip([0.125_f64, 0.25, 0.625]) {
            let (mean, sd) = (16_000.0 * share, (16_000.0 * share * (1.0 - share)).sqrt());
            assert!((f64::from(count) - mean).abs() < 4.0 * sd, "{counts:?}");
        }
    }

    #[test]
    fn a_draw_depends_on_seed_step_and_question() {
        let mixture = mixture(&[("reasoning", 1.0), ("planning", 1.0)]);
        let draws = |seed, step| (0..64).map(|question| mixture.draw(seed, step, question)).collect::<Vec<_>>();
        assert_eq!(draws(1, 1), draws(1, 1));
        assert!(draws(1, 1) != draws(2, 1) && draws(1, 1) != draws(1, 2));
        assert!(Mixture::from(find("reasoning").unwrap()).draw(1, 1, 1) == 0);
    }

    #[test]
    fn a_mixture_is_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompt.toml");
        for (parts, name) in [
            (vec![("reasoning@2", 1.0)], "reasoning@2"),
            (vec![("reasoning", 1.0), ("planning@1", 1.0)], "reasoning + planning@1"),
            (vec![("think", 3.0), ("none", 0.5)], "3 reasoning + 0.5 none"),
        ] {
            let mixture = match &parts[..] {
                [(one, _)] => find(one).unwrap().into(),
                parts => mixture(parts),
            };
            assert_eq!((mixture.name().as_str(), mixture.wording().as_str()), (name, "rft"));
            std::fs::write(&path, mixture.to_toml()).unwrap();
            let read = Mixture::find(&path.display().to_string()).unwrap();
            assert_eq!(read.name(), name);
            assert!(read.wording().starts_with("prompt.toml "), "{}", read.wording());
            for (read, written) in read.parts().iter().zip(mixture.parts()) {
                assert_eq!(PriorPrompt { wording: "rft".to_owned(), ..read.prompt.clone() }, written.prompt);
                assert_eq!(read.weight, written.weight);
            }
        }
    }

    #[test]
    fn a_name_can_occur_once() {
        let entry = |ppe: &str| MixEntry { ppe: ppe.to_owned(), weight: 1.0 };
        let mix = |mix| PromptSection { ppe: None, wording: 0, mix, template: "model".to_owned(), prefill: false };
        let error = |mix_of| format!("{:#}", Mixture::of_config(&mix(mix_of)).unwrap_err());
        let text = error(vec![entry("reasoning"), entry("think")]);
        assert!(
            text.starts_with("`prompt.mix[1].ppe`: `think` is a prompt with the name `reasoning`, as prompt.mix[0]")
        );
        let text = error(vec![entry("reasoning"), entry("plannning")]);
        assert!(text.starts_with("`prompt.mix[1].ppe`: unknown prior prompt `plannning`"), "{text}");
    }
}
