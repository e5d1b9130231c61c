//! A task's own head in an edit: `--head-from`.

use super::*;

#[test]
fn an_output_may_carry_a_task_s_own_head() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let mut shapes = encoder();
    shapes.push(named(&[("classifier.weight", &[2, 24])]).remove(0));
    let (base, tasks) = values(&shapes, 2, &mut Random(21));
    let config = r#"{"model_type": "bert", "architectures": ["BertForMaskedLM"], "problem_type": "regression"}"#;
    write_folder(here, "base", &shapes, &base, Some(config));
    write_folder(here, "a", &shapes, &tasks[0], None);
    // Five classes, a bias that the base lacks, and a wrapper around both.
    let mut own = shapes.clone();
    own[6].shape = vec![5, 24];
    own.push(named(&[("classifier.bias", &[5])]).remove(0));
    let mut own_values = tasks[1].clone();
    own_values[6].resize(120, 0.25);
    own_values.push(vec![1.0, 2.0, 3.0, 4.0, 5.0]);
    let of_task = r#"{"architectures": ["BertForSequenceClassification"], "id2label": {"0": "x", "4": "y"}}"#;
    write_folder(here, "b", &renamed(&own, |name| format!("module.{name}")), &own_values, Some(of_task));

    let check = |out: &str, said: &Said| {
        let made = tensors(&here.join(format!("{out}/model.safetensors")));
        assert_eq!(made.len(), 8);
        assert_eq!(made["classifier.weight"], (vec![5, 24], bytes(&own_values[6])));
        assert_eq!(made["classifier.bias"], (vec![5], bytes(&own_values[7])));
        assert_ne!(made["norm.weight"].1, bytes(&base[5]));
        let config = std::fs::read_to_string(here.join(out).join("config.json")).expect("a configuration");
        let config: Value = serde_json::from_str(&config).expect("JSON");
        assert_eq!(config["architectures"][0], "BertForSequenceClassification");
        assert_eq!((&config["id2label"]["4"], &config["model_type"]), (&"y".into(), &"bert".into()));
        assert!(config.get("problem_type").is_none());
        let card = std::fs::read_to_string(here.join(out).join("README.md")).expect("a card");
        assert!(card.contains("2 tensors are task `b`'s own: `classifier."), "{card}");
        let mut head: Vec<&str> =
            said.json["head"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
        head.sort_unstable();
        assert_eq!(head, ["classifier.bias", "classifier.weight"]);
    };
    let from = "--base base --from-checkpoints a b";
    run(here, 3, &format!("add -o out {from}"));
    let said = run(here, 0, &format!("add -o out --head-from b ^classifier\\. {from}"));
    check("out", &said);
    // From a basis the task's checkpoint is named.
    run(here, 0, "compress --base base a b --exclude ^classifier -o basis");
    run(here, 2, "add basis --base base -o coded --head-from b ^classifier");
    let said = run(here, 0, "apply basis a+0.5*b --base base -o coded --head-from b=b ^classifier");
    check("coded", &said);
    let said = run(here, 0, "negate basis b --base base -o half --dtype bf16 --head-from b=b ^classifier");
    assert_eq!(said.json["head"].as_array().map(Vec::len), Some(2));
    let half = tvb::Checkpoint::open(&here.join("half")).expect("a checkpoint");
    assert!(half.tensors().iter().all(|tensor| tensor.dtype == tvb::checkpoint::Dtype::Bf16));

    run(here, 3, &format!("add -o none --head-from b ^nothing {from} --exclude ^classifier"));
    run(here, 2, "add basis -o none --delta --base base --head-from b=b ^classifier");
    run(here, 2, "add basis -o none --base base --head-from b=b (");
    assert!(!here.join("none").exists());
}

#[test]
fn one_of_two_tied_tensors_is_nobody_s_own() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let twice = decoder(true);
    let (base, tasks) = values(&decoder(false), 2, &mut Random(2));
    write_folder(here, "base", &twice, &doubled(&base), Some(TIED));
    write_folder(here, "a", &twice, &doubled(&tasks[0]), None);
    write_folder(here, "b", &twice, &doubled(&tasks[1]), None);
    let from = "--base base --from-checkpoints a b";
    let said = run(here, 3, &format!("add -o out --head-from a ^lm_head {from}"));
    assert!(said.err.contains("are one in the base"), "{}", said.err);
    run(here, 0, &format!("add -o out --head-from a ^(lm_head|model.embed_tokens) {from}"));
    let made = tensors(&here.join("out/model.safetensors"));
    assert_eq!((&made["lm_head.weight"], &made[EMBEDDING].1), (&made[EMBEDDING], &bytes(&tasks[0][0])));
}
