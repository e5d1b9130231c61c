//! `tvb merge` as a user runs it: recipes, methods and models, bases of tasks, cards that repeat, and what is refused.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use tvb_tests::small_models::{Random, Shape, Stored, Values, contents, values, write_model};

/// Tensors of two layers, of what stands before them and of what stands behind.
const NAMES: [&str; 4] = ["embed.w", "layers.0.mlp.w", "layers.1.mlp.w", "norm.w"];

/// A folder with a base and two fine-tunes, `a` and `b`, and their values.
struct Models {
    top: tempfile::TempDir,
    base: Values,
    tasks: Vec<Values>,
}

impl Models {
    fn new() -> Models {
        let shape = |name: &&str| Shape { name: (*name).to_owned(), shape: vec![24, 16], stored: Stored::F32 };
        let shapes: Vec<Shape> = NAMES.iter().map(shape).collect();
        let (base, tasks) = values(&shapes, 2, &mut Random(7));
        let top = tempfile::tempdir().expect("a folder");
        write_model(top.path(), "base", &shapes, &base, 1);
        for (name, values) in ["a", "b"].iter().zip(&tasks) {
            write_model(top.path(), name, &shapes, values, 1);
        }
        Models { top, base, tasks }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.top.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    fn output(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tvb"))
            .arg("merge")
            .args(words)
            .current_dir(self.top.path())
            .env("TVB_DEVICE", "cpu")
            .env("HF_HUB_CACHE", self.top.path().join("hub"))
            .env_remove("TVB_LOG")
            .output()
            .expect("tvb runs")
    }

    /// Runs `tvb merge --json`, which must succeed; answers what it says.
    #[track_caller]
    fn merge(&self, words: &[&str]) -> Value {
        let output = self.output(&[words, &["--json"]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one object")
    }

    /// The values of a merged file by tensor.
    fn read(&self, name: &str) -> BTreeMap<String, Vec<f32>> {
        let bytes = std::fs::read(self.top.path().join(name)).expect("a file");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let floats = |data: &[u8]| data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        file.tensors().into_iter().map(|(name, view)| (name, floats(view.data()))).collect()
    }

    /// θ0 + Σ w·τ for each tensor, with these weights of a and b.
    fn expected(&self, weights: [[f32; 2]; 4]) -> BTreeMap<String, Vec<f32>> {
        let tensor = |(index, name): (usize, &&str)| {
            let tasks = self.tasks.iter().zip(weights[index]);
            let mut sum = self.base[index].clone();
            for (values, weight) in tasks {
                let deltas = values[index].iter().zip(&self.base[index]).map(|(value, base)| value - base);
                sum.iter_mut().zip(deltas).for_each(|(sum, delta)| *sum += weight * delta);
            }
            ((*name).to_owned(), sum)
        };
        NAMES.iter().enumerate().map(tensor).collect()
    }
}

#[track_caller]
fn assert_near(found: &BTreeMap<String, Vec<f32>>, expected: &BTreeMap<String, Vec<f32>>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, values) in expected {
        let far = values.iter().zip(&found[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 1e-6, "{name}: {far}");
    }
}

const RECIPE: &str = "\
merge_method: task_arithmetic
base_model: ../base.safetensors
models:
  - model: ../a.safetensors
    parameters: {weight: [0.25, 0.75]}
  - model: ../b.safetensors
    parameters: {weight: [{filter: norm, value: 2}, {value: '5e-1'}]}
parameters: {lambda: 2, int8_mask: true}
tokenizer_source: base
";

#[test]
fn a_recipe_is_merged_and_its_card_repeats_it() {
    let models = Models::new();
    models.write("recipes/r.yml", RECIPE);
    models.merge(&["recipes/r.yml", "-o", "out", "--allow-outside"]);
    let expected = models.expected([[0.5, 1.0], [0.5, 1.0], [1.5, 1.0], [0.5, 4.0]]);
    assert_near(&models.read("out/model.safetensors"), &expected);
    let again = models.merge(&["--recipe-from", "out/README.md", "-o", "again"]);
    assert_eq!((&again["like"], &again["tasks"]), (&"mergekit".into(), &serde_json::json!(["a", "b"])));
    let files = contents(models.top.path());
    let file = |name: &str| &files[Path::new(name)];
    assert_eq!(file("out/model.safetensors"), file("again/model.safetensors"));
    let recipe = |name: &str| {
        let card = String::from_utf8(file(name).clone()).expect("text");
        card.split_once("```yaml").and_then(|(_, rest)| rest.split_once("```")).expect("a recipe").0.to_owned()
    };
    assert_eq!(recipe("out/README.md"), recipe("again/README.md"));
}

#[test]
fn words_merge_as_a_recipe_does_and_random_methods_repeat_by_their_seed() {
    let models = Models::new();
    let words = ["--method", "task-arithmetic", "--base", "base.safetensors", "x=a.safetensors", "b.safetensors"];
    models.merge(
        &[&words[..], &["--weight", "0.5", "--weight", "x=0,1", "--lambda", "-1", "-o", "w.safetensors"]].concat(),
    );
    assert_near(&models.read("w.safetensors"), &models.expected([[0.0, -0.5], [0.0, -0.5], [-1.0, -0.5], [0.0, -0.5]]));
    let dare = |out: &str, more: &[&str]| {
        let words = [
            "--method",
            "dare_ties",
            "--density",
            "0.5",
            "--base",
            "base.safetensors",
            "a.safetensors",
            "b.safetensors",
            "-o",
            out,
        ];
        models.merge(&[&words[..], more].concat());
        std::fs::read(models.top.path().join(out).join("model.safetensors")).expect("a file")
    };
    let first = dare("d1", &["--seed", "3"]);
    assert_ne!(first, dare("d2", &[]));
    models.merge(&["--recipe-from", "d1/README.md", "-o", "d3"]);
    assert_eq!(first, std::fs::read(models.top.path().join("d3/model.safetensors")).expect("a file"));
}

#[test]
fn models_without_a_base_and_tasks_of_a_basis() {
    let models = Models::new();
    models.merge(&["--method", "linear", "a.safetensors", "b.safetensors", "--weight", "a=3", "-o", "l.safetensors"]);
    assert_near(&models.read("l.safetensors"), &models.expected([[0.75, 0.25]; 4]));
    let compress = [
        "compress",
        "--base",
        "base.safetensors",
        "a.safetensors",
        "b.safetensors",
        "-m",
        "2",
        "--dtype",
        "f32",
        "-o",
        "basis",
        "-q",
    ];
    let made = Command::new(env!("CARGO_BIN_EXE_tvb")).args(compress).current_dir(models.top.path()).status();
    assert!(made.expect("tvb runs").success());
    let words = ["--method", "ties", "--density", "0.5", "--base", "base.safetensors"];
    models.merge(&[&words[..], &["a.safetensors", "b.safetensors", "-o", "plain.safetensors"]].concat());
    models.merge(&[&words[..], &["--basis", "basis", "-o", "based"]].concat());
    // Coefficients of a basis are f64, its atoms f32.
    let (plain, based) = (models.read("plain.safetensors"), models.read("based/model.safetensors"));
    let far = |name: &str| plain[name].iter().zip(&based[name]).filter(|(a, b)| (*a - *b).abs() > 1e-4).count();
    assert!(NAMES.iter().all(|name| far(name) <= 2), "{:?}", NAMES.map(far));
    let only = models.merge(&["--recipe-from", "based/README.md", "-o", "based2"]);
    assert_eq!(only["tasks"], serde_json::json!(["a", "b"]));
    assert_eq!(models.read("based/model.safetensors"), models.read("based2/model.safetensors"));
    models.write("r.yml", &RECIPE.replace("../", ""));
    models.merge(&["r.yml", "--basis", "basis", "-o", "recipe-of-basis"]);
    let expected = models.expected([[0.5, 1.0], [0.5, 1.0], [1.5, 1.0], [0.5, 4.0]]);
    let found = models.read("recipe-of-basis/model.safetensors");
    assert!(NAMES.iter().all(|name| found[*name].iter().zip(&expected[*name]).all(|(a, b)| (a - b).abs() < 1e-4)));
}

#[test]
fn a_dry_run_says_what_differs_between_tensors() {
    let models = Models::new();
    models.write("r.yml", &RECIPE.replace("../", ""));
    let said = models.merge(&["r.yml", "-o", "out", "--dry-run"]);
    let settings = said["settings"].as_array().expect("a list");
    let of = |tensor: &str| {
        settings.iter().find(|group| group["tensors"].as_array().unwrap().contains(&tensor.into())).unwrap()
    };
    assert_eq!(of("layers.1.mlp.w")["settings"]["weight"], serde_json::json!([0.75, 0.5]));
    assert_eq!(of("embed.w"), of("layers.0.mlp.w"));
    assert_eq!((said["n_merged"].as_u64(), said["written_bytes"].as_u64()), (Some(4), Some(4 * 24 * 16 * 4)));
    let text = String::from_utf8(models.output(&["r.yml", "-o", "out", "--dry-run"]).stdout).expect("text");
    assert!(
        text.contains("layers: 2 in `layers`") && text.contains("lambda 2") && text.contains("would write out"),
        "{text}"
    );
    assert!(!models.top.path().join("out").exists());
}

#[test]
fn what_does_not_fit_is_refused_in_one_line_and_nothing_is_written() {
    let models = Models::new();
    let simple = RECIPE.replace("../", "");
    let bomb = (0..9).fold("a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned(), |text, n| {
        text + &format!("a{}: &a{} [{}]\n", n + 1, n + 1, vec![format!("*a{n}"); 8].join(", "))
    });
    let recipes = [
        ("outside", RECIPE.to_owned(), 3, "one that leaves it found", "--allow-outside"),
        ("bomb", bomb, 3, "more than 50000 values", ""),
        ("method", simple.replace("task_arithmetic", "tiess"), 3, "unknown merge_method \"tiess\"", "ties"),
        ("parameter", simple.replace("lambda", "lamda"), 3, "unknown parameter \"lamda\"", "lambda"),
        ("density", simple.replace("task_arithmetic", "ties").replace("lambda: 2", "density: 1.5"), 3, "1.5 found", ""),
        ("missing", simple.replace("a.safe", "c.safe"), 3, "no model is there", "check the path"),
        ("hub", simple.replace("b.safetensors", "org/name"), 3, "no model is there", "hf download org/name"),
        (
            "tokens",
            simple.replace("tokenizer_source: base", "tokenizer_source: union"),
            3,
            "base expected, \"union\" found",
            "",
        ),
        ("slerp", simple.replace("task_arithmetic", "slerp"), 3, "exactly 1 model", ""),
        (
            "weight",
            simple.replace("    parameters: {weight: [0.25, 0.75]}\n", ""),
            3,
            "weight of `a` expected, none found",
            "",
        ),
        ("nothing", String::new(), 3, "an empty file", ""),
    ];
    let before_recipes = contents(models.top.path());
    for (name, text, code, message, hint) in recipes {
        let file = format!("{name}.yml");
        models.write(&file, &text);
        refused(&models, &[&file, "-o", "out"], code, message, hint);
        std::fs::remove_file(models.top.path().join(file)).expect("removed");
    }
    models.write("r.yml", &simple);
    let words: [(&[&str], i32, &str, &str); 16] = [
        (&["-o", "out"], 2, "one recipe expected, 0 words found", "--method"),
        (&["r.yml", "s.yml", "-o", "out"], 2, "one recipe expected, 2 words found", ""),
        (&["r.yml", "-o", "out", "--density", "0.5"], 2, "--density goes with --method", ""),
        (&["r.yml", "-o", "out", "--task", "a", "--basis", "x"], 2, "a recipe names its models", ""),
        (&["r.yml", "-o", "out", "--seed", "1"], 3, "a seed is for what is random", ""),
        (&["r.yml", "-o", "r.yml", "--overwrite"], 3, "the output is a folder", ""),
        (&["none.yml", "-o", "out"], 1, "none.yml", "check the path"),
        (&["--recipe-from", "r.yml", "-o", "out"], 3, "a model card with a recipe", ""),
        (&["--method", "tise", "a.safetensors", "-o", "out"], 2, "unknown merge method", ""),
        (&["--method", "ties", "--base", "base.safetensors", "-o", "out"], 2, "ties: 1 to", ""),
        (&["--method", "ties", "a.safetensors", "b.safetensors", "-o", "out"], 2, "ties: a base expected", "--base"),
        (
            &["--method", "ties", "--base", "base.safetensors", "a.safetensors", "--t", "1", "-o", "out"],
            2,
            "--t means nothing",
            "--density",
        ),
        (
            &["--method", "ties", "--base", "base.safetensors", "a.safetensors", "--density", "0", "-o", "out"],
            2,
            "density",
            "",
        ),
        (
            &["--method", "dare_linear", "--base", "base.safetensors", "a.safetensors", "-o", "out"],
            2,
            "density of `a` expected",
            "--density",
        ),
        (
            &["--method", "tall", "--base", "base.safetensors", "a.safetensors", "-o", "out"],
            2,
            "the task expected",
            "--for",
        ),
        (
            &["--method", "emr", "--for", "c", "--base", "base.safetensors", "a.safetensors", "-o", "out"],
            2,
            "none of the tasks",
            "tasks: a",
        ),
    ];
    for (words, code, message, hint) in words {
        refused(&models, words, code, message, hint);
    }
    std::fs::remove_file(models.top.path().join("r.yml")).expect("removed");
    assert_eq!(contents(models.top.path()), before_recipes);
}

#[track_caller]
fn refused(models: &Models, words: &[&str], code: i32, message: &str, hint: &str) {
    let output = models.output(words);
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {shown}");
    let error = shown.lines().find(|line| line.starts_with("error: ")).expect("an error");
    assert!(error.contains(message), "{message:?} expected in {shown}");
    assert!(shown.contains(hint), "{hint:?} expected in {shown}");
    assert!(!models.top.path().join("out").exists(), "{words:?}");
}

#[test]
fn factors_differ_between_tensors_and_are_repeated() {
    let models = Models::new();
    let words = ["--base", "base.safetensors", "a.safetensors", "b.safetensors"];
    let by_tensor = ["--lines", "0.5:1", "--weight-for", "norm=2", "--weight-for", "b:mlp=-1"];
    models.merge(&[&["--method", "task_arithmetic"], &words[..], &by_tensor, &["-o", "out"]].concat());
    let expected = models.expected([[0.5, 0.5], [0.5, -0.5], [1.5, -1.5], [1.0, 1.0]]);
    assert_near(&models.read("out/model.safetensors"), &expected);
    models.merge(&["--recipe-from", "out/README.md", "-o", "again"]);
    assert_eq!(models.read("again/model.safetensors"), models.read("out/model.safetensors"));
    // A factor of all does not cancel where the edit is divided by the weights.
    let halves = |out: &str, more: &[&str]| {
        let ties = ["--method", "ties", "--density", "1", "-o", out];
        models.merge(&[&ties, &words[..], more].concat());
        models.read(out)
    };
    let (whole, half) = (halves("w.safetensors", &[]), halves("h.safetensors", &["--weight-for", ".=0.5"]));
    for (name, base) in NAMES.iter().zip(&models.base) {
        let far = whole[*name].iter().zip(&half[*name]).zip(base).map(|((w, h), b)| ((w - b) / 2.0 - (h - b)).abs());
        assert!(far.fold(0.0, f32::max) < 1e-6, "{name}");
    }
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--method", "linear", "--lines", "0:1"], 2, "it takes no lambda"),
        (&["--method", "tsv_m", "--weight-for", "a:mlp=2"], 2, "it takes no weight"),
        (&["--method", "ties", "--lines", "x"], 2, "ALPHA:BETA"),
        (&["--method", "ties", "--weight-for", "mlp"], 2, "REGEX=W or TASK:REGEX=W"),
        (&["--method", "ties", "--weight-for", "nothing=2"], 3, "no tensor has a name that it finds"),
    ];
    std::fs::remove_dir_all(models.top.path().join("out")).expect("removed");
    for (more, code, message) in cases {
        refused(&models, &[more, &words[..], &["-o", "out"]].concat(), code, message, "");
    }
}

#[test]
fn other_tokenizers_are_told() {
    let models = Models::new();
    for (name, vocab) in [("base", "{}"), ("a", "{}"), ("b", "{\"x\": 1}")] {
        models.write(&format!("{name}/vocab.json"), vocab);
        let file = models.top.path().join(format!("{name}.safetensors"));
        std::fs::rename(file, models.top.path().join(name).join("model.safetensors")).expect("moved");
    }
    let said = models.merge(&["--method", "linear", "--base", "base", "a", "b", "-o", "out"]);
    let warnings = said["warnings"].as_array().expect("a list");
    assert!(
        matches!(&warnings[..], [one] if one.as_str().unwrap().contains("task `b`: its vocab.json is not the base's")),
        "{said}"
    );
}
