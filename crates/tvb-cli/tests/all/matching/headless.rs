//! A model's body against the same body with a head, on either side, under the names that transformers writes.

use super::*;

/// A body's tensors, the prefix they have in a model with a head, and that model's other tensors.
struct Model {
    body: Vec<Shape>,
    prefix: &'static str,
    head: Vec<Shape>,
}

fn bert() -> Model {
    Model {
        body: named(&[
            ("embeddings.word_embeddings.weight", &[40, 24]),
            ("embeddings.LayerNorm.weight", &[24]),
            ("encoder.layer.0.attention.self.query.weight", &[24, 24]),
            ("encoder.layer.0.attention.self.query.bias", &[24]),
            ("encoder.layer.0.output.dense.weight", &[24, 24]),
            ("pooler.dense.weight", &[24, 24]),
        ]),
        prefix: "bert.",
        head: named(&[("classifier.weight", &[3, 24]), ("classifier.bias", &[3])]),
    }
}

fn gpt2() -> Model {
    Model {
        body: named(&[
            ("wte.weight", &[48, 24]),
            ("wpe.weight", &[16, 24]),
            ("h.0.attn.c_attn.weight", &[24, 72]),
            ("h.0.attn.c_attn.bias", &[72]),
            ("ln_f.weight", &[24]),
        ]),
        prefix: "transformer.",
        head: named(&[("lm_head.weight", &[48, 24])]),
    }
}

fn llama() -> Model {
    Model {
        body: named(&[
            ("embed_tokens.weight", &[48, 24]),
            ("layers.0.self_attn.q_proj.weight", &[24, 24]),
            ("layers.0.mlp.up_proj.weight", &[32, 24]),
            ("norm.weight", &[24]),
        ]),
        prefix: "model.",
        head: named(&[("lm_head.weight", &[48, 24])]),
    }
}

impl Model {
    fn whole(&self) -> Vec<Shape> {
        let body = renamed(&self.body, |name| format!("{}{name}", self.prefix));
        [body, self.head.clone()].concat()
    }

    fn n_body(&self) -> usize {
        self.body.len()
    }
}

const MADE: &str = "-o out.safetensors --overwrite";

#[test]
fn a_headless_base_reads_tasks_with_heads() {
    for (model, n_head) in [(bert(), 2), (llama(), 1)] {
        let top = TempDir::new().expect("a folder");
        let here = top.path();
        let whole = model.whole();
        let (base, tasks) = values(&whole, 2, &mut Random(7));
        let body = |values: &Values| values[..model.n_body()].to_vec();
        write_model(here, "base", &model.body, &body(&base), 1);
        for (name, task) in ["a", "b"].iter().zip(&tasks) {
            write_model(here, name, &whole, task, 1);
            write_model(here, &format!("{name}-body"), &model.body, &body(task), 1);
        }
        run(
            here,
            0,
            &format!("add --base base.safetensors {MADE} --from-checkpoints a-body.safetensors b-body.safetensors"),
        );
        let plain = tensors(&here.join("out.safetensors"));

        let inputs = "a.safetensors b.safetensors";
        let said = run(here, 0, &format!("check --base base.safetensors {inputs}"));
        let taken_off = format!("`{}` taken off {} names", model.prefix, model.n_body());
        assert!(said.err.contains(&taken_off), "{}", said.err);
        assert!(
            said.err.contains("tasks a, b have a head and the base has none: left out; --head-from a REGEX"),
            "{}",
            said.err
        );
        let n_parameters: usize = model.head.iter().map(|shape| shape.shape.iter().product::<usize>()).sum();
        assert_eq!(said.json["left_out"]["task"]["n_parameters"], n_parameters);
        assert!(said.err.contains(&format!("left out: {n_head} tensor")), "{}", said.err);
        assert!(said.err.contains("of the parameters of task `b` (no place in the base)"), "{}", said.err);
        assert!(said.err.to_lowercase().contains("warn"), "{}", said.err);

        run(here, 0, &format!("add --base base.safetensors {MADE} --from-checkpoints {inputs}"));
        assert_eq!(tensors(&here.join("out.safetensors")), plain);
        for (kind, flags) in [("coded", ""), ("plain", "--method identity --ratio 1")] {
            run(here, 0, &format!("compress --base base.safetensors {inputs} -o {kind} {flags}"));
            run(here, 0, &format!("verify {kind} --base base.safetensors {inputs}"));
            run(here, 0, &format!("add {kind} --base base.safetensors {MADE}"));
            let made = tensors(&here.join("out.safetensors"));
            assert_eq!(made.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
            run(
                here,
                0,
                &format!(
                    "compress --base base.safetensors a-body.safetensors b-body.safetensors -o {kind}-body {flags}"
                ),
            );
            run(here, 0, &format!("add {kind}-body --base base.safetensors {MADE}"));
            assert_eq!(
                tensors(&here.join("out.safetensors")).values().collect::<Vec<_>>(),
                made.values().collect::<Vec<_>>()
            );
        }
        // What the note says to do does it.
        let first = &model.head[0].name;
        let pattern = format!("^{}\\.", first.split('.').next().unwrap_or_default());
        run(
            here,
            0,
            &format!("add --base base.safetensors {MADE} --head-from a {pattern} --from-checkpoints {inputs}"),
        );
        let made = tensors(&here.join("out.safetensors"));
        assert_eq!(made[first].1, bytes(&tasks[0][model.n_body()]));
        assert_eq!(made.len(), plain.len() + n_head);
    }
}

#[test]
fn a_headless_task_leaves_the_head_of_the_base_alone() {
    for model in [bert(), llama()] {
        let top = TempDir::new().expect("a folder");
        let here = top.path();
        let whole = model.whole();
        let (base, mut tasks) = values(&whole, 2, &mut Random(9));
        let n_body = model.n_body();
        let body = |values: &Values| values[..n_body].to_vec();
        write_model(here, "base", &whole, &base, 1);
        write_model(here, "a", &whole, &tasks[0], 1);
        write_model(here, "b", &model.body, &body(&tasks[1]), 1);
        // The same task with the base's own head.
        tasks[1][n_body..].clone_from_slice(&base[n_body..]);
        write_model(here, "b-whole", &whole, &tasks[1], 1);
        let inputs = |b: &str| format!("a.safetensors b={b}.safetensors");
        let said = run(here, 0, &format!("check --base base.safetensors {}", inputs("b")));
        assert!(said.err.contains("task b has no head: ") && said.err.contains("not moved by it"), "{}", said.err);
        let warnings = said.json["warnings"].as_array().map(Vec::len);
        assert_eq!((warnings, said.json["left_out"]["base"]["n_parameters"].as_u64()), (Some(1), Some(0)));

        for (kind, flags) in [("coded", ""), ("plain", "--method identity --ratio 1")] {
            let [own, plain] = ["b", "b-whole"].map(|b| {
                let basis = format!("{kind}-{b}");
                run(here, 0, &format!("compress --base base.safetensors {} -o {basis} {flags}", inputs(b)));
                run(here, 0, &format!("verify {basis} --base base.safetensors {}", inputs(b)));
                run(here, 0, &format!("add {basis} --base base.safetensors {MADE}"));
                tensors(&here.join("out.safetensors"))
            });
            assert_eq!(own, plain, "{kind}");
            run(here, 0, &format!("recover {kind}-b --base base.safetensors -o {kind}-recovered"));
        }
        let recovered = tensors(&here.join("plain-recovered/b.safetensors"));
        assert_eq!(recovered[&model.head[0].name].1, bytes(&base[n_body]));

        // No task has a head: the base's takes no part.
        let said = run(here, 0, &format!("add --base base.safetensors {MADE} --from-checkpoints b.safetensors"));
        assert!(
            said.err.contains("of the base's parameters (`") && said.err.contains("no task has a head"),
            "{}",
            said.err
        );
        assert!(said.err.to_lowercase().contains("warn"), "{}", said.err);
        let made = tensors(&here.join("out.safetensors"));
        for (shape, values) in model.head.iter().zip(&base[n_body..]) {
            assert_eq!(made[&shape.name].1, bytes(values));
        }
    }
}

/// GPT-2's head is its embedding, however it is stored: nothing is left out, and nothing stays behind.
#[test]
fn a_tied_head_is_no_head_of_its_own() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let model = gpt2();
    let (base, tasks) = values(&model.body, 2, &mut Random(11));
    let tied = |values: &Values| [values.clone(), vec![values[0].clone()]].concat();
    for (name, values) in [("base", &base), ("a", &tasks[0]), ("b", &tasks[1])] {
        write_model(here, &format!("{name}-body"), &model.body, values, 1);
        write_model(here, &format!("{name}-whole"), &model.whole(), &tied(values), 1);
    }
    let mut made = Vec::new();
    for (base, task) in [("body", "whole"), ("whole", "body"), ("body", "body"), ("whole", "whole")] {
        let inputs = format!("a=a-{task}.safetensors b=b-{task}.safetensors");
        let said = run(here, 0, &format!("check --base base-{base}.safetensors {inputs}"));
        assert!(!said.err.contains("left out") && !said.err.contains("REGEX"), "{base} {task}: {}", said.err);
        run(here, 0, &format!("add --base base-{base}.safetensors {MADE} --from-checkpoints {inputs}"));
        made.push(tensors(&here.join("out.safetensors")));
    }
    assert_eq!((&made[0], &made[1]), (&made[2], &made[3]));
    assert_eq!(made[1]["lm_head.weight"], made[1]["transformer.wte.weight"]);
}

#[test]
fn what_is_no_head_beside_a_body_stays_a_mismatch() {
    let top = TempDir::new().expect("a folder");
    let here = top.path();
    let model = bert();
    let (base, tasks) = values(&model.whole(), 1, &mut Random(13));
    let n_body = model.n_body();
    write_model(here, "base", &model.body, &base[..n_body].to_vec(), 1);
    write_model(here, "whole", &model.whole(), &base, 1);
    // One more tensor of the body.
    let more = [model.whole(), named(&[("bert.encoder.layer.1.x.weight", &[3])])].concat();
    write_model(here, "more", &more, &[tasks[0].clone(), vec![vec![0.5; 3]]].concat(), 1);
    let said = run(here, 3, "check --base base.safetensors more.safetensors");
    assert!(said.err.contains("encoder.layer.1.x.weight: not in the base"), "{}", said.err);
    // Both have a head, of other classes.
    let mut other = model.whole();
    other[n_body].shape = vec![5, 24];
    let mut values = tasks[0].clone();
    values[n_body] = vec![0.5; 120];
    write_model(here, "other", &other, &values, 1);
    let said = run(here, 3, "check --base whole.safetensors other.safetensors");
    assert!(said.err.contains("classifier.weight: shape [3, 24] expected, [5, 24] found"), "{}", said.err);
    // A body that lacks a layer.
    let fewer = [0, 1, 2, 3, 5].map(|index| (model.body[index].clone(), tasks[0][index].clone()));
    let (shapes, values): (Vec<Shape>, Values) = fewer.into_iter().unzip();
    write_model(here, "fewer", &shapes, &values, 1);
    let said = run(here, 3, "check --base whole.safetensors fewer.safetensors");
    assert!(said.err.contains("bert.encoder.layer.0.output.dense.weight: missing"), "{}", said.err);
    // A masked model has no pooler.
    let masked: Vec<usize> = (0..n_body - 1).collect();
    let shapes: Vec<Shape> = masked.iter().map(|&index| model.whole()[index].clone()).collect();
    let values: Values = masked.iter().map(|&index| tasks[0][index].clone()).collect();
    write_model(here, "masked", &shapes, &values, 1);
    let said = run(here, 0, "check --base base.safetensors masked.safetensors");
    assert!(said.err.contains("`pooler.dense.weight`: no task has a head"), "{}", said.err);
}
