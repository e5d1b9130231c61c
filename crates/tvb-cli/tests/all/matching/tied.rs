//! Tied tensors, however files store them.

use super::*;

#[test]
fn a_tied_head_is_the_embedding_however_it_is_stored() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let (once, twice) = (decoder(false), decoder(true));
    let (base, tasks) = plain_run(here, &once);
    let plain = tensors(&here.join("plain.safetensors"));
    let n_parameters = run(here, 0, "check --base base.safetensors a.safetensors").json["n_parameters"].clone();
    let lone = renamed(&once, |name| name.replace(EMBEDDING, "lm_head.weight"));
    // Each way to store the base, and the tasks otherwise.
    for (kind, shapes, base_values, config) in [
        ("once", &once, base.clone(), Some(TIED)),
        ("twice", &twice, doubled(&base), Some(TIED)),
        ("unsaid", &twice, doubled(&base), None),
    ] {
        write_folder(here, kind, shapes, &base_values, config);
        write_folder(here, "ta", &twice, &doubled(&tasks[0]), None);
        write_folder(here, "tb", &once, &tasks[1], None);
        let mut inputs = vec!["a=ta b=tb"];
        if config.is_some() {
            write_folder(here, "tl", &lone, &tasks[1], None);
            inputs.push("a=ta b=tl");
        }
        for (number, inputs) in inputs.into_iter().enumerate() {
            let said = run(here, 0, &format!("check --base {kind} {inputs}"));
            assert_eq!(said.json["n_parameters"], n_parameters, "{kind}: {}", said.err);
            assert!(said.err.contains("`lm_head.weight` is `model.embed_tokens.weight`: one tensor"), "{}", said.err);
            let out = format!("{kind}-{number}");
            run(here, 0, &format!("add --base {kind} -o {out}-added --from-checkpoints {inputs}"));
            run(here, 0, &format!("compress --base {kind} {inputs} -o {out}-basis"));
            run(here, 0, &format!("add {out}-basis --base {kind} -o {out}-coded"));
            run(here, 0, &format!("compress --base {kind} {inputs} -m 2 -o {out}-floats"));
            run(here, 0, &format!("add {out}-floats --base {kind} -o {out}-plain"));
            run(here, 0, &format!("recover {out}-basis a --base {kind} -o {out}-recovered"));
            run(here, 0, &format!("verify {out}-basis --base {kind} {inputs}"));
            for made in ["added", "coded", "plain", "recovered/a"] {
                let made = tensors(&here.join(format!("{out}-{made}/model.safetensors")));
                assert_eq!(made.len(), shapes.len(), "{kind}: the base's own names");
                if shapes.len() > once.len() {
                    assert_eq!(made["lm_head.weight"], made[EMBEDDING], "{kind}");
                }
                assert_ne!(made[EMBEDDING].1, bytes(&base[0]), "{kind}");
            }
            let added = tensors(&here.join(format!("{out}-added/model.safetensors")));
            assert_eq!(added[EMBEDDING], plain[EMBEDDING], "{kind}");
            // Onto a copy of the base that stores it otherwise.
            for other in ["once", "twice"].into_iter().filter(|other| here.join(other).exists()) {
                run(here, 0, &format!("add {out}-basis --base {other} -o other --overwrite"));
                let made = tensors(&here.join("other/model.safetensors"));
                let coded = tensors(&here.join(format!("{out}-coded/model.safetensors")));
                assert!(
                    made.iter()
                        .all(|(name, tensor)| coded[name.replace("lm_head", "model.embed_tokens").as_str()] == *tensor)
                );
            }
        }
    }
    let manifest = std::fs::read_to_string(here.join("once-0-basis/basis.json")).expect("a manifest");
    assert!(manifest.contains("\"version\": 3") && manifest.contains("\"twins\""), "{manifest}");
}

#[test]
fn a_task_that_unties_what_the_base_ties_is_refused() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let (once, twice) = (decoder(false), decoder(true));
    let (base, tasks) = plain_run(here, &once);
    write_folder(here, "tied", &twice, &doubled(&base), Some(TIED));
    write_folder(here, "unsaid", &twice, &doubled(&base), None);
    let mut untied = doubled(&tasks[1]);
    untied[4][7] += 1.0;
    write_folder(here, "untied", &twice, &untied, None);
    let from = "-o out --overwrite --from-checkpoints b=untied";
    let said = run(here, 3, &format!("add --base tied {from}"));
    for word in ["task b", "lm_head.weight", EMBEDDING, "config.json", "--exclude"] {
        assert!(said.err.contains(word), "{word}: {}", said.err);
    }
    let both = "--exclude ^(lm_head|model.embed_tokens).weight$";
    run(here, 0, &format!("add --base tied {from} {both}"));
    let made = tensors(&here.join("out/model.safetensors"));
    assert_eq!((&made["lm_head.weight"], &made[EMBEDDING].1), (&made[EMBEDDING], &bytes(&base[0])));
    // Where nothing ties them, they are two.
    let said = run(here, 0, &format!("add --base unsaid {from}"));
    assert!(!said.err.contains("one tensor"), "{}", said.err);
    let made = tensors(&here.join("out/model.safetensors"));
    assert_ne!(made["lm_head.weight"], made[EMBEDDING]);
    // Leaving out one of two that are one leaves out both.
    write_folder(here, "b", &twice, &doubled(&tasks[1]), None);
    run(here, 0, "add --base tied -o out --overwrite --from-checkpoints b --exclude ^lm_head");
    let made = tensors(&here.join("out/model.safetensors"));
    assert_eq!((&made["lm_head.weight"], &made[EMBEDDING].1), (&made[EMBEDDING], &bytes(&base[0])));
}

#[test]
fn one_storage_of_a_pytorch_file_is_one_tensor() {
    use tvb::checkpoint::Dtype;
    use tvb::checkpoint::torch::{SaveStorage, SaveTensor, SaveValue, TorchWriter};
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let (_, tasks) = plain_run(here, &decoder(false));
    let base = tensors(&here.join("base.safetensors"));
    // The embedding first, and under its second name once more.
    let mut entries: Vec<(&str, usize, &[usize])> = Vec::new();
    for (storage, (name, (shape, _))) in base.iter().enumerate() {
        entries.push((name, storage, shape));
        if name == EMBEDDING {
            entries.push(("odd.name", storage, shape));
        }
    }
    let entries = entries.into_iter().map(|(name, storage, shape)| {
        let tensor = SaveTensor::contiguous(storage, 0, Dtype::F32, shape);
        (SaveValue::Str(name.into()), SaveValue::Tensor(tensor))
    });
    let value = SaveValue::OrderedDict(entries.collect());
    let storages: Vec<SaveStorage> =
        base.values().map(|(_, bytes)| SaveStorage { dtype: Dtype::F32, n_elements: bytes.len() as u64 / 4 }).collect();
    let writer = TorchWriter::create(&here.join("tied.pt"), "tied", &value, &storages).expect("a file");
    for (storage, (_, bytes)) in base.values().enumerate() {
        writer.write_at(storage, 0, bytes).expect("written");
    }
    writer.finish().expect("a file");
    run(here, 0, "compress --base tied.pt a.safetensors b.safetensors -o basis");
    run(here, 0, "add basis --base tied.pt -o made.safetensors");
    let (made, coded) = (tensors(&here.join("made.safetensors")), tensors(&here.join("plain-coded.safetensors")));
    assert_eq!(made["odd.name"], made[EMBEDDING]);
    assert!(coded.iter().all(|(name, tensor)| made[name] == *tensor));
    // A task in which they differ.
    let mut shapes = decoder(false);
    shapes.push(Shape { name: "odd.name".into(), ..shapes[0].clone() });
    let mut values = doubled(&tasks[0]);
    values[4][0] += 1.0;
    write_model(here, "untied", &shapes, &values, 1);
    let said = run(here, 3, "check --base tied.pt untied.safetensors");
    assert!(said.err.contains("`odd.name`") && said.err.contains("one place"), "{}", said.err);
}
