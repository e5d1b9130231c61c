//! Recipes from end to end: what is read, what it becomes for a tensor, what is refused, and that it is written as it was read.

use super::*;
use crate::jobs::merge::{Manner, Method, Over, Parameter, Rescale, RowWise};
use crate::{Error, ErrorKind};
use tvb_kernels::Dtype;

const TIES: &str = "\
models:
  - model: base
  - model: one
    parameters:
      density: [1, 0.5]
      weight: 0.5
  - model: two
    parameters:
      density: 0.25
      weight:
        - filter: mlp
          value: 1e-1
        - value: [0, 1]
merge_method: ties
base_model: base
parameters: {normalize: true, int8_mask: true, lambda: '0.9'}
dtype: float16
";

const SLICES: &str = "\
slices:
  - sources:
      - {model: b, layer_range: [0, 2], parameters: {}}
      - {model: a, layer_range: [0, 2]}
    parameters: {t: [0, 1]}
  - sources:
      - {model: a, layer_range: [2, 5]}
      - {model: b, layer_range: [2, 5]}
  - sources:
      - {model: a, layer_range: [5, 6]}
      - {model: b, layer_range: [5, 6]}
    parameters: {t: [{filter: mlp, value: [0, 0.9]}, {value: 0.25}]}
merge_method: slerp
base_model: b
parameters: {t: 0.75}
tokenizer_source: base
";

fn parse(text: &str) -> Recipe {
    Recipe::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn refused(text: &str) -> Error {
    let error = Recipe::parse(text).expect_err(text);
    assert_eq!(error.kind(), ErrorKind::Rejected, "{text}");
    assert!(!error.message().contains('\n'), "{error}");
    error
}

/// A recipe of two models over a base, with more lines.
fn two(method: &str, more: &str) -> String {
    format!("merge_method: {method}\nbase_model: base\nmodels: [{{model: a}}, {{model: b}}]\n{more}\n")
}

#[test]
fn a_recipe_of_mergekit_becomes_the_numbers_of_a_tensor() {
    let recipe = parse(TIES);
    assert_eq!((recipe.method, recipe.manner, recipe.role), (Method::Ties, Manner::Mergekit, BaseRole::Listed));
    assert_eq!(
        (recipe.output_dtype(), recipe.task_names().unwrap()),
        (Some(Dtype::F16), vec!["one".into(), "two".into()])
    );
    let settings = recipe.settings("layers.1.mlp.w", Some((1, 3))).unwrap();
    assert_eq!((settings.density, settings.weight), (vec![0.75, 0.25], vec![0.5, 0.1]));
    assert_eq!(
        (settings.lambda, settings.normalize, settings.rescale, settings.over),
        (0.9, true, Rescale::No, Over::Tensor)
    );
    assert_eq!(settings.base_weight, 0.0);
    let settings = recipe.settings("layers.2.attn.w", Some((2, 3))).unwrap();
    assert_eq!((settings.density, settings.weight), (vec![0.5, 0.25], vec![0.5, 1.0]));
    let settings = recipe.settings("embed", None).unwrap();
    assert_eq!((settings.density, settings.weight), (vec![1.0, 0.25], vec![0.5, 0.0]));
    // A model of one layer has it at the end, as in mergekit.
    assert_eq!(recipe.settings("layers.0.attn.w", Some((0, 1))).unwrap().weight, [0.5, 1.0]);
}

#[test]
fn precedence_is_model_slice_everybody_default() {
    let text = two("della", "parameters: {weight: [{filter: x, value: 2}], density: 0.5, epsilon: 0.1}")
        .replace("{model: a}", "{model: a, parameters: {weight: [{filter: y, value: 3}], epsilon: 0.2}}");
    let recipe = parse(&text);
    let settings = recipe.settings("x.y", None).unwrap();
    assert_eq!((settings.weight, settings.epsilon), (vec![3.0, 2.0], vec![0.2, 0.1]));
    assert_eq!(recipe.settings("x", None).unwrap().weight, [2.0, 2.0]);
    // No filter is about it, and mergekit has no default.
    let error = recipe.settings("z", None).unwrap_err();
    assert!(error.message().contains("della: weight of `a` expected, none found for `z`"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Rejected);
    let mut like_paper = recipe.clone();
    like_paper.manner = Manner::Paper;
    let settings = like_paper.settings("z", None).unwrap();
    assert_eq!((settings.weight, settings.rescale, settings.normalize), (vec![1.0, 1.0], Rescale::Chance, true));
    assert_eq!(recipe.settings("x", None).unwrap().rescale, Rescale::L1);
}

#[test]
fn slices_are_settings_by_runs_of_layers() {
    let recipe = parse(SLICES);
    assert_eq!((recipe.role, recipe.tasks.len(), recipe.slices.len()), (BaseRole::Listed, 1, 3));
    let t = |tensor: &str, layer| recipe.settings(tensor, layer).unwrap().t;
    let place = |layer| Some((layer, 6));
    assert_eq!((t("l.0.mlp", place(0)), t("l.1.mlp", place(1)), t("l.3.mlp", place(3))), (0.0, 1.0, 0.75));
    assert_eq!((t("l.5.mlp", place(5)), t("l.5.attn", place(5))), (0.9, 0.25));
    // Before the layers the first slice's, behind them the last's, each at its start.
    assert_eq!((t("embed_tokens", None), t("lm_head", None), t("mlp_head", None)), (0.0, 0.25, 0.0));
    let error = recipe.settings("l.0.mlp", Some((0, 7))).unwrap_err();
    assert!(error.message().contains("slices of all 7 layers expected, of 6 found"), "{error}");
    assert!(recipe.notes.iter().any(|note| note.contains("embeddings")), "{:?}", recipe.notes);
}

#[test]
fn models_without_a_base_are_merged_whole() {
    let recipe = parse(
        "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n- {model: b, parameters: {weight: 3}}\ndtype: torch.bfloat16",
    );
    assert!(recipe.is_baseless() && recipe.with_base() && !recipe.of_models());
    assert_eq!((recipe.base.written.as_str(), recipe.tasks.len(), recipe.output_dtype()), ("a", 1, Some(Dtype::Bf16)));
    let settings = recipe.settings("w", None).unwrap();
    assert_eq!((settings.base_weight, settings.weight, settings.normalize), (1.0, vec![3.0], true));
    let recipe = parse(
        "merge_method: nuslerp\nmodels:\n- {model: a, parameters: {weight: 0.5}}\n- {model: b, parameters: {weight: 0.25}}\nparameters: {nuslerp_flatten: false, nuslerp_row_wise: true}",
    );
    let settings = recipe.settings("w", None).unwrap();
    assert!(recipe.of_models() && !recipe.with_base());
    assert_eq!((settings.weight, settings.rows, settings.density.len()), (vec![0.5, 0.25], RowWise::Columns, 2));
    // mergekit adds a base that is not listed to the models of `linear`, which then needs a weight.
    let base = two("linear", "parameters: {weight: 1}");
    assert_eq!(parse(&base).settings("w", None).unwrap().base_weight, 1.0);
    let own = "merge_method: linear\nbase_model: base\nmodels: [{model: a, parameters: {weight: 1}}]";
    assert!(parse(own).settings("w", None).unwrap_err().message().contains("weight of the base expected"));
    let karcher = parse(&two("karcher", "parameters: {max_iter: 25, tol: 1e-7}"));
    let settings = karcher.settings("w", None).unwrap();
    assert_eq!((karcher.with_base(), settings.max_iter, settings.tol), (true, 25, 1e-7));
    assert_eq!(
        parse(&two("model_stock", "parameters: {filter_wise: yes}")).settings("w", None).unwrap().rows,
        RowWise::Rows
    );
}

#[test]
fn what_means_nothing_is_noted() {
    let text = two(
        "ties",
        "parameters: {weight: 1, t: 0.5, gamma: 0.1, int8_mask: false}\ndtype: bfloat16\nout_dtype: float32",
    )
    .replace("{model: a}", "{model: a, parameters: {lambda: 0.5}}, {model: base, parameters: {weight: 9}}");
    let notes = parse(&text).notes.join("\n");
    for expected in [
        "parameters.t: means nothing to ties",
        "parameters.gamma: means",
        "models[0].parameters.lambda: is of all models",
        "models[1].parameters.weight: the base has no",
        "dtype: inputs are not rounded to bfloat16",
    ] {
        assert!(notes.contains(expected), "{expected:?} expected in {notes}");
    }
    assert!(!notes.contains("int8_mask"));
    let recipe = parse(&two("ties", "parameters: {weight: [{filter: mlpp, value: 2}, {value: 1}]}"));
    let (_, idle) = ByTensor::new(&recipe, &["l.0.mlp", "head"]);
    assert_eq!(idle, ["weight: no tensor's name holds `mlpp`"]);
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let weighted = |more: &str| two("ties", &format!("parameters: {{weight: 1}}\n{more}"));
    let cases: Vec<(String, &str, &str)> = vec![
        (two("tise", ""), "line 1: unknown merge_method \"tise\"", "\"ties\""),
        (two("passthrough", ""), "mergekit's passthrough is not done", "linear"),
        (two("arcee_fusion", ""), "mergekit's arcee_fusion is not done", ""),
        ("base_model: a\nmodels: []".into(), "merge_method expected", ""),
        (two("ties", "parameters: {densty: 1}"), "line 4: parameters: unknown parameter \"densty\"", "\"density\""),
        (two("ties", "parameters: {density: 0}"), "density: a share above 0 and at most 1 expected, 0 found", ""),
        (two("ties", "parameters: {density: [0.5, 1.01]}"), "1.01 found", ""),
        (two("ties", "parameters: {weight: heavy}"), "a number expected, \"heavy\" found", ""),
        (weighted("modules: {}"), "modules: merging the modules", ""),
        (weighted("chat_template: auto"), "chat_template", ""),
        (weighted("tokenizer_source: union"), "tokenizer_source: base expected, \"union\" found", "base"),
        (weighted("tokenizer_source: a"), "tokenizer_source: base expected", ""),
        (weighted("tokenizer: {source: union}"), "tokenizer.source: base expected", ""),
        (weighted("tokenizer: {source: base, tokens: {x: {}}}"), "tokenizer.tokens: tokens are not changed", ""),
        (weighted("experts: []"), "mixtures of experts", ""),
        (weighted("normalize: true"), "normalize is a parameter", "parameters:"),
        (weighted("base_modle: x"), "unknown key \"base_modle\"", "\"base_model\""),
        (weighted("dtype: float64"), "float32, bfloat16 or float16 expected, \"float64\" found", ""),
        (weighted("slices: []"), "models or slices expected", ""),
        (weighted("tvb: {sede: 1}"), "unknown key \"sede\"", "\"seed\""),
        (weighted("tvb: {seed: 1}"), "ties: a seed is for what is random", ""),
        (weighted("tvb: {for: a}"), "one task's own model", ""),
        (two("dare_ties", "tvb: {trim: model}"), "trim is for ties and magnitude", ""),
        (two("slerp", "parameters: {t: 0.5}"), "slerp: exactly 1 model beside the base expected, 2 found", ""),
        ("merge_method: nuslerp\nbase_model: b\nmodels: [{model: a}]".into(), "nuslerp: exactly 2 models", ""),
        ("merge_method: model_stock\nbase_model: b\nmodels: [{model: a}, {model: b}]".into(), "model_stock: 2 to", ""),
        (
            "merge_method: ties\nmodels: [{model: a}, {model: b}]".into(),
            "ties: a base expected, none found",
            "base_model",
        ),
        ("merge_method: linear\nmodels: [{model: a}]".into(), "linear: 2 to", ""),
        (
            "merge_method: ties\nbase_model: b\nmodels: [{model: a}, {model: a}]".into(),
            "the model \"a\" stands twice",
            "",
        ),
        ("merge_method: linear\nmodels: [{model: a}, {model: a}]".into(), "stands twice", ""),
        (
            "merge_method: ties\nbase_model: b\nmodels: [{model: c+a}]".into(),
            "an adapter over the base expected",
            "merge",
        ),
        ("merge_method: ties\nbase_model: b+a\nmodels: [{model: c}]".into(), "base_model: a model expected", ""),
        (
            "merge_method: ties\nbase_model: b\nmodels: {model: a}".into(),
            "models: a list of models expected, a map found",
            "",
        ),
        ("merge_method: ties\nbase_model: b\nmodels: [a]".into(), "models[0]: a map expected, \"a\" found", ""),
        (SLICES.replace("[2, 5]", "[1, 5]"), "slices[1]: layers from 2 on expected", "make another model"),
        (SLICES.replacen("[0, 2]", "[0, 3]", 1), "the same layers of all models expected", ""),
        (
            SLICES.replacen("{model: a, layer_range: [2, 5]}", "{model: c, layer_range: [2, 5]}", 1),
            "slices[1]: the models of the first slice expected",
            "",
        ),
        (SLICES.replace("[5, 6]", "[6, 5]"), "[FIRST, END] expected, [6, 5] found", ""),
        (SLICES.replacen("    parameters: {t: [0, 1]}", "    residual_weight: 0.5", 1), "residual_weight", ""),
        (weighted("tvb: {lines: 0.5}"), "tvb.lines: ALPHA:BETA expected", ""),
        (weighted("tvb: {weight_for: [x]}"), "REGEX=W or TASK:REGEX=W", ""),
        (two("tall", ""), "tall: the task expected that the model is for", "for"),
        (
            "merge_method: linear\nmodels: [{model: a}, {model: b}]\ntvb: {basis: c}".into(),
            "the base expected",
            "base_model",
        ),
        ("x".into(), "recipe: a map expected, \"x\" found", ""),
    ];
    for (text, message, hint) in cases {
        let error = refused(&text);
        assert!(error.message().contains(message), "{message:?} expected, {error} found for {text}");
        assert!(
            error.hint_text().unwrap_or_default().contains(hint),
            "{hint:?} expected, {:?} found",
            error.hint_text()
        );
    }
    let della = parse(&two("della", "parameters: {weight: 1, density: 0.9, epsilon: 0.2}"));
    let error = della.settings("w", None).unwrap_err();
    assert!(error.message().contains("density ± epsilon between 0 and 1 expected, 0.9 ± 0.2 found"), "{error}");
    let consensus = parse(&two("consensus", "parameters: {k: 3}"));
    assert!(consensus.settings("w", None).unwrap_err().message().contains("k: 1 to 2 tasks expected, 3 found"));
}

#[test]
fn a_recipe_is_written_as_it_was_read() {
    let own = two("magnitude", "parameters: {density: [0.1, {}]}".replace("[0.1, {}]", "[0.1, 1e-3]").as_str())
        + "tvb: {like: mergekit, trim: model, basis: ba sis, include: 'a\"\\b', exclude: \"\\u202e\", skip_mismatched: on, vocab: common, rename: ['s/a/b/'], key: k, clip: true, orthogonalise: true, weight_for: ['a=1', 'b:x\\.=-0.5'], lines: '0.25:1.5'}\n";
    let random = two("dare_ties", "tvb: {seed: 18446744073709551615}\nparameters: {weight: 1}");
    let emr = two("emr", "tvb: {for: b, like: paper}");
    let linear = "merge_method: linear\nmodels: [{model: 'x@v1', parameters: {weight: [1, 2]}}, {model: {model: {path: 'y+z@'}}, name: q}]\nparameters: {normalize: [yes, no], weight: 3}";
    let adapters = "merge_method: ties\nbase_model: b\nmodels: [{model: b+a, parameters: {weight: 1}}, {model: {model: b, lora: {path: 'p@q'}}, parameters: {weight: 1}}]";
    let base = TIES
        .replace("    parameters:\n      density: [1, 0.5]", "    name: 'n'\n    parameters:\n      density: [1, 0.5]");
    for text in [TIES, SLICES, &own, &random, &emr, linear, adapters, &base] {
        let mut recipe = parse(text);
        let again = parse(&recipe.to_yaml());
        recipe.notes.clear();
        let again = Recipe { notes: Vec::new(), ..again };
        assert_eq!(format!("{recipe:?}"), format!("{again:?}"), "{}", recipe.to_yaml());
        assert!(!recipe.to_yaml().contains('\u{202e}'));
    }
}

#[test]
fn cards_hold_their_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("README.md");
    let recipe = parse(TIES);
    let card = format!("---\ntags:\n- merge\n---\n\nText.\n\n{}\nMore ``` text\n```sh\nx\n```\n", recipe.in_card());
    std::fs::write(&path, &card).unwrap();
    let budget = crate::checkpoint::Budget::default();
    let again = of_card(&path, &budget).unwrap();
    for (tensor, layer) in [("embed", None), ("layers.1.mlp.w", Some((1, 3)))] {
        assert_eq!(again.settings(tensor, layer).unwrap(), recipe.settings(tensor, layer).unwrap());
    }
    assert_eq!(again.in_card(), recipe.in_card());
    assert!(recipe.in_card().contains("  rescale: false\n") && recipe.in_card().contains("  trim: tensor\n"));
    let cases = [
        ("no recipe\n".to_owned(), "none found in it"),
        (format!("{card}{}", recipe.in_card()), "one recipe expected, 2 found"),
        (format!("x {}", recipe.in_card()), "none found in it"),
        (recipe.in_card().trim_end_matches("```\n").to_owned(), "the end of the recipe"),
        (recipe.in_card().replace("ties", "tise"), "unknown merge_method"),
    ];
    for (text, message) in cases {
        std::fs::write(&path, text).unwrap();
        let error = of_card(&path, &budget).unwrap_err();
        assert!(error.message().contains(message) && error.message().contains("README.md"), "{error}");
    }
}

#[test]
fn words_say_the_same_as_a_file() {
    let words = |method, base: Option<&str>, parameters: &[(Parameter, &str)]| {
        let typed = |(parameter, text): &(Parameter, &str)| Typed { parameter: *parameter, text: (*text).to_owned() };
        Words {
            method,
            manner: Manner::Paper,
            base: base.map(str::to_owned),
            tasks: vec![("a".into(), "x/a.pt".into()), ("b".into(), "b".into())],
            parameters: parameters.iter().map(typed).collect(),
            dtype: Some(Dtype::Bf16),
            own: Own::default(),
        }
        .recipe()
    };
    let ties = words(
        Method::Ties,
        Some("base"),
        &[(Parameter::Weight, "1"), (Parameter::Weight, "a=0.5,1"), (Parameter::Weight, "2")],
    )
    .unwrap();
    let settings = ties.settings("l.0.w", Some((0, 2))).unwrap();
    assert_eq!((settings.weight, settings.density, settings.over), (vec![0.5, 2.0], vec![0.2, 0.2], Over::Model));
    assert_eq!((settings.normalize, settings.rescale, ties.output_dtype()), (true, Rescale::No, Some(Dtype::Bf16)));
    let again = parse(&ties.to_yaml());
    assert_eq!(
        (again.manner, again.settings("l.0.w", Some((0, 2))).unwrap()),
        (Manner::Paper, ties.settings("l.0.w", Some((0, 2))).unwrap())
    );
    let linear = words(Method::Linear, None, &[(Parameter::Weight, "a=3")]).unwrap();
    let settings = linear.settings("w", None).unwrap();
    assert_eq!((linear.is_baseless(), settings.base_weight, settings.weight), (true, 3.0, vec![1.0]));
    assert!(!words(Method::Linear, Some("base"), &[]).unwrap().with_base());
    let dare = words(Method::DareLinear, Some("base"), &[]).unwrap();
    let error = dare.settings("w", None).unwrap_err();
    assert!(
        error.message().contains("dare_linear: density of `a` expected")
            && error.hint_text().unwrap().contains("--density"),
        "{error}"
    );
    let cases: [(Method, &[(Parameter, &str)], &str, &str); 6] = [
        (Method::Ties, &[(Parameter::T, "0.5")], "--t means nothing to ties", "--weight, --density, --lambda"),
        (Method::Ties, &[(Parameter::Density, "1.5")], "--density: density: a share above 0", ""),
        (Method::Ties, &[(Parameter::Density, "c=1")], "--density: unknown task \"c\"", ""),
        (Method::Ties, &[(Parameter::Lambda, "a=1")], "one value for all tasks expected", ""),
        (Method::Sce, &[(Parameter::SelectTopk, "x")], "a number expected, \"x\" found", ""),
        (Method::Slerp, &[], "slerp: exactly 1 model", ""),
    ];
    for (method, parameters, message, hint) in cases {
        let error = words(method, Some("base"), parameters).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.message().contains(message), "{error}");
        assert!(error.hint_text().unwrap_or_default().contains(hint), "{:?}", error.hint_text());
    }
    assert!(words(Method::Ties, None, &[]).unwrap_err().message().contains("ties: a base expected"));
}

#[test]
fn models_are_found_beside_the_recipe_and_keep_their_places_in_the_card() {
    let top = tempfile::tempdir().unwrap();
    let folder = top.path().join("recipes");
    for name in ["base", "a", "runs/b=1"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    let hub = top.path().join("hub");
    std::fs::create_dir_all(hub.join("models--org--c/snapshots/r1")).unwrap();
    let places = Places { folder: folder.clone(), hub_cache: Some(hub.clone()), may_leave: false };
    let text = "merge_method: ties\nbase_model: base\nmodels: [{model: base+a}, {model: 'runs/b=1', name: n}, {model: org/c@r1}]";
    let found = parse(text).find(&places).unwrap();
    assert_eq!(found.base, folder.join("base"));
    let tasks: Vec<(String, std::path::PathBuf)> = found.tasks.into_iter().map(|task| (task.name, task.path)).collect();
    assert_eq!(
        tasks,
        [
            ("a".to_owned(), folder.join("a")),
            ("n".to_owned(), folder.join("runs/b=1")),
            ("c".to_owned(), hub.join("models--org--c/snapshots/r1")),
        ]
    );
    let again = parse(&found.recipe.to_yaml());
    let anywhere = Places { folder: "/".into(), may_leave: false, ..places.clone() };
    let again = again.find(&anywhere).unwrap();
    assert_eq!(again.tasks.into_iter().map(|task| (task.name, task.path)).collect::<Vec<_>>(), tasks);
    assert_eq!(again.recipe.to_yaml(), found.recipe.to_yaml());
    let leaving = parse(&text.replace("'runs/b=1'", "../hub"));
    assert!(leaving.find(&places).unwrap_err().message().contains("one that leaves it found"));
    assert_eq!(parse(text).only_for(&["a".into()]).unwrap(), None);
    let emr = parse("merge_method: emr\nbase_model: base\nmodels: [{model: abc}]\ntvb: {for: abd}");
    let error = emr.only_for(&emr.task_names().unwrap()).unwrap_err();
    assert_eq!(error.hint_text(), Some("did you mean \"abc\"?"));
}
