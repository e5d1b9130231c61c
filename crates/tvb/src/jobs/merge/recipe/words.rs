//! A recipe from the words of a command line.

use super::definition::{BaseRole, Model, Own, Recipe, Slice};
use super::reference::Reference;
use super::setting::{Setting, Settings, cut};
use crate::error::Result;
use crate::jobs::merge::method::Method;
use crate::jobs::merge::parameters::{Manner, Parameter, Wrong, parameters_of};
use crate::nearest::nearest;
use tvb_kernels::Dtype;

/// A merge as it was typed.
#[derive(Clone, Debug)]
pub struct Words {
    /// The merger.
    pub method: Method,
    /// Whose meaning counts.
    pub manner: Manner,
    /// The base; without one the first of the tasks stands for it, and whole models are merged.
    pub base: Option<String>,
    /// Names and paths of the tasks.
    pub tasks: Vec<(String, String)>,
    /// Parameters, in the order in which they were typed; later ones stand over earlier ones.
    pub parameters: Vec<Typed>,
    /// Type of the output's float tensors.
    pub dtype: Option<Dtype>,
    /// What mergekit knows nothing of.
    pub own: Own,
}

/// A parameter as it was typed: `VALUE`, or `TASK=VALUE` for one task's own; a gradient is values apart by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// Which one.
    pub parameter: Parameter,
    /// The word behind the flag.
    pub text: String,
}

impl Words {
    /// The recipe that they say.
    ///
    /// # Errors
    /// Usage: a parameter that the method does not take, a value out of range, an unknown task, and as [`Recipe::check`].
    pub fn recipe(self) -> Result<Recipe> {
        let recipe = self.read().map_err(Wrong::usage)?;
        recipe.check()?;
        Ok(recipe)
    }

    fn read(self) -> Result<Recipe, Wrong> {
        let Words { method, manner, base, tasks, parameters, dtype, own } = self;
        let mut models = tasks.into_iter();
        let (base, role, name_of_base) = match base {
            Some(base) => (base, BaseRole::Origin, None),
            None => {
                let (name, path) = models.next().ok_or_else(|| {
                    Wrong::new("a base or models expected, none found").hint("--base PATH, then the fine-tunes")
                })?;
                (path, BaseRole::First, Some(name))
            }
        };
        let tasks: Vec<Model> =
            models.map(|(name, path)| Model { name: Some(name), reference: Reference::new(path) }).collect();
        let mut slice = Slice { of_tasks: vec![Settings::new(); tasks.len()], ..Slice::default() };
        let mut shared = Settings::new();
        for Typed { parameter, text } in parameters {
            let known = parameters_of(method);
            if !known.contains(&parameter) {
                let names: Vec<String> = known.iter().map(|known| flag_of(*known)).collect();
                let wrong = Wrong::new(format!("{} means nothing to {method}", flag_of(parameter)));
                return Err(wrong.hint(format!("it takes: {}", names.join(", "))));
            }
            let (task, value) = match text.rsplit_once('=') {
                Some((task, value)) => (Some(task), value),
                None => (None, text.as_str()),
            };
            let setting = Setting::typed(value, parameter).map_err(|wrong| wrong.at(&flag_of(parameter)))?;
            let settings = match task {
                None => &mut shared,
                Some(_) if !parameter.is_of_tasks() => {
                    return Err(Wrong::new(format!(
                        "{}: one value for all tasks expected, one task's own found",
                        flag_of(parameter)
                    )));
                }
                Some(task) if name_of_base.as_deref() == Some(task) => &mut slice.of_base,
                Some(task) => {
                    let names: Vec<&str> = tasks.iter().filter_map(|model| model.name.as_deref()).collect();
                    let at = names.iter().position(|name| *name == task);
                    at.and_then(|at| slice.of_tasks.get_mut(at)).ok_or_else(|| {
                        let wrong = Wrong::new(format!("{}: unknown task {:?}", flag_of(parameter), cut(task)));
                        match nearest(task, names) {
                            Some(near) => wrong.hint(format!("did you mean {near:?}?")),
                            None => wrong,
                        }
                    })?
                }
            };
            settings.retain(|(other, _)| *other != parameter);
            settings.push((parameter, setting));
        }
        let (base, slices, notes) = (Reference::new(base), vec![slice], Vec::new());
        Ok(Recipe {
            method,
            manner,
            base,
            role,
            tasks,
            slices,
            parameters: shared,
            dtype: None,
            out_dtype: dtype,
            own,
            notes,
            is_file: false,
        })
    }
}

/// The flag of a parameter.
fn flag_of(parameter: Parameter) -> String {
    format!("--{}", parameter.name().replace('_', "-"))
}
