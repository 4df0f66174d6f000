//! The section that compares gains with those of control rewards.

use super::*;

/// A sweep of arms that differ in their reward: the name of the arm is the only component with a weight.
fn sweep_of_rewards(lab: &Lab, arms: &[(&str, f64)], seeds: u64) {
    let (prompt, benches) = ("reasoning", ["easy", "hard"]);
    lab.eval("base", None, prompt, 0.3, 900);
    let mut runs = Vec::new();
    let mut evals = vec![json!({ "name": "base", "run": null, "test_prompt": prompt, "benches": benches })];
    for (at, (arm, accuracy)) in arms.iter().enumerate() {
        for seed in 1..=seeds {
            let name = format!("{arm}-s{seed}");
            let run = lab.run(&name, prompt, seed, 20);
            let weight = |it: &str| format!("{it}.weight = {:.1}\n", f64::from(u8::from(it == *arm)));
            let rewards: String = ["accuracy", "format"].into_iter().filter(|it| it != arm).map(weight).collect();
            let config = fs::read_to_string(run.join("config.toml")).unwrap();
            fs::write(run.join("config.toml"), format!("{config}[reward]\n{rewards}{}", weight(arm))).unwrap();
            lab.eval(&name, Some(&run), prompt, *accuracy, 10 * at as u64 + seed);
            runs.push(json!({ "name": name, "arm": arm, "seed": seed, "varies": {} }));
            evals.push(json!({ "name": name, "run": name, "test_prompt": prompt, "benches": benches }));
        }
    }
    let sweep = json!({ "name": "rewards", "runs": runs, "evals": evals });
    fs::write(lab.path("sweep.json"), sweep.to_string()).unwrap();
}

#[test]
fn gains_are_compared_with_those_of_control_rewards() {
    let lab = Lab::new();
    sweep_of_rewards(&lab, &[("accuracy", 0.8), ("format", 0.3), ("random", 0.3), ("majority", 0.8)], 5);
    let report = lab.report(&[lab.folder.path().to_owned()]);
    let section = &report.data["controls"];
    assert_eq!(section["controls"], json!({ "format": "format", "random": "random", "majority": "majority" }));
    // One arm, three controls, two benchmarks and their average.
    assert_eq!(section["comparisons"].as_array().unwrap().len(), 3 * 3);
    let gain = |arm: &str| {
        let gains = section["gains"].as_array().unwrap().iter();
        let mut of = gains.filter(|it| it["arm"] == arm && it["column"] == "average");
        of.next().unwrap()["seeds"]["difference"].as_f64().unwrap()
    };
    let against = |control: &str| {
        let all = section["comparisons"].as_array().unwrap().iter();
        all.clone().find(|it| it["reference"] == control && it["column"] == "average").unwrap()
    };
    for control in ["format", "random", "majority"] {
        let difference = against(control)["seeds"]["difference"].as_f64().unwrap();
        assert!((difference - (gain("accuracy") - gain(control))).abs() < 1e-9, "{control}: {difference}");
    }
    assert!(gain("accuracy") > 0.3 && gain("random").abs() < 0.1, "{section}");
    assert_eq!((&against("random")["verdict"], &against("format")["verdict"]), (&json!("higher"), &json!("higher")));
    assert!(against("majority")["verdict"]["none"]["power"].is_f64(), "{}", against("majority"));

    let files = written(&report);
    assert!(files["index.html"].contains("<section id=\"controls\">"));
    let text = &files["report.md"];
    assert!(text.contains("Would another reward have done it?"), "{text}");
    let start = "The gain of `accuracy`, compared with that of the control ";
    assert!(text.contains(&format!("{start}`random` (reward random): higher by +")), "{text}");
    assert!(text.contains(&format!("{start}`majority` (reward majority): no verdict: power ")), "{text}");
}

#[test]
fn without_a_control_reward_there_is_no_section_about_controls() {
    let lab = Lab::new();
    sweep_of_rewards(&lab, &[("accuracy", 0.8), ("format", 0.3)], 2);
    assert!(lab.report(&[lab.folder.path().to_owned()]).data.get("controls").is_none());
}
