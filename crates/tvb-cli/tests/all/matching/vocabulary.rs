//! Embeddings and heads of other sizes: `--vocab common`.

use super::*;

/// `values` with as many rows of the embedding and of the head more (or fewer).
fn resized(values: &Values, shapes: &[Shape], n_rows: usize) -> (Vec<Shape>, Values) {
    let (mut shapes, mut values) = (shapes.to_vec(), values.clone());
    for (shape, values) in shapes.iter_mut().zip(&mut values) {
        if shape.shape[0] == 48 {
            shape.shape[0] = n_rows;
            values.resize(shape.shape.iter().product(), 0.75);
        }
    }
    (shapes, values)
}

#[test]
fn another_vocabulary_takes_part_in_its_common_rows() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    // An untied head with a bias, so that three tensors have the vocabulary's size; and a class head, which has not.
    let mut shapes = decoder(true);
    shapes.extend(named(&[("lm_head.bias", &[48]), ("score.weight", &[3, 24])]));
    let (base, tasks) = values(&shapes, 2, &mut Random(9));
    write_model(here, "base", &shapes, &base, 1);
    write_model(here, "a", &shapes, &tasks[0], 1);
    let (wider, wider_values) = resized(&tasks[1], &shapes, 52);
    write_model(here, "wider", &wider, &wider_values, 1);
    let (narrow, narrow_values) = resized(&tasks[1], &shapes, 45);
    write_model(here, "narrow", &narrow, &narrow_values, 1);
    let said = run(here, 3, "check --base base.safetensors a.safetensors b=wider.safetensors");
    assert!(said.err.contains("--vocab common"), "{}", said.err);

    for (kind, n_rows) in [("wider", 48), ("narrow", 45)] {
        let inputs = format!("a.safetensors b={kind}.safetensors");
        let said = run(here, 0, &format!("check --base base.safetensors {inputs} --vocab common"));
        let note = format!("the first {n_rows} rows of ");
        assert!(said.err.contains(&note), "{}", said.err);
        let left_out = &said.json["left_out"];
        assert_eq!(left_out["base"]["n_parameters"], (48 - n_rows) * (24 + 24 + 1), "{left_out}");
        if kind == "wider" {
            assert_eq!(
                (left_out["task"]["name"].as_str(), &left_out["task"]["n_parameters"]),
                (Some("b"), &(4 * 49).into())
            );
        }
        let from = format!("--vocab common --from-checkpoints {inputs}");
        run(here, 0, &format!("add --base base.safetensors -o {kind}-added.safetensors {from}"));
        run(here, 0, &format!("compress --base base.safetensors {inputs} --vocab common -o {kind}-coded"));
        run(here, 0, &format!("compress --base base.safetensors {inputs} --vocab common -m 2 -o {kind}-floats"));
        run(here, 0, &format!("gram --base base.safetensors {inputs} --vocab common -o {kind}.gram"));
        run(
            here,
            0,
            &format!(
                "compress --base base.safetensors {inputs} --vocab common --method random -m 1 --gram {kind}.gram -o {kind}-random"
            ),
        );
        for basis in ["coded", "floats", "random"] {
            run(here, 0, &format!("add {kind}-{basis} --base base.safetensors -o {kind}-{basis}.safetensors"));
            run(here, 0, &format!("recover {kind}-{basis} b --base base.safetensors -o {kind}-{basis}-recovered"));
            let said = run(here, 0, &format!("verify {kind}-{basis} --base base.safetensors {inputs}"));
            let error = said.json["errors"][0]["measured"].as_f64();
            assert!(
                error.is_some_and(|error| error < if basis == "floats" { 1e-6 } else { 1.1 }),
                "{basis}: {}",
                said.json
            );
        }
        let made = |name: &str| tensors(&here.join(name));
        let added = made(&format!("{kind}-added.safetensors"));
        for (index, shape) in shapes.iter().enumerate() {
            let is_vocabulary = shape.shape[0] == 48;
            let of_row = shape.shape.iter().skip(1).product::<usize>();
            let n_common = if is_vocabulary { n_rows * of_row } else { base[index].len() };
            let sum: Vec<f32> = (0..base[index].len())
                .map(|at| {
                    let base = base[index][at];
                    if at >= n_common {
                        base
                    } else {
                        base + (tasks[0][index][at] - base) + (tasks[1][index][at] - base)
                    }
                })
                .collect();
            let floats = |bytes: &[u8]| -> Vec<f32> {
                bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four"))).collect()
            };
            let close = |found: &[f32], most: f32| found.iter().zip(&sum).all(|(a, b)| (a - b).abs() <= most);
            assert!(close(&floats(&added[&shape.name].1), 1e-6), "{kind}: {}", shape.name);
            for (basis, most) in [("coded", 0.5), ("floats", 1e-5)] {
                let found = floats(&made(&format!("{kind}-{basis}.safetensors"))[&shape.name].1);
                assert_eq!(found.len(), sum.len());
                assert!(close(&found, most), "{kind}-{basis}: {}", shape.name);
                assert_eq!(found[n_common..], base[index][n_common..], "{kind}-{basis}: the base's own rows");
            }
        }
    }
    // A class head of other classes is no vocabulary.
    let mut classes = shapes.clone();
    classes[6].shape[0] = 4;
    let mut class_values = tasks[1].clone();
    class_values[6].resize(96, 0.5);
    let (classes, class_values) = resized(&class_values, &classes, 52);
    write_model(here, "classes", &classes, &class_values, 1);
    let said = run(here, 3, "check --base base.safetensors classes.safetensors --vocab common");
    assert!(said.err.contains("1 mismatch") && said.err.contains("score.weight"), "{}", said.err);
    // In a batch.
    let jobs = "[[job]]\nname = 'j'\nbase = 'base.safetensors'\ntasks = ['a.safetensors', 'b=wider.safetensors']\noutput = 'made'\nvocab = 'common'\n";
    std::fs::write(here.join("jobs.toml"), jobs).expect("written");
    run(here, 0, "batch jobs.toml");
    run(here, 0, "add made --base base.safetensors -o batch.safetensors");
    assert_eq!(tensors(&here.join("batch.safetensors")), tensors(&here.join("wider-coded.safetensors")));
}
