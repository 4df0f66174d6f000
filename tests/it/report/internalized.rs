//! The section about gains with and without the prompt of training.

use super::*;

/// The accuracy of a row of the section "Training prompt by test prompt" under a test prompt.
fn crossed(report: &Report, trained_with: &str, tested_with: &str) -> f64 {
    let matrix = &report.data["matrix"];
    let column = matrix["tested_with"].as_array().unwrap().iter().position(|it| it == tested_with).unwrap();
    let mut rows = matrix["rows"].as_array().unwrap().iter();
    rows.find(|row| row["trained_with"] == trained_with).unwrap()["accuracy"][column].as_f64().unwrap()
}

/// The gain is 40 points with the prompt and 30 without, so 75 % of it is retained.
#[test]
fn the_retained_share_of_a_gain_is_that_of_the_accuracies() {
    let without_prompt = "<think>2 + 2</think><answer>4</answer>";
    let lab = Lab { questions: 400, without_prompt, ..Lab::new() };
    let mut runs = lab.study(&[("none", 0.5), ("reasoning", 0.7), ("planning", 0.65)], 5);
    lab.eval("crossed", Some(&runs[5]), "planning", 0.5, 77);
    runs.push(lab.path("evals/crossed"));
    let report = lab.report(&runs);
    let arms = report.data["internalized"]["arms"].as_array().unwrap();
    assert_eq!(arms.iter().map(|it| it["arm"].as_str().unwrap()).collect::<Vec<_>>(), ["reasoning", "planning"]);
    let average = &arms[0]["retained"][2];
    let gain = |prompt: &str| crossed(&report, "reasoning", prompt) - crossed(&report, "untrained", prompt);
    let share = average["share"].as_f64().unwrap();
    assert!((share - gain("none") / gain("reasoning")).abs() < 1e-9 && (share - 0.75).abs() < 0.1, "{average}");
    for set in ["seeds", "questions"] {
        let [low, high] = ["low", "high"].map(|end| average[set]["within"][end].as_f64().unwrap());
        assert!(low < share && share < high && low > 0.4 && high < 1.1, "{average}");
    }
    // The gain under another prompt is that of the only seed that was evaluated with it.
    let gains = report.data["internalized"]["gains"].as_array().unwrap();
    let other = gains.iter().find(|it| it["arm"] == "reasoning, tested with planning" && it["column"] == "average");
    let expected = crossed(&report, "reasoning", "planning") - crossed(&report, "untrained", "planning");
    assert!((other.unwrap()["seeds"]["difference"].as_f64().unwrap() - expected).abs() < 1e-9, "{other:?}");
    // With the prompt, the accuracy is 10 points higher, so putting it back does not hurt.
    let back = report.data["internalized"]["prompt_back"].as_array().unwrap();
    assert_eq!((back.len(), &back[2]["verdict"]), (2 * 3, &json!("higher")));
    // Trained, all completions without a prompt have the tags of `reasoning`, and none those of `planning`.
    let rate = |arm: usize, model: &str| arms[arm]["without_prompt"][model]["value"].as_f64();
    assert_eq!([rate(0, "format"), rate(0, "untrained_format")], [Some(1.0), Some(0.0)]);
    assert_eq!(rate(1, "format"), Some(0.0));

    let files = written(&report);
    assert!(files["index.html"].contains("<section id=\"internalized\">"));
    let text = &files["report.md"];
    let start = "`reasoning`: without a prompt, 100.0 % \\[";
    assert!(text.contains(start) && text.contains("; of the untrained model, 0.0 % \\["), "{text}");
    assert!(files["index.html"].contains("Gains with and without the prompt"));
}

#[test]
fn a_prompt_that_hurts_when_it_is_put_back_is_reported() {
    let lab = Lab::new();
    let mut runs = lab.study(&[("none", 0.5)], 1);
    for seed in 1..=5 {
        let run = lab.run(&format!("r-{seed}"), "reasoning", seed, 20);
        lab.eval(&format!("r-{seed}-own"), Some(&run), "reasoning", 0.4, 10 + seed);
        lab.eval(&format!("r-{seed}-none"), Some(&run), "none", 0.7, 20 + seed);
        runs.push(run);
    }
    let report = lab.report(&runs);
    // The untrained model was evaluated without a prompt only.
    let gains = report.data["internalized"]["gains"].as_array().unwrap();
    assert!(gains.iter().all(|it| it["reference"] == "untrained, none"), "{gains:?}");
    assert_eq!(gains.len(), 2 * 3);
    let files = written(&report);
    let start = "`reasoning`: accuracy with its prompt, compared with that without a prompt: lower by −";
    assert!(files["report.md"].contains(start), "{}", files["report.md"]);
    assert!(files["report.md"].contains("so putting the prompt back hurts."));
}

/// Without a gain with the prompt, hardly any share can be excluded. A single seed has no set over seeds.
#[test]
fn the_retained_share_of_no_gain_is_unbounded() {
    for (seeds, told) in [(2, "not significant"), (1, "one seed")] {
        let lab = Lab::new();
        let runs = lab.study(&[("none", 0.5), ("reasoning", 0.3)], seeds);
        let report = lab.report(&runs);
        let shares = report.data["internalized"]["arms"][0]["retained"].as_array().unwrap();
        let sets = if seeds == 1 { &["questions"][..] } else { &["seeds", "questions"] };
        for set in shares.iter().flat_map(|share| sets.iter().map(move |set| &share[*set])) {
            assert!(*set == "any" || set["outside"].is_object(), "{shares:?}");
        }
        let text = &written(&report)["report.md"];
        let row = text.lines().find(|line| line.starts_with("| reasoning | average | ")).unwrap();
        assert!(row.contains("any value") || row.contains(" or at least "), "{row}");
        assert!(row.contains(told) && row.contains("| not significant |"), "{row}");
    }
}

#[test]
fn the_section_about_the_prompt_needs_evaluations_without_it() {
    // The untrained model was not evaluated without a prompt.
    let lab = Lab::new();
    let runs = lab.study(&[("reasoning", 0.7)], 2);
    assert!(lab.report(&runs).data.get("internalized").is_none());
    // No arm was.
    let lab = Lab::new();
    lab.eval("base-none", None, "none", 0.3, 900);
    let run = lab.run("r-1", "reasoning", 1, 20);
    lab.eval("r-1-own", Some(&run), "reasoning", 0.7, 1);
    assert!(lab.report(&[run]).data.get("internalized").is_none());
    // The only arm was trained without a prompt.
    let lab = Lab::new();
    let runs = lab.study(&[("none", 0.7)], 2);
    assert!(lab.report(&runs).data.get("internalized").is_none());
}
