//! Which runs form an arm, and which arms are compared.

use super::*;

/// Two learning rates under one prompt are two arms, not two seeds of one.
#[test]
fn runs_that_differ_in_more_than_the_seed_are_separate_arms() {
    let lab = Lab::new();
    let mut runs = lab.study(&[("none", 0.3), ("reasoning", 0.7)], 3);
    let config = runs[5].join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("[train]\n", "[train]\nlearning_rate = 0.005\nsave_steps = 3\n")).unwrap();
    let found = lab.report(&runs);
    let split =
        "The runs of `reasoning` form 2 arms, because they differ in more than the seed: in `train.learning_rate`.";
    assert_eq!(found.warnings[0], split);
    let rows = found.data["results"]["rows"].as_array().unwrap();
    let seeds = |arm: &str| {
        rows.iter().find(|row| row["model"] == "trained" && row["name"] == arm).map(|row| row["seeds"].clone())
    };
    assert_eq!(seeds("reasoning (learning_rate unset)"), Some(json!(2)));
    assert_eq!(seeds("reasoning (learning_rate 0.005)"), Some(json!(1)));
    assert_eq!(seeds("none"), Some(json!(3)));
    assert!(written(&found)["index.html"].contains("they differ in more than the seed"));

    // The same configuration and seed twice is not another seed.
    runs.push(lab.run("again", "none", 1, 20));
    let found = lab.report(&runs);
    let again = "The run `again` is left out: `none-1` has the same configuration and the same seed.";
    assert!(found.warnings.iter().any(|line| line == again), "{:?}", found.warnings);
}

/// Any two arms can be compared: two arms without `none` and `reasoning`, and those that the user names.
#[test]
fn arms_are_compared_in_pairs_or_with_the_named_baselines() {
    let pairs = |found: &Report| -> BTreeSet<(String, String)> {
        let comparisons = found.data["comparisons"].as_array().unwrap();
        let name = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
        comparisons.iter().map(|it| (name(it, "arm"), name(it, "reference"))).collect()
    };
    let lab = Lab::new();
    let runs = lab.study(&[("code", 0.3), ("planning", 0.7)], 3);
    let found = lab.report(&runs);
    assert_eq!(pairs(&found), BTreeSet::from([("planning".into(), "code".into())]));
    let higher = "`planning` is higher than `code`";
    assert!(found.summary.iter().any(|line| line.starts_with(higher)), "{:?}", found.summary);

    let lab = Lab::new();
    let runs = lab.study(&[("code", 0.3), ("none", 0.3), ("recall", 0.3), ("planning", 0.3)], 2);
    assert_eq!(pairs(&lab.report(&runs)).len(), 6);
    let material = load(&runs, &lab.path("evals")).unwrap();
    let against = pairs(&report(&material, None, &["recall".into()]));
    assert_eq!(against.len(), 3);
    assert!(against.iter().all(|(_, reference)| reference == "recall"), "{against:?}");
}
