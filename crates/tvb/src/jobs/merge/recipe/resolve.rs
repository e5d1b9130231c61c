//! From a recipe to the numbers of one tensor, with mergekit's precedence: a model's own, its slice's, everybody's, the default.

use super::definition::{BaseRole, Recipe, Slice};
use super::layers::Layers;
use super::setting::Settings;
use crate::error::Result;
use crate::jobs::merge::method::Method;
use crate::jobs::merge::parameters::{Manner, Parameter, Wrong, drops_at_random, parameters_of};
use crate::jobs::merge::settings::{Rescale, RowWise, TensorSettings};

/// What marks a tensor that stands before the layers.
const BEFORE_LAYERS: [&str; 4] = ["embed", "wte", "wpe", "patch"];

/// A recipe over the tensors of a model.
#[derive(Clone, Debug)]
pub struct ByTensor<'a> {
    recipe: &'a Recipe,
    layers: Layers,
}

/// Whose value is asked for.
#[derive(Clone, Copy)]
enum Whose {
    All,
    Base,
    Task(usize),
}

/// A tensor among the layers.
#[derive(Clone, Copy)]
struct Spot<'a> {
    tensor: &'a str,
    slice: &'a Slice,
    /// 0 for the slice's first layer and for tensors of no layer, 1 for its last.
    t: f64,
}

impl<'a> ByTensor<'a> {
    /// Over tensors of these names; with what their owner should know: filters that are about none of them.
    pub fn new(recipe: &'a Recipe, names: &[&str]) -> (ByTensor<'a>, Vec<String>) {
        let by_tensor = ByTensor { recipe, layers: Layers::of(names.iter().copied()) };
        let mut idle: Vec<String> = Vec::new();
        for (parameter, setting) in recipe.all_settings() {
            let super::setting::Setting::Filtered(list) = setting else { continue };
            for one in list.iter().filter(|one| !names.iter().any(|name| one.holds_for(name))) {
                let word = crate::shown::shown(one.filter.as_deref().unwrap_or("*"));
                let note = format!("{parameter}: no tensor's name holds {word}");
                if !idle.contains(&note) {
                    idle.push(note);
                }
            }
        }
        (by_tensor, idle)
    }

    /// The numbers of one tensor.
    ///
    /// # Errors
    /// As [`Recipe::settings`].
    pub fn settings(&self, tensor: &str) -> Result<TensorSettings> {
        self.recipe.settings(tensor, self.layers.place(tensor))
    }

    /// The stacks of layers that the names tell.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }
}

impl Recipe {
    /// The numbers of the tensor `tensor`, which is in layer `layer.0` of `layer.1`, or in none.
    ///
    /// # Errors
    /// Rejected for a file, usage for a command line: a parameter that must be said and is not; ones that do not fit together; a
    /// layer that the recipe's slices do not have.
    pub fn settings(&self, tensor: &str, layer: Option<(usize, usize)>) -> Result<TensorSettings> {
        let spot = self.spot(tensor, layer).map_err(|wrong| self.error(wrong))?;
        self.resolve(spot).map_err(|wrong| self.error(wrong))
    }

    fn resolve(&self, spot: Spot<'_>) -> Result<TensorSettings, Wrong> {
        let method = self.method;
        let n_tasks = self.tasks.len();
        let mut settings = TensorSettings::new(n_tasks);
        let of_tasks = |parameter: Parameter| -> Result<Vec<f64>, Wrong> {
            (0..n_tasks).map(|task| self.value(parameter, spot, Whose::Task(task))).collect()
        };
        for &parameter in parameters_of(method) {
            if parameter.is_of_tasks() {
                let values = of_tasks(parameter)?;
                match parameter {
                    Parameter::Weight => settings.weight = values,
                    Parameter::Density => settings.density = values,
                    Parameter::Gamma => settings.gamma = values,
                    _ => settings.epsilon = values,
                }
                continue;
            }
            let value = self.value(parameter, spot, Whose::All)?;
            let is_on = value != 0.0;
            match parameter {
                Parameter::Lambda => settings.lambda = value,
                Parameter::Normalize | Parameter::NormalizeWeights => settings.normalize = is_on,
                Parameter::Rescale => settings.rescale = self.rescale(is_on),
                Parameter::T => settings.t = value,
                Parameter::FilterWise if is_on => settings.rows = RowWise::Rows,
                Parameter::Flatten if !is_on => {
                    let is_by_column = self.value(Parameter::RowWise, spot, Whose::All)? != 0.0;
                    settings.rows = if is_by_column { RowWise::Columns } else { RowWise::Rows };
                }
                Parameter::SelectTopk => settings.select_topk = value,
                // Checked when they were read.
                Parameter::K => settings.k = value as usize,
                Parameter::MaxIter => settings.max_iter = value as usize,
                Parameter::MaskLambda => settings.mask_lambda = value,
                Parameter::Common => settings.common = value,
                Parameter::Tol => settings.tol = value,
                Parameter::Eps => settings.eps = value,
                _ => {}
            }
        }
        let has_weight = parameters_of(method).contains(&Parameter::Weight);
        if has_weight && self.with_base() {
            settings.base_weight = self.value(Parameter::Weight, spot, Whose::Base)?;
        }
        if self.of_models() {
            let weight = std::mem::take(&mut settings.weight);
            let first = self.value(Parameter::Weight, spot, Whose::Base)?;
            let weight = std::iter::once(first).chain(weight).collect();
            settings = TensorSettings {
                weight,
                normalize: settings.normalize,
                rows: settings.rows,
                eps: settings.eps,
                ..TensorSettings::new(n_tasks + 1)
            };
        }
        settings.over = self.own.trim.or(self.default_trim()).unwrap_or_default();
        self.fits(&settings, spot)?;
        Ok(settings)
    }

    /// Whether the numbers of one tensor fit together.
    fn fits(&self, settings: &TensorSettings, spot: Spot<'_>) -> Result<(), Wrong> {
        if parameters_of(self.method).contains(&Parameter::Epsilon) {
            for ((density, epsilon), task) in settings.density.iter().zip(&settings.epsilon).zip(0..) {
                let is_inside = density - epsilon > 0.0 && density + epsilon < 1.0;
                if *density < 1.0 && !is_inside {
                    return Err(Wrong::new(format!(
                        "{}: epsilon: density ± epsilon between 0 and 1 expected, {density} ± {epsilon} found",
                        self.shown_task(task)
                    ))
                    .at(&crate::shown::shown(spot.tensor)));
                }
            }
        }
        if self.method == Method::Consensus && settings.k > self.tasks.len() {
            return Err(Wrong::new(format!("k: 1 to {} tasks expected, {} found", self.tasks.len(), settings.k)));
        }
        Ok(())
    }

    /// How values that stay make up for those that go.
    fn rescale(&self, is_on: bool) -> Rescale {
        match (is_on, self.manner) {
            (false, _) => Rescale::No,
            (true, Manner::Paper) if drops_at_random(self.method) => Rescale::Chance,
            (true, _) => Rescale::L1,
        }
    }

    fn spot<'a>(&'a self, tensor: &'a str, layer: Option<(usize, usize)>) -> Result<Spot<'a>, Wrong> {
        let none = || Wrong::new("at least one slice expected, none found");
        let (first, last) = self.slices.first().zip(self.slices.last()).ok_or_else(none)?;
        let Some((index, n_layers)) = layer else {
            let is_before = BEFORE_LAYERS.iter().any(|word| tensor.contains(word));
            return Ok(Spot { tensor, slice: if is_before { first } else { last }, t: 0.0 });
        };
        let n_sliced: Option<usize> = self.slices.iter().map(|slice| slice.n_layers).sum();
        if let Some(n_sliced) = n_sliced.filter(|n_sliced| *n_sliced != n_layers) {
            return Err(Wrong::new(format!(
                "{}: slices of all {n_layers} layers expected, of {n_sliced} found",
                crate::shown::shown(tensor)
            ))
            .hint("slices may give runs of layers their own settings, and may leave none out"));
        }
        let mut start = 0;
        for slice in &self.slices {
            let n_here = slice.n_layers.unwrap_or(n_layers);
            if index < start + n_here {
                // As mergekit: a slice of one layer lies at the end.
                let t = if n_here > 1 { (index - start) as f64 / (n_here - 1) as f64 } else { 1.0 };
                return Ok(Spot { tensor, slice, t });
            }
            start += n_here;
        }
        Err(none())
    }

    /// One value, by precedence.
    fn value(&self, parameter: Parameter, spot: Spot<'_>, whose: Whose) -> Result<f64, Wrong> {
        let own: Option<&Settings> = match whose {
            Whose::All => None,
            Whose::Base => Some(&spot.slice.of_base),
            Whose::Task(task) => spot.slice.of_tasks.get(task),
        };
        let scopes = own.into_iter().chain([&spot.slice.parameters, &self.parameters]);
        let said = scopes.flatten().filter(|(of, _)| *of == parameter);
        let found = said.filter_map(|(_, setting)| setting.value(parameter, spot.tensor, spot.t)).next();
        found
            .or_else(|| parameter.default_of(self.method, self.manner))
            .ok_or_else(|| self.missing(parameter, spot, whose))
    }

    fn missing(&self, parameter: Parameter, spot: Spot<'_>, whose: Whose) -> Wrong {
        let whose_words = match whose {
            Whose::All => String::new(),
            Whose::Base => " of the base".to_owned(),
            Whose::Task(task) => format!(" of {}", self.shown_task(task)),
        };
        let wrong = Wrong::new(format!(
            "{}: {parameter}{whose_words} expected, none found for {}",
            self.method,
            crate::shown::shown(spot.tensor)
        ));
        match (whose, self.role, self.is_file) {
            (Whose::Base, BaseRole::Origin, _) => {
                wrong.hint("mergekit takes the base as one of the models: give all a weight, or the papers' manner")
            }
            (_, _, true) => wrong.hint(format!("parameters: {{{parameter}: …}}")),
            (_, _, false) => {
                wrong.hint(format!("--{} …; its paper chooses it by validation", parameter.name().replace('_', "-")))
            }
        }
    }

    fn shown_task(&self, task: usize) -> String {
        let model = self.tasks.get(task);
        let name = model.map(|model| model.name.clone().unwrap_or_else(|| model.reference.in_words()));
        crate::shown::shown(&name.unwrap_or_default())
    }
}
