//! The components of a run, with their weights.

use anyhow::Result;
use rayon::prelude::*;

use super::format::FormatReward;
use super::tags::{TagRule, Tags};
use super::{
    AccuracyReward, CodeReward, CosineReward, CustomReward, FormatStrictReward, InvertedReward, MajorityReward,
    RandomReward, RepetitionReward, Reward, RewardInput, Score, Scored, SoftOverlongReward, TagCountReward,
};
use crate::config::{CONTROLS, Gate, LengthKind, RewardSection};
use crate::math::Verdict;
use crate::prompt::PriorPrompt;

/// The components of a run, with their weights.
pub struct RewardSet {
    /// In the order of [`crate::config::RULES`].
    rules: Vec<(Box<dyn Reward>, RuleWeight)>,
    /// After the rules, because it needs all completions of a group.
    majority: Option<(MajorityReward, f64)>,
    commands: Vec<(CustomReward, f64)>,
    /// A right answer counts only in the format of its prior prompt.
    gate: bool,
    needs_gold: bool,
    /// A rewarded rule compares answers with the gold answer.
    checks_answers: bool,
}

/// The weight of a rule.
#[derive(Clone, Copy)]
struct RuleWeight {
    /// For completions under a prior prompt with tags.
    tagged: f64,
    /// Under one without.
    plain: f64,
}

impl From<f64> for RuleWeight {
    fn from(weight: f64) -> Self {
        Self { tagged: weight, plain: weight }
    }
}

impl RuleWeight {
    fn of(self, prompt: &PriorPrompt) -> f64 {
        if prompt.answer_tag.is_some() { self.tagged } else { self.plain }
    }

    fn is_positive(self) -> bool {
        self.tagged > 0.0 || self.plain > 0.0
    }
}

impl RewardSet {
    /// As [`RewardSet::for_prompts`], for a single prior prompt.
    pub fn from_config(section: &RewardSection, prompt: &PriorPrompt, max_completion_length: usize) -> Result<Self> {
        Self::for_prompts(section, &[prompt], max_completion_length)
    }

    /// The components that `section` asks for under `prompts`, if completions are truncated at `max_completion_length`.
    /// Starts the commands of custom ones.
    ///
    /// # Errors
    /// For values that are not valid, with their key; a format that a prior prompt does not ask for; a command that
    /// cannot be started.
    pub fn for_prompts(
        section: &RewardSection,
        prompts: &[&PriorPrompt],
        max_completion_length: usize,
    ) -> Result<Self> {
        let (mut has_tagged, mut has_plain) = (false, false);
        for prompt in prompts {
            let is_tagged = Tags::of(prompt)?.is_some();
            section.validate(&prompt.name, is_tagged, max_completion_length)?;
            has_tagged |= is_tagged;
            has_plain |= !is_tagged;
        }
        let [(accuracy, format), (plain_accuracy, _)] = [true, false].map(|has_tag| section.weights(has_tag));
        let accuracy = RuleWeight {
            tagged: if has_tagged { accuracy } else { 0.0 },
            plain: if has_plain { plain_accuracy } else { 0.0 },
        };
        let scope = section.accuracy.scope;
        let gate = section.gate == Gate::Format;

        let mut rules: Vec<(Box<dyn Reward>, RuleWeight)> = vec![(Box::new(AccuracyReward { scope }), accuracy)];
        if has_tagged {
            let mut add = |name, of: fn(Tags) -> Box<dyn Reward>, weight: f64| {
                rules.push((Box::new(TagRule { name, of }), RuleWeight { tagged: weight, plain: 0.0 }));
            };
            add("format", |tags| Box::new(FormatReward { tags }), format);
            if let Some(weight) = section.format_strict.weight {
                add("format_strict", |tags| Box::new(FormatStrictReward { tags }), weight);
            }
            if let Some(weight) = section.tag_count.weight {
                add("tag_count", |tags| Box::new(TagCountReward::new(tags)), weight);
            }
        }
        let (values, limit) = (&section.length, section.length.limit(max_completion_length));
        if let Some(weight) = values.weight {
            let rule: Box<dyn Reward> = match values.kind {
                LengthKind::Cosine => {
                    Box::new(CosineReward { accuracy: AccuracyReward { scope }, gate, values: values.clone(), limit })
                }
                LengthKind::SoftOverlong => Box::new(SoftOverlongReward { limit, cache: values.cache(limit) }),
            };
            rules.push((rule, weight.into()));
        }
        if let Some(weight) = section.repetition.weight {
            let (ngram_size, max_penalty) = (section.repetition.ngram_size, section.repetition.max_penalty);
            rules.push((Box::new(RepetitionReward { ngram_size, max_penalty }), weight.into()));
        }
        if let Some(weight) = section.code.weight {
            rules.push((Box::new(CodeReward::new(&section.code)?), weight.into()));
        }
        if let Some(weight) = section.random.weight {
            rules.push((Box::new(RandomReward { probability: section.random.probability }), weight.into()));
        }
        let inverted = section.inverted.weight;
        if let Some(weight) = inverted {
            rules.push((Box::new(InvertedReward { accuracy: AccuracyReward { scope } }), weight.into()));
        }
        let commands = section.custom.iter().map(|custom| Ok((CustomReward::start(custom)?, custom.weight)));
        let by_length = values.kind == LengthKind::Cosine && values.weight.is_some_and(|weight| weight > 0.0);
        Ok(RewardSet {
            rules,
            majority: section.majority.weight.map(|weight| (MajorityReward { scope }, weight)),
            commands: commands.collect::<Result<_>>()?,
            gate,
            checks_answers: accuracy.is_positive() || by_length,
            needs_gold: accuracy.is_positive() || by_length || inverted.is_some_and(|weight| weight > 0.0),
        })
    }

    /// The given rules, for tests.
    #[cfg(test)]
    pub(super) fn of(rules: Vec<(Box<dyn Reward>, f64)>) -> Self {
        RewardSet {
            rules: rules.into_iter().map(|(rule, weight)| (rule, weight.into())).collect(),
            majority: None,
            commands: Vec::new(),
            gate: false,
            needs_gold: true,
            checks_answers: true,
        }
    }

    pub fn names(&self) -> Vec<&str> {
        let rules = self.rules.iter().map(|(rule, _)| rule.name());
        let rules = rules.chain(self.majority.iter().map(|(majority, _)| majority.name()));
        rules.chain(self.commands.iter().map(|(command, _)| command.name())).collect()
    }

    /// Whether a component with a weight compares with the gold answer, so that a question whose gold answer cannot be
    /// read cannot be scored.
    pub fn needs_gold(&self) -> bool {
        self.needs_gold
    }

    /// Whether a rule with a weight is higher for right answers.
    pub(super) fn checks_answers(&self) -> bool {
        self.checks_answers
    }

    /// Whether `code` has a weight.
    pub(super) fn runs_programs(&self) -> bool {
        self.code().is_some_and(|(_, weight)| weight.is_positive())
    }

    /// The value of `code`, if it is one of the rules and can score the sample.
    pub(super) fn code_value(&self, input: &RewardInput) -> Option<f64> {
        self.code()?.0.score(input).value
    }

    fn code(&self) -> Option<&(Box<dyn Reward>, RuleWeight)> {
        self.rules.iter().find(|(rule, _)| rule.name() == "code")
    }

    /// The commands with a weight.
    pub(super) fn rewarded_commands(&self) -> impl Iterator<Item = &CustomReward> {
        self.commands.iter().filter(|(_, weight)| *weight > 0.0).map(|(command, _)| command)
    }

    /// The names of the control rewards with a weight.
    pub(super) fn rewarded_controls(&self) -> Vec<&str> {
        let rules = self.rules.iter().map(|(rule, weight)| (rule.name(), weight.is_positive()));
        let all = rules.chain(self.majority.iter().map(|(majority, weight)| (majority.name(), *weight > 0.0)));
        all.filter(|(name, is_rewarded)| *is_rewarded && CONTROLS.contains(name)).map(|(name, _)| name).collect()
    }

    /// Scores samples, in their order: first the rules on all cores, then the commands. The samples of a group must be
    /// complete and next to each other.
    ///
    /// # Errors
    /// If a command does not follow the protocol; rules have no errors.
    pub fn score_all(&self, inputs: &[RewardInput]) -> Result<Vec<Scored>> {
        Ok(self.score_unless(inputs, &|| false)?.expect("never canceled"))
    }

    /// Like [`score_all`](Self::score_all); `None` soon after `cancelled` returns true. Commands are ended then.
    ///
    /// # Errors
    /// Those of [`score_all`](Self::score_all).
    pub fn score_unless(
        &self,
        inputs: &[RewardInput],
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Vec<Scored>>> {
        let rules = inputs.par_iter().map(|input| (!cancelled()).then(|| self.apply_rules(input)));
        let Some(mut all) = rules.collect::<Option<Vec<Scored>>>() else { return Ok(None) };
        if let Some((majority, weight)) = &self.majority {
            let groups: Vec<_> = inputs.chunk_by(|one, other| one.key.is_same_group(&other.key)).collect();
            let scores = groups.par_iter().map(|group| (!cancelled()).then(|| majority.score(group)));
            let Some(scores) = scores.collect::<Option<Vec<_>>>() else { return Ok(None) };
            all.iter_mut()
                .zip(scores.into_iter().flatten())
                .for_each(|(scored, score)| scored.add(score, *weight, true));
        }
        for (command, weight) in &self.commands {
            let Some(scores) = command.score(inputs, cancelled)? else { return Ok(None) };
            all.iter_mut().zip(scores).for_each(|(scored, score)| scored.add(score, *weight, true));
        }
        Ok(Some(all))
    }

    /// Ends the programs that the rules wait for. The run has been asked to end, and further scores are not used.
    pub fn stop(&self) {
        self.rules.iter().for_each(|(rule, _)| rule.stop());
    }

    /// The scores of the rules for one sample; their names are the first of [`names`](Self::names).
    pub(super) fn apply_rules(&self, input: &RewardInput) -> Scored {
        let mut scored = Scored {
            components: Vec::with_capacity(self.rules.len() + 1 + self.commands.len()),
            total: 0.0,
            scorable: true,
            answer: None,
            verdict: Verdict::Undecided("no component checks the answer".into()),
            note: None,
        };
        let is_open = !self.gate || FormatReward::gate(input);
        for (rule, weight) in &self.rules {
            scored.add(
                rule.score(input),
                weight.of(input.prompt),
                is_open || !["accuracy", "code"].contains(&rule.name()),
            );
        }
        scored
    }
}

impl Scored {
    /// Adds a component. A component without a weight is recorded anyway.
    fn add(&mut self, score: Score, weight: f64, counts: bool) {
        self.components.push(score.value);
        self.scorable &= score.value.is_some() || weight == 0.0;
        if counts {
            self.total += weight * score.value.unwrap_or(0.0);
        }
        self.answer = self.answer.take().or(score.answer);
        if let Some(verdict) = score.verdict {
            self.verdict = verdict;
        }
        self.note = match (self.note.take(), score.note) {
            (Some(notes), Some(note)) => Some(format!("{notes}; {note}")),
            (notes, note) => notes.or(note),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{input, prompt, question, section, values};
    use super::*;
    use crate::config::{CustomSection, LengthSection, OptionalSection, RULES, RandomSection, RepetitionSection};
    use crate::data::Question;

    fn set(section: &RewardSection, prompt: &PriorPrompt) -> RewardSet {
        RewardSet::from_config(section, prompt, 100).unwrap()
    }

    fn score(set: &RewardSet, prompt: &PriorPrompt, gold: &str, response: &str) -> Scored {
        set.score_all(&[input(&question(gold), prompt, response)]).unwrap().remove(0)
    }

    /// Every rule, each with a different weight, which identifies it in the sum.
    fn all() -> RewardSection {
        RewardSection {
            format_strict: OptionalSection { weight: Some(0.25) },
            tag_count: OptionalSection { weight: Some(0.125) },
            length: LengthSection { weight: Some(2.0), kind: LengthKind::SoftOverlong, ..values() },
            repetition: RepetitionSection { weight: Some(4.0), ngram_size: 1, max_penalty: -1.0 },
            random: RandomSection { weight: Some(0.0), probability: 0.5 },
            inverted: OptionalSection { weight: Some(8.0) },
            majority: OptionalSection { weight: Some(16.0) },
            ..section(None, None)
        }
    }

    #[test]
    fn accuracy_and_format_are_a_half_each() {
        let think = prompt(Some("think"));
        let set = set(&section(None, None), &think);
        assert_eq!(set.names(), ["accuracy", "format"]);
        assert!(set.needs_gold());
        for (response, components, total) in [
            (r"<think>a</think><answer>\boxed{7}</answer>", [1.0, 1.0], 1.0),
            (r"<think>a</think><answer>\boxed{8}</answer>", [0.0, 1.0], 0.5),
            (r"it is \boxed{7}", [1.0, 0.0], 0.5),
            ("it is 7", [0.0, 0.0], 0.0),
        ] {
            let scored = score(&set, &think, "7", response);
            assert_eq!((scored.components, scored.total), (components.map(Some).to_vec(), total), "{response}");
        }
    }

    #[test]
    fn without_a_tag_only_accuracy_counts() {
        let none = prompt(None);
        let set = set(&section(None, None), &none);
        assert_eq!(set.names(), ["accuracy"]);
        assert_eq!(score(&set, &none, "7", r"\boxed{7}").total, 1.0);
    }

    #[test]
    fn all_rules_are_in_order_and_penalties_are_subtracted() {
        let think = prompt(Some("think"));
        let set = set(&all(), &think);
        // `code` needs Python, and has its own tests.
        assert_eq!(set.names(), [&RULES[..6], &RULES[7..]].concat());
        let (question, response) = (question("7"), "<think>\na a\n</think>\n<answer>\n\\boxed{7}\n</answer>");
        // 90 of 100 tokens, of which the last 20 are penalized; 7 words, of which `a` is repeated.
        let input = RewardInput { tokens: 90, ..input(&question, &think, response) };
        let scored = set.score_all(&[input]).unwrap().remove(0);
        let penalty = -1.0 / 7.0;
        let random = scored.components[6];
        assert_eq!(
            scored.components,
            [&[1.0, 1.0, 1.0, 1.0, -0.5, penalty].map(Some), &[random, Some(0.0), Some(1.0)][..]].concat()
        );
        assert!((scored.total - (1.375 - 2.0 * 0.5 + 4.0 * penalty + 16.0)).abs() < 1e-12, "{}", scored.total);
    }

    #[test]
    fn each_completion_is_scored_by_the_tags_of_its_own_prompt() {
        let prompts = [prompt(Some("think")), prompt(Some("plan")), prompt(None)];
        let section = RewardSection { gate: Gate::None, ..section(None, None) };
        let set = RewardSet::for_prompts(&section, &prompts.each_ref(), 100).unwrap();
        assert_eq!(set.names(), ["accuracy", "format"]);
        let response = r"<plan>a</plan><answer>\boxed{7}</answer>";
        let expected = [(Some(0.0), 0.5), (Some(1.0), 1.0), (None, 1.0)];
        for (prompt, (format, total)) in prompts.iter().zip(expected) {
            let scored = score(&set, prompt, "7", response);
            assert_eq!((scored.components[1], scored.total, scored.scorable), (format, total, true), "{}", prompt.name);
        }
        let gated = RewardSection { gate: Gate::Format, ..section.clone() };
        let error = RewardSet::for_prompts(&gated, &prompts.each_ref(), 100).err().unwrap().to_string();
        assert!(error.contains("`reward.gate`: the prior prompt `none` has no format"), "{error}");
        let set = RewardSet::for_prompts(&gated, &[&prompts[0], &prompts[1]], 100).unwrap();
        assert_eq!([0, 1].map(|at| score(&set, &prompts[at], "7", response).total), [0.0, 1.0]);
    }

    #[test]
    fn weights_come_from_the_config() {
        let think = prompt(Some("think"));
        let measured = set(&section(Some(2.0), Some(0.0)), &think);
        let scored = score(&measured, &think, "7", r"<think></think><answer>\boxed{7}</answer>");
        assert_eq!(scored.total, 2.0);
        assert_eq!(scored.components, [Some(1.0), Some(1.0)]);

        let strict = OptionalSection { weight: Some(0.5) };
        let strict = RewardSection { format_strict: strict, ..section(None, Some(0.0)) };
        assert_eq!((strict.weights(true), strict.weights(false)), ((0.5, 0.0), (0.5, 0.0)));
        assert_eq!(
            (section(None, Some(0.0)).weights(true), section(None, None).weights(false)),
            ((1.0, 0.0), (1.0, 0.0))
        );
    }

    #[test]
    fn invalid_values_are_reported_with_their_key() {
        let think = prompt(Some("think"));
        let error = |section: RewardSection, prompt: &PriorPrompt| match RewardSet::from_config(&section, prompt, 100) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        };
        assert!(error(section(None, Some(0.5)), &prompt(None)).contains("`none` has no format"));
        assert!(
            error(section(Some(-1.0), None), &think).contains("`reward.accuracy.weight`: -1 is not a valid weight")
        );
        assert!(
            error(section(None, Some(f64::NAN)), &think).contains("`reward.format.weight`: NaN is not a valid weight")
        );
        assert!(error(section(Some(0.0), Some(0.0)), &think).contains("all rewards have weight 0"));
        let gated = RewardSection { gate: Gate::Format, ..section(None, None) };
        assert!(error(gated, &prompt(None)).contains("`reward.gate`: the prior prompt `none` has no format"));
    }

    #[test]
    fn with_the_gate_a_right_answer_counts_only_in_the_format() {
        let think = prompt(Some("think"));
        let cosine = LengthSection { weight: Some(1.0), max_length: Some(20), ..values() };
        let set = set(&RewardSection { gate: Gate::Format, length: cosine, ..section(None, None) }, &think);
        // The length is 10 of 20: the middle of both ranges.
        for (response, accuracy, total) in [
            (r"<think>a</think><answer>\boxed{7}</answer>", 1.0, 0.5 + 0.5 + 0.75),
            (r"it is \boxed{7}", 1.0, -0.75),
            (r"<think>a</think><answer>\boxed{8}</answer>", 0.0, 0.5 - 0.75),
        ] {
            let scored = score(&set, &think, "7", response);
            assert_eq!(scored.components[0], Some(accuracy), "{response}: logged unchanged");
            assert!((scored.total - total).abs() < 1e-12, "{response}: {}", scored.total);
        }
    }

    #[test]
    fn a_gold_that_cannot_be_read_is_not_scored() {
        let think = prompt(Some("think"));
        let rewarded = set(&section(None, None), &think);
        let measured = set(&section(Some(0.0), None), &think);
        assert!(!measured.needs_gold());
        for response in [r"\boxed{7}", "nothing"] {
            let scored = score(&rewarded, &think, r"\oint", response);
            assert_eq!((scored.components[0], scored.scorable), (None, false));
            assert!(score(&measured, &think, r"\oint", response).scorable);
        }
    }

    #[test]
    fn order_is_kept_on_many_cores() {
        let none = prompt(None);
        let set = set(&section(None, None), &none);
        let questions: Vec<Question> = (0..200).map(|it| question(&it.to_string())).collect();
        let responses: Vec<String> = (0..200).map(|it| format!(r"\boxed{{{}}}", it - it % 3)).collect();
        let inputs: Vec<RewardInput> =
            questions.iter().zip(&responses).map(|(question, response)| input(question, &none, response)).collect();
        for (index, scored) in set.score_all(&inputs).unwrap().iter().enumerate() {
            assert_eq!(scored.total, if index % 3 == 0 { 1.0 } else { 0.0 });
        }
    }

    #[test]
    fn a_command_comes_after_the_rules() {
        let script = r#"while read -r line; do id=${line#*\"id\":}; echo "{\"id\":${id%%,*},\"score\":-3,\"note\":\"so so\"}"; done"#;
        let command = ["sh", "-c", script].map(String::from).to_vec();
        let judge = |weight| CustomSection {
            name: "judge".into(),
            command: command.clone(),
            weight,
            timeout: 20.0,
            env: Vec::new(),
        };
        let none = prompt(None);
        let rewarded = set(&RewardSection { custom: vec![judge(0.5)], ..section(None, None) }, &none);
        assert_eq!(rewarded.names(), ["accuracy", "judge"]);
        let scored = score(&rewarded, &none, "7", "7");
        assert_eq!((scored.components, scored.total), (vec![Some(0.0), Some(-3.0)], -1.5));
        assert_eq!(scored.note.as_deref(), Some("no box; so so"));
        let measured = set(&RewardSection { custom: vec![judge(0.0)], ..section(None, None) }, &none);
        assert_eq!(score(&measured, &none, "7", r"\boxed{7}").total, 1.0);
    }

    #[test]
    fn a_score_is_written_as_json() {
        let plan = prompt(Some("plan"));
        let set = set(&section(None, None), &plan);
        let json = |response| serde_json::to_string(&score(&set, &plan, "7", response)).unwrap();
        assert_eq!(
            json(r"\boxed{7}"),
            r#"{"components":[1.0,0.0],"total":0.5,"scorable":true,"answer":"7","verdict":"correct","note":"no <plan>"}"#
        );
        assert_eq!(
            json(r"<plan></plan><answer>\boxed{@}</answer>"),
            r#"{"components":[0.0,1.0],"total":0.5,"scorable":true,"answer":"@","verdict":{"undecided":"unexpected `@`"},"note":null}"#
        );
    }
}
