use super::*;
use crate::report::markdown;
use crate::rng::{Purpose, Stream};

/// Arms with given true accuracies, which vary a little between seeds; a third of the questions is easy.
fn study(arms: &[(&str, f64)], seeds: u64, between: f64, draw: u64) -> Study {
    let sizes = [60u64, 100];
    let arm = |(index, &(name, accuracy)): (usize, &(&str, f64))| {
        let results = |seed: u64| {
            let stream = Stream::new(draw, Purpose::Test, &[index as u64, seed]);
            let chance = accuracy + between * stream.normal(1_000);
            let benchmark = |(b, &n): (usize, &u64)| {
                let right = |q: u64, k: u64| {
                    stream.f64(10_000 * (b as u64 + 1) + 10 * q + k)
                        < chance + if q.is_multiple_of(3) { 0.2 } else { -0.1 }
                };
                (0..n).map(|q| (0..4).filter(|&k| right(q, k)).count() as f64 / 4.0).collect()
            };
            sizes.iter().enumerate().map(benchmark).collect()
        };
        StudyArm { name: name.into(), seeds: (1..=seeds).map(|seed| (seed, results(seed))).collect() }
    };
    let benchmarks = ["easy", "hard"].map(|name| StudyBenchmark { name: name.into(), samples: 4 });
    Study { benchmarks: benchmarks.to_vec(), arms: arms.iter().enumerate().map(arm).collect() }
}

/// Every arm with each reference; without references, all pairs.
fn compare_all(study: &Study, references: &[&str], seed: u64) -> Result<StudyOutcome, StudyError> {
    let references: Vec<String> = references.iter().map(|&name| name.to_owned()).collect();
    compare_pairs(study, &pairs(study, &references), seed)
}

fn find<'a>(outcome: &'a StudyOutcome, arm: &str, reference: &str, column: &str) -> &'a ArmComparison {
    let here =
        |it: &&ArmComparison| (it.arm.as_str(), it.reference.as_str(), it.column.as_str()) == (arm, reference, column);
    outcome.comparisons.iter().find(here).unwrap()
}

#[test]
fn large_differences_get_a_verdict_and_small_ones_do_not() {
    let arms = [("none", 0.3), ("reasoning", 0.6), ("planning", 0.31)];
    let outcome = compare_all(&study(&arms, 5, 0.005, 1), &[], 0).unwrap();
    assert_eq!(outcome.columns, ["easy", "hard", "average"]);
    // Two arms are compared with `none`, one with `reasoning`: the two references are compared once.
    assert_eq!(outcome.comparisons.len(), 3 * 3);

    let found = find(&outcome, "reasoning", "none", AVERAGE);
    assert_eq!(found.verdict, ComparisonVerdict::Higher);
    assert!((found.seeds.difference - 0.3).abs() < 0.03 && found.questions.low > 0.2);
    assert_eq!(find(&outcome, "planning", "reasoning", AVERAGE).verdict, ComparisonVerdict::Lower);
    let small = find(&outcome, "planning", "none", AVERAGE);
    assert!(matches!(small.verdict, ComparisonVerdict::None { power } if power > 0.5), "{small:?}");

    let summary = outcome.summary("between arms");
    assert!(summary.iter().any(|line| line.starts_with("`reasoning` is higher than `none` on")), "{summary:?}");
    assert!(!summary.iter().any(|line| line.contains("`planning` is higher")));
    // One sentence for all benchmarks, with the corrected interval, which contains the two others.
    let told: Vec<&ArmComparison> =
        outcome.comparisons.iter().filter(|it| it.arm == "reasoning" && it.reference == "none").collect();
    assert_eq!(summary.iter().filter(|line| line.starts_with("`reasoning` is higher than `none`")).count(), 1);
    for it in told.iter().filter(|it| it.decided()) {
        let (interval, seeds) = (it.corrected.unwrap(), it.seeds.interval.unwrap());
        assert!(interval.low <= seeds.low.min(it.questions.low) && interval.high >= seeds.high.max(it.questions.high));
        assert!(summary.iter().any(|line| line.contains(&text::signed_ends(interval))), "{summary:?}");
    }
    let open = outcome.comparisons.iter().filter(|it| matches!(it.verdict, ComparisonVerdict::None { .. })).count();
    let rest = format!("No verdict on the other {open} of 9 differences between arms: they are not significant");
    assert!(summary.iter().any(|line| line.starts_with(&rest)), "{summary:?}");
}

#[test]
fn the_average_weights_benchmarks_equally() {
    let outcome = compare_all(&study(&[("none", 0.4), ("code", 0.5)], 3, 0.0, 2), &[], 0).unwrap();
    for (_, cells) in &outcome.cells {
        assert!((cells[2].accuracy - (cells[0].accuracy + cells[1].accuracy) / 2.0).abs() < 1e-12);
        assert!(cells.iter().all(|cell| cell.interval.low <= cell.accuracy && cell.accuracy <= cell.interval.high));
        assert!(cells.iter().all(|cell| cell.between_seeds.is_some()));
    }
    let difference = |column| find(&outcome, "code", "none", column).seeds.difference;
    assert!((difference(AVERAGE) - (difference("easy") + difference("hard")) / 2.0).abs() < 1e-12);
}

#[test]
fn one_seed_gives_no_verdict() {
    let outcome = compare_all(&study(&[("none", 0.2), ("code", 0.7)], 1, 0.0, 3), &[], 0).unwrap();
    for it in &outcome.comparisons {
        assert_eq!((it.verdict, it.adjusted, it.detectable), (ComparisonVerdict::None { power: 0.0 }, None, None));
        assert!(it.question_p_value < 0.001);
    }
    let summary = outcome.summary("between arms");
    assert_eq!(summary[0], "No verdict on any of the 3 differences between arms.");
    assert!(summary[1].starts_with("All come from a single seed"), "{summary:?}");
    assert!(markdown::table(&outcome.comparisons("c", "")).contains("| one seed |"));
}

/// With a large variation between seeds, a difference of 10 points is usually not detected, and the summary shows it.
#[test]
fn the_power_of_what_was_not_found_is_reported() {
    let mut noisy = study(&[("none", 0.3), ("code", 0.35)], 3, 0.0, 4);
    for (i, results) in noisy.arms[1].seeds.values_mut().enumerate() {
        let moved = [-0.1, 0.0, 0.1][i];
        results.iter_mut().flatten().for_each(|value| *value += moved);
    }
    let outcome = compare_all(&noisy, &["none"], 0).unwrap();
    let it = find(&outcome, "code", "none", AVERAGE);
    assert!(it.seeds.power(WORTH) < 0.5 && matches!(it.verdict, ComparisonVerdict::None { .. }), "{it:?}");
    assert!(outcome.summary("between arms").iter().any(|line| line.contains("a power below 50 %")));
}

/// Low power for 5 points does not hide a difference of 40.
#[test]
fn large_differences_get_a_verdict_with_low_power() {
    let outcome = compare_all(&study(&[("none", 0.25), ("code", 0.7)], 3, 0.04, 9), &[], 0).unwrap();
    let it = find(&outcome, "code", "none", AVERAGE);
    assert!(it.seeds.power(WORTH) < 0.5, "{it:?}");
    assert_eq!(it.verdict, ComparisonVerdict::Higher, "{it:?}");
    assert!(it.corrected.unwrap().low > 0.0);
}

/// A few seeds often have exactly the same difference by chance, which is not evidence of a small variance.
#[test]
fn equal_differences_at_all_seeds_are_not_certain() {
    let mut study = study(&[("none", 0.3), ("code", 0.3)], 3, 0.0, 5);
    let same = study.arms[0].seeds[&1].clone();
    let mut one_more = same.clone();
    let question = one_more[0].iter().position(|&value| value < 0.5).unwrap();
    one_more[0][question] = 1.0;
    study.arms[0].seeds.values_mut().for_each(|results| *results = same.clone());
    study.arms[1].seeds.values_mut().for_each(|results| *results = one_more.clone());
    let outcome = compare_all(&study, &["none"], 0).unwrap();
    let it = find(&outcome, "code", "none", "easy");
    assert_eq!(it.seeds.sd, Some(0.0));
    let Interval { low, high } = it.seeds.interval.unwrap();
    assert!(it.seeds.p_value.unwrap() > 0.01 && high - low > 0.01, "{it:?}");
    assert!(matches!(it.verdict, ComparisonVerdict::None { .. }), "{it:?}");
}

/// Two seeds that solve everything: the interval over seeds has a width, and so has that over questions of two equal arms.
#[test]
fn two_perfect_seeds_are_not_certain() {
    let questions =
        |share: f64| (0..100).map(|q| f64::from(u8::from(f64::from(q) < 100.0 * share))).collect::<Vec<_>>();
    let arm = |name: &str, share| StudyArm {
        name: name.into(),
        seeds: BTreeMap::from([1, 2].map(|seed| (seed, vec![questions(share)]))),
    };
    let benchmarks = vec![StudyBenchmark { name: "easy".into(), samples: 1 }];
    let study = Study { benchmarks, arms: vec![arm("none", 0.76), arm("code", 1.0), arm("recall", 1.0)] };
    let outcome = compare_all(&study, &[], 0).unwrap();
    let it = find(&outcome, "code", "none", "easy");
    let Interval { low, high } = it.seeds.interval.unwrap();
    assert!((it.seeds.difference - 0.24).abs() < 1e-12 && high - low > 0.01, "{it:?}");
    assert!(it.seeds.p_value.unwrap() > 1e-4, "{it:?}");
    let equal = find(&outcome, "recall", "code", "easy");
    assert!(equal.questions.low < -0.01 && equal.questions.high > 0.01, "{equal:?}");
}

/// At most six arms are compared in all pairs; more only with `none` and `reasoning`, or with the first.
#[test]
fn pairs_of_small_and_large_studies() {
    let names = ["a", "b", "reasoning", "c", "none", "d", "e", "f"];
    let of = |count: usize, baselines: &[&str]| -> Vec<(String, String)> {
        let arms: Vec<(&str, f64)> = names[..count].iter().map(|&name| (name, 0.5)).collect();
        let baselines: Vec<String> = baselines.iter().map(|&name| name.to_owned()).collect();
        let study = study(&arms, 1, 0.0, 1);
        pairs(&study, &baselines).iter().map(|(arm, base)| (arm.name.clone(), base.name.clone())).collect()
    };
    assert_eq!(of(2, &[]), [("b".to_owned(), "a".to_owned())]);
    assert_eq!(of(6, &[]).len(), 15);
    assert!(of(6, &[]).iter().take(5).all(|(_, base)| base == "none"));
    let large = of(8, &[]);
    assert_eq!(large.len(), 7 + 6);
    assert!(large.iter().all(|(_, base)| base == "none" || base == "reasoning"));
    assert_eq!(of(8, &["d"]).len(), 7);
    assert_eq!(of(8, &["d", "a"]).len(), 13);
}

#[test]
fn incomparable_arms_are_an_error() {
    let whole = study(&[("none", 0.3), ("code", 0.3)], 2, 0.0, 6);
    let fails = |change: &dyn Fn(&mut Study)| {
        let mut study = whole.clone();
        change(&mut study);
        compare_all(&study, &[], 0).unwrap_err().to_string()
    };
    assert_eq!(fails(&|study| study.arms.clear()), "the study has no arms, benchmarks or seeds");
    assert_eq!(fails(&|study| study.arms[1].name = "none".into()), "two arms have the name `none`");
    let incomplete = fails(&|study| study.arms[1].seeds.get_mut(&2).unwrap().truncate(1));
    assert!(incomplete.starts_with("seed 2 of arm `code`: expected 2 benchmarks, found 1"), "{incomplete}");
    let short = fails(&|study| study.arms[1].seeds.get_mut(&1).unwrap()[1].truncate(99));
    assert_eq!(short, "seed 1 of arm `code`: expected 100 questions of hard, found 99");
    let apart = fails(&|study| {
        study.arms[1].seeds = study.arms[1].seeds.clone().into_iter().map(|(k, v)| (k + 9, v)).collect()
    });
    assert!(apart.starts_with("arms `code` and `none` share no seed"), "{apart}");
}

#[test]
fn tables_and_charts() {
    let arms = [("none", 0.3), ("reasoning", 0.6), ("planning", 0.31)];
    let outcome = compare_all(&study(&arms, 3, 0.01, 7), &[], 0).unwrap();
    let shown = outcome.cells[0].1[0].shown();
    assert!(shown.text.contains(" [") && shown.text.contains("] ±"), "{shown:?}");
    let comparisons = markdown::table(&outcome.comparisons("c", ""));
    assert_eq!(comparisons.lines().count(), 2 + 9);
    assert!(comparisons.lines().all(|line| line.matches('|').count() == 10), "{comparisons}");
    let forest = outcome.forest("Each arm compared with none", Some("none"));
    assert_eq!(forest.groups.iter().map(|group| group.rows.len()).collect::<Vec<_>>(), [2, 2, 2]);
    assert!(forest.svg().contains("Each arm compared with none"));
    println!("{comparisons}\n{}", outcome.summary("between arms").join("\n"));
}

/// Names come from the user's files and are used in sentences and tables.
#[test]
fn names_are_escaped_in_sentences_and_tables() {
    let name = "a|`b`\n<i>";
    let arms = [("none", 0.3), (name, 0.7)];
    let outcome = compare_all(&study(&arms, 5, 0.005, 8), &[], 0).unwrap();
    let said = &outcome.summary("between arms")[0];
    assert!(said.starts_with("`a|'b' <i>` is higher than `none`"), "{said}");
    let table = markdown::table(&outcome.comparisons("c", ""));
    assert!(table.lines().all(|line| line.replace("\\|", "").matches('|').count() == 10), "{table}");
    assert!(!table.contains("<i>"));
}
