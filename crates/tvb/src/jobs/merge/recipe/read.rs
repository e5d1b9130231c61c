//! mergekit's YAML as a recipe. What cannot be done is refused by name, what means nothing is noted.

use super::definition::{BaseRole, Model, Own, Recipe, Slice};
use super::reference::Reference;
use super::setting::{Setting, Settings, cut};
use super::yaml::{MAX_BYTES, Node, number_of, parse};
use crate::checkpoint::{Budget, read_capped_or_pipe};
use crate::error::{Error, Result};
use crate::jobs::merge::method::Method;
use crate::jobs::merge::parameters::{Manner, Parameter, Wrong, is_of_mergekit, parameters_of, unknown};
use crate::jobs::merge::settings::Over;
use std::path::Path;
use tvb_kernels::Dtype;

/// The keys of a recipe.
const KEYS: [&str; 11] = [
    "merge_method",
    "base_model",
    "models",
    "slices",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "name",
    "tvb",
];
/// Keys of mergekit's that ask for what is not done here, and what that is.
const OTHER_KEYS: [(&str, &str); 8] = [
    ("modules", "merging the modules of a model apart is not done"),
    ("chat_template", "chat templates are not written; the base's stays"),
    ("experts", "mixtures of experts are not made"),
    ("gate_mode", "mixtures of experts are not made"),
    ("shared_experts", "mixtures of experts are not made"),
    ("experts_per_token", "mixtures of experts are not made"),
    ("genome", "evolutionary merging is not done; `tvb fit` searches for coefficients"),
    ("residual_weight", "residual weights of slices are not done"),
];
/// mergekit's methods that are not here.
const OTHER_METHODS: [&str; 6] = ["passthrough", "arcee_fusion", "nearswap", "ram", "ramplus_tl", "task_swapping"];
/// Layers that a slice may say.
const N_LAYERS_MAX: f64 = 1e6;

/// Whose parameters are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Base,
    Task,
}

/// A model as it stands in a list, with what it says of itself.
struct Listed<'a> {
    reference: Reference,
    name: Option<String>,
    parameters: Option<&'a Node>,
    place: String,
}

/// What is found while a recipe is read.
struct Reader {
    method: Method,
    notes: Vec<String>,
}

impl Recipe {
    /// Reads a recipe's file.
    ///
    /// # Errors
    /// Failed: I/O. Rejected: as [`parse`](Recipe::parse), with the file's name. Interrupted.
    pub fn open(path: &Path, budget: &Budget) -> Result<Recipe> {
        let bytes = read_capped_or_pipe(path, "a recipe", MAX_BYTES, budget)?;
        let name = crate::shown::shown_path(path);
        let text = String::from_utf8(bytes).map_err(|error| Error::rejected(format!("{name}: not UTF-8: {error}")))?;
        Recipe::parse(&text).map_err(|error| error.context(name))
    }

    /// Reads the text of a recipe.
    ///
    /// # Errors
    /// Rejected: no YAML or one that expands too far, an unknown method, key or parameter (with the nearest known one), a value out
    /// of range, what mergekit does and tvb does not.
    pub fn parse(text: &str) -> Result<Recipe> {
        let recipe = parse(text).and_then(|node| read(&node)).map_err(Wrong::rejected)?;
        recipe.check()?;
        Ok(recipe)
    }
}

fn read(top: &Node) -> Result<Recipe, Wrong> {
    check_keys(top, "recipe", &KEYS)?;
    let method = method(top)?;
    let mut reader = Reader { method, notes: Vec::new() };
    let named = get(top, "base_model")?.map(|node| Reference::read(node, "base_model")).transpose()?;
    if let Some(base) = named.as_ref().filter(|base| base.adapter.is_some()) {
        return Err(Wrong::new(format!(
            "base_model: a model expected, one with an adapter found: {}",
            cut(&base.in_words())
        )));
    }
    let parameters = reader.settings(get(top, "parameters")?, "parameters", Scope::All)?;
    let (base, role, tasks, slices) = match (get(top, "models")?, get(top, "slices")?) {
        (Some(models), None) => reader.models(models, named)?,
        (None, Some(slices)) => reader.slices(slices, named)?,
        (Some(_), Some(_)) => {
            return Err(top.wrong("recipe", "models or slices").hint("both are there: write one of them"));
        }
        (None, None) => return Err(Wrong::new("recipe: models or slices expected, none found")),
    };
    let dtype = dtype(top, "dtype")?;
    let out_dtype = self::dtype(top, "out_dtype")?;
    if let (Some(inner), Some(outer)) = (dtype, out_dtype)
        && inner != outer
    {
        reader.notes.push(format!(
            "dtype: inputs are not rounded to {} first, as mergekit does; everything is formed in float32 and rounded once, to {}",
            words_of(inner),
            words_of(outer)
        ));
    }
    check_tokenizer(top, &base)?;
    let (manner, own) = own(get(top, "tvb")?)?;
    let manner = manner.unwrap_or(if is_of_mergekit(method) { Manner::Mergekit } else { Manner::Paper });
    let Reader { notes, .. } = reader;
    Ok(Recipe { method, manner, base, role, tasks, slices, parameters, dtype, out_dtype, own, notes, is_file: true })
}

fn method(top: &Node) -> Result<Method, Wrong> {
    let node = get(top, "merge_method")?.ok_or_else(|| Wrong::new("recipe: merge_method expected, none found"))?;
    let name = node.word("merge_method", "a method's name")?;
    let names = Method::ALL.map(Method::name);
    if OTHER_METHODS.contains(&name) {
        return Err(Wrong::new(format!("line {}: merge_method: mergekit's {name} is not done", node.line))
            .hint(format!("one of: {}", names.join(", "))));
    }
    let found = Method::ALL.into_iter().find(|method| method.name() == name);
    found.ok_or_else(|| unknown("merge_method", name, names).at(&format!("line {}", node.line)))
}

impl Reader {
    /// The form `models: […]`.
    fn models(
        &mut self,
        node: &Node,
        base: Option<Reference>,
    ) -> Result<(Reference, BaseRole, Vec<Model>, Vec<Slice>), Wrong> {
        let mut listed = Vec::new();
        for (index, node) in node.list("models", "a list of models")?.iter().enumerate() {
            listed.push(self.listed(node, &format!("models[{index}]"), &["model", "parameters", "name"])?);
        }
        let (base, role) = base_of(base, &listed)?;
        let slice = self.slice(&listed, &base, role, None, Settings::new())?;
        let tasks = tasks_of(&listed, &base)?;
        Ok((base, role, tasks, vec![slice]))
    }

    /// The form `slices: […]`, where the layers keep their places.
    fn slices(
        &mut self,
        node: &Node,
        base: Option<Reference>,
    ) -> Result<(Reference, BaseRole, Vec<Model>, Vec<Slice>), Wrong> {
        let mut slices = Vec::new();
        let mut whole: Option<(Reference, BaseRole, Vec<Model>)> = None;
        let mut end = 0;
        for (index, node) in node.list("slices", "a list of slices")?.iter().enumerate() {
            let place = format!("slices[{index}]");
            check_keys(node, &place, &["sources", "base_model", "parameters"])?;
            let own_base = get(node, "base_model")?;
            let own_base = own_base.map(|node| Reference::read(node, &format!("{place}.base_model"))).transpose()?;
            if let (Some(own), Some(base)) = (&own_base, &base)
                && own != base
            {
                return Err(Wrong::new(format!(
                    "line {}: {place}.base_model: one base for all slices expected",
                    node.line
                )));
            }
            let sources = get(node, "sources")?
                .ok_or_else(|| Wrong::new(format!("line {}: {place}: sources expected, none found", node.line)))?;
            let mut listed = Vec::new();
            let mut range = None;
            for (index, node) in sources.list(&format!("{place}.sources"), "a list of sources")?.iter().enumerate() {
                let place = format!("{place}.sources[{index}]");
                listed.push(self.listed(node, &place, &["model", "layer_range", "parameters", "name"])?);
                let own = layer_range(node, &place)?;
                if range.is_some_and(|range| range != own) {
                    return Err(moved(node, &format!("{place}.layer_range: the same layers of all models")));
                }
                range = Some(own);
            }
            let (start, stop) =
                range.ok_or_else(|| sources.wrong(&format!("{place}.sources"), "at least one source"))?;
            if start != end {
                return Err(moved(node, &format!("{place}: layers from {end} on")));
            }
            end = stop;
            let (base, role) = base_of(own_base.or_else(|| base.clone()), &listed)?;
            let tasks = tasks_of(&listed, &base)?;
            let order: Vec<usize> = match &whole {
                None => (0..tasks.len()).collect(),
                Some((first, first_role, models)) => {
                    let find = |model: &Model| tasks.iter().position(|own| own.reference == model.reference);
                    let order: Option<Vec<usize>> = models.iter().map(find).collect();
                    order
                        .filter(|order| order.len() == tasks.len() && *first == base && *first_role == role)
                        .ok_or_else(|| moved(node, &format!("{place}: the models of the first slice")))?
                }
            };
            let parameters = self.settings(get(node, "parameters")?, &format!("{place}.parameters"), Scope::All)?;
            let mut slice = self.slice(&listed, &base, role, Some(stop - start), parameters)?;
            slice.of_tasks = order.iter().filter_map(|&at| slice.of_tasks.get(at).cloned()).collect();
            slices.push(slice);
            whole.get_or_insert((base, role, tasks));
        }
        let (base, role, tasks) = whole.ok_or_else(|| node.wrong("slices", "at least one slice"))?;
        let says_more =
            |slice: &Slice| !slice.parameters.is_empty() || slice.of_tasks.iter().any(|own| !own.is_empty());
        if slices.len() > 1 && slices.iter().any(says_more) {
            self.notes.push(
                "slices: tensors before the layers (embeddings) go with the first slice, all others of no layer with the last"
                    .to_owned(),
            );
        }
        Ok((base, role, tasks, slices))
    }

    fn listed<'a>(&self, node: &'a Node, place: &str, keys: &[&str]) -> Result<Listed<'a>, Wrong> {
        check_keys(node, place, keys)?;
        let model = get(node, "model")?
            .ok_or_else(|| Wrong::new(format!("line {}: {place}: a model expected, none found", node.line)))?;
        let reference = Reference::read(model, &format!("{place}.model"))?;
        let name = get(node, "name")?
            .map(|node| node.word(&format!("{place}.name"), "a name").map(str::to_owned))
            .transpose()?;
        Ok(Listed { reference, name, parameters: get(node, "parameters")?, place: place.to_owned() })
    }

    fn slice(
        &mut self,
        listed: &[Listed<'_>],
        base: &Reference,
        role: BaseRole,
        n_layers: Option<usize>,
        parameters: Settings,
    ) -> Result<Slice, Wrong> {
        let mut slice = Slice { n_layers, parameters, ..Slice::default() };
        for model in listed {
            let is_base = model.reference == *base;
            // Where it is one of the models, it has parameters as they do.
            let has_own = !is_base || role == BaseRole::First || self.method == Method::Linear;
            let scope = if has_own { Scope::Task } else { Scope::Base };
            let own = self.settings(model.parameters, &format!("{}.parameters", model.place), scope)?;
            if is_base { slice.of_base = own } else { slice.of_tasks.push(own) }
        }
        Ok(slice)
    }

    /// Parameters that mean something where they stand.
    fn settings(&mut self, node: Option<&Node>, place: &str, scope: Scope) -> Result<Settings, Wrong> {
        let mut settings = Settings::new();
        let Some(node) = node else { return Ok(settings) };
        for (key, node) in node.map(place, "a map of parameters")? {
            let parameter =
                Parameter::of_name(key).map_err(|wrong| wrong.at(&format!("line {}: {place}", node.line)))?;
            let setting = Setting::read(node, parameter, &format!("{place}.{key}"))?;
            let note = match () {
                () if parameter == Parameter::Int8Mask => continue,
                () if !parameters_of(self.method).contains(&parameter) => format!("means nothing to {}", self.method),
                () if scope == Scope::Base => "the base has no parameters of its own".to_owned(),
                () if scope == Scope::Task && !parameter.is_of_tasks() => {
                    "is of all models together and is not read here; mergekit does not read it either".to_owned()
                }
                () => {
                    settings.push((parameter, setting));
                    continue;
                }
            };
            self.notes.push(format!("line {}: {place}.{key}: {note}", node.line));
        }
        Ok(settings)
    }
}

/// The base, and what it is to the merge.
fn base_of(named: Option<Reference>, listed: &[Listed<'_>]) -> Result<(Reference, BaseRole), Wrong> {
    match (named, listed.first()) {
        (Some(base), _) => {
            let is_listed = listed.iter().any(|model| model.reference == base);
            Ok((base, if is_listed { BaseRole::Listed } else { BaseRole::Origin }))
        }
        (None, Some(first)) => Ok((first.reference.clone(), BaseRole::First)),
        (None, None) => Err(Wrong::new("models: at least one model expected, none found")),
    }
}

/// The models beside the base.
fn tasks_of(listed: &[Listed<'_>], base: &Reference) -> Result<Vec<Model>, Wrong> {
    let n_base = listed.iter().filter(|model| model.reference == *base).count();
    if n_base > 1 {
        return Err(Wrong::new(format!("the model {:?} stands twice", cut(&base.in_words()))));
    }
    let tasks = listed.iter().filter(|model| model.reference != *base);
    tasks
        .map(|model| match &model.reference.adapter {
            Some(_) if (Reference { adapter: None, ..model.reference.clone() }) != *base => Err(Wrong::new(format!(
                "{}: an adapter over the base expected, one over another model found: {}",
                model.place,
                cut(&model.reference.in_words())
            ))
            .hint("merge it into its model first, with `peft`'s merge_and_unload")),
            _ => Ok(Model { name: model.name.clone(), reference: model.reference.clone() }),
        })
        .collect()
}

fn moved(node: &Node, expected: &str) -> Wrong {
    Wrong::new(format!("line {}: {expected} expected, others found", node.line))
        .hint("layers that move, repeat or go make another model, which is not done; slices may give runs of layers their own settings")
}

fn layer_range(node: &Node, place: &str) -> Result<(usize, usize), Wrong> {
    let place = format!("{place}.layer_range");
    let range = get(node, "layer_range")?
        .ok_or_else(|| Wrong::new(format!("line {}: {place}: [FIRST, END] expected, nothing found", node.line)))?;
    let number = |node: &Node| -> Result<usize, Wrong> {
        let value = number_of(node.word(&place, "a layer's number")?);
        let value = value.filter(|value| value.fract() == 0.0 && (0.0..=N_LAYERS_MAX).contains(value));
        // Whole, and far below 2⁵³.
        value.map(|value| value as usize).ok_or_else(|| node.wrong(&place, "a layer's number"))
    };
    match range.list(&place, "[FIRST, END]")? {
        [first, end] => {
            let (first, end) = (number(first)?, number(end)?);
            if first < end {
                Ok((first, end))
            } else {
                Err(Wrong::new(format!("line {}: {place}: [FIRST, END] expected, [{first}, {end}] found", range.line)))
            }
        }
        _ => Err(range.wrong(&place, "[FIRST, END]")),
    }
}

/// The value of a key, where it is there.
fn get<'a>(node: &'a Node, key: &str) -> Result<Option<&'a Node>, Wrong> {
    Ok(node.map("recipe", "a map")?.find(|(known, _)| *known == key).map(|(_, node)| node))
}

/// Whether every key is one of `known`.
fn check_keys(node: &Node, place: &str, known: &[&str]) -> Result<(), Wrong> {
    for (key, value) in node.map(place, "a map")? {
        if known.contains(&key) {
            continue;
        }
        let at = format!("line {}: {place}", value.line);
        if let Some((_, why)) = OTHER_KEYS.iter().find(|(other, _)| *other == key) {
            return Err(Wrong::new(format!("{at}: {key}: {why}")));
        }
        if Parameter::of_name(key).is_ok() {
            return Err(Wrong::new(format!("{at}: {key} is a parameter")).hint(format!("parameters: {{{key}: …}}")));
        }
        let wrong = Wrong::new(format!("{at}: unknown key {:?}", cut(key)));
        return Err(match crate::nearest::nearest(key, known.iter().copied()) {
            Some(near) => wrong.hint(format!("did you mean {near:?}?")),
            None => wrong.hint(format!("known keys: {}", known.join(", "))),
        });
    }
    Ok(())
}

fn dtype(top: &Node, key: &str) -> Result<Option<Dtype>, Wrong> {
    let Some(node) = get(top, key)? else { return Ok(None) };
    let expected = "float32, bfloat16 or float16";
    let word = node.word(key, expected)?;
    match word.strip_prefix("torch.").unwrap_or(word) {
        "float32" | "f32" => Ok(Some(Dtype::F32)),
        "bfloat16" | "bf16" => Ok(Some(Dtype::Bf16)),
        "float16" | "f16" => Ok(Some(Dtype::F16)),
        _ => Err(node.wrong(key, expected)),
    }
}

/// A type as mergekit calls it.
pub(super) const fn words_of(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float32",
        Dtype::Bf16 => "bfloat16",
        Dtype::F16 => "float16",
        Dtype::F64 => "float64",
    }
}

/// The output has the base's tokenizer; any other wish is refused.
fn check_tokenizer(top: &Node, base: &Reference) -> Result<(), Wrong> {
    const HINT: &str = "the output has the base's tokenizer: tokenizer_source: base";
    let is_base = |node: &Node, place: &str| -> Result<(), Wrong> {
        let is_word = node.word(place, "base").is_ok_and(|word| word == "base");
        match is_word || Reference::read(node, place)? == *base {
            true => Ok(()),
            false => Err(node.wrong(place, "base").hint(HINT)),
        }
    };
    if let Some(node) = get(top, "tokenizer_source")? {
        is_base(node, "tokenizer_source")?;
    }
    let Some(node) = get(top, "tokenizer")? else { return Ok(()) };
    for (key, node) in node.map("tokenizer", "a map")? {
        match key {
            "source" => is_base(node, "tokenizer.source")?,
            other => {
                let wrong = format!("line {}: tokenizer.{}: tokens are not changed", node.line, cut(other));
                return Err(Wrong::new(wrong).hint(HINT));
            }
        }
    }
    // mergekit's own default is the union.
    match get(node, "source")? {
        Some(_) => Ok(()),
        None => Err(Wrong::new(format!("line {}: tokenizer.source: base expected, none found", node.line)).hint(HINT)),
    }
}

/// What stands under `tvb`.
fn own(node: Option<&Node>) -> Result<(Option<Manner>, Own), Wrong> {
    let (mut manner, mut own) = (None, Own::default());
    let Some(node) = node else { return Ok((None, own)) };
    const KEYS: [&str; 15] = [
        "like",
        "trim",
        "seed",
        "for",
        "orthogonalise",
        "basis",
        "include",
        "exclude",
        "skip_mismatched",
        "vocab",
        "rename",
        "key",
        "clip",
        "weight_for",
        "lines",
    ];
    check_keys(node, "tvb", &KEYS)?;
    for (key, node) in node.map("tvb", "a map")? {
        let place = format!("tvb.{key}");
        let text = || node.word(&place, "a text").map(str::to_owned);
        match key {
            "like" => {
                manner = Some(match node.word(&place, "paper or mergekit")? {
                    "paper" => Manner::Paper,
                    "mergekit" => Manner::Mergekit,
                    _ => return Err(node.wrong(&place, "paper or mergekit")),
                });
            }
            "trim" => {
                own.trim = Some(match node.word(&place, "tensor or model")? {
                    "tensor" => Over::Tensor,
                    "model" => Over::Model,
                    _ => return Err(node.wrong(&place, "tensor or model")),
                });
            }
            "seed" => {
                let expected = "a whole number from 0 on";
                own.seed = node.word(&place, expected)?.parse().map_err(|_| node.wrong(&place, expected))?;
            }
            "for" => own.only_for = Some(text()?),
            "orthogonalise" => own.orthogonalise = node.flag(&place)?,
            "basis" => own.basis = Some(text()?),
            "include" => own.include = Some(text()?),
            "exclude" => own.exclude = Some(text()?),
            "skip_mismatched" => own.skip_mismatched = node.flag(&place)?,
            "vocab" => {
                own.common_vocab = match node.word(&place, "whole or common")? {
                    "whole" => false,
                    "common" => true,
                    _ => return Err(node.wrong(&place, "whole or common")),
                };
            }
            "rename" => {
                for node in node.list(&place, "a list of rules")? {
                    own.rename.push(node.word(&place, "a rule")?.to_owned());
                }
            }
            "weight_for" => {
                for node in node.list(&place, "a list of rules")? {
                    own.weight_for.push(node.word(&place, "REGEX=W or TASK:REGEX=W")?.to_owned());
                }
            }
            "lines" => {
                let lines = node.word(&place, "ALPHA:BETA")?.parse();
                own.lines = Some(lines.map_err(|_: Error| node.wrong(&place, "ALPHA:BETA"))?);
            }
            "key" => own.key = Some(text()?),
            _ => own.clip = node.flag(&place)?,
        }
    }
    Ok((manner, own))
}
