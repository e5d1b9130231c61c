//! The parameters of mergers: which method takes which, what they may be, and what they are where nothing is said.

use super::method::Method;
use crate::error::Error;
use crate::nearest::nearest;
use std::fmt;

/// A parameter, under the name that recipes have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Parameter {
    /// Weight of a task.
    Weight,
    /// Share of a task's values that stay.
    Density,
    /// Share of a task's values that go as the largest.
    Gamma,
    /// Half the range of the chances to stay.
    Epsilon,
    /// Factor of the whole edit.
    Lambda,
    /// Whether the edit is divided by the weights that took part.
    Normalize,
    /// Whether values that stay make up for those that go.
    Rescale,
    /// Where between two models.
    T,
    /// Whether weights are made to sum to 1.
    NormalizeWeights,
    /// Whether each row has an answer of its own (Model Stock).
    FilterWise,
    /// Whether it is columns that have answers of their own (NuSLERP that does not flatten).
    RowWise,
    /// Whether a tensor has one answer (NuSLERP).
    Flatten,
    /// Share of the elements with the largest variance.
    SelectTopk,
    /// How many tasks must need an element.
    K,
    /// λ of the TALL masks.
    MaskLambda,
    /// Share of the spectrum that is common.
    Common,
    /// Iterations at most.
    MaxIter,
    /// Where iterations stop.
    Tol,
    /// Guard against division by nothing.
    Eps,
    /// How mergekit stores masks; it means nothing here.
    Int8Mask,
}

/// What a parameter's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A finite number.
    Number,
    /// A whole number.
    Count,
    /// Yes (1) or no (0).
    Flag,
}

/// Whose meaning a merge has where the two differ: defaults, rescaling, and what thresholds are asked over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// The papers'.
    #[default]
    Paper,
    /// mergekit's.
    Mergekit,
}

/// What is wrong with what the user wrote; whoever knows where it stood makes an error of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    message: String,
    hint: Option<String>,
}

impl Parameter {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Parameter; 20] = [
        Parameter::Weight,
        Parameter::Density,
        Parameter::Gamma,
        Parameter::Epsilon,
        Parameter::Lambda,
        Parameter::Normalize,
        Parameter::Rescale,
        Parameter::T,
        Parameter::NormalizeWeights,
        Parameter::FilterWise,
        Parameter::RowWise,
        Parameter::Flatten,
        Parameter::SelectTopk,
        Parameter::K,
        Parameter::MaskLambda,
        Parameter::Common,
        Parameter::MaxIter,
        Parameter::Tol,
        Parameter::Eps,
        Parameter::Int8Mask,
    ];

    /// Its name in recipes.
    pub const fn name(self) -> &'static str {
        match self {
            Parameter::Weight => "weight",
            Parameter::Density => "density",
            Parameter::Gamma => "gamma",
            Parameter::Epsilon => "epsilon",
            Parameter::Lambda => "lambda",
            Parameter::Normalize => "normalize",
            Parameter::Rescale => "rescale",
            Parameter::T => "t",
            Parameter::NormalizeWeights => "normalize_weights",
            Parameter::FilterWise => "filter_wise",
            Parameter::RowWise => "nuslerp_row_wise",
            Parameter::Flatten => "nuslerp_flatten",
            Parameter::SelectTopk => "select_topk",
            Parameter::K => "k",
            Parameter::MaskLambda => "mask_lambda",
            Parameter::Common => "common",
            Parameter::MaxIter => "max_iter",
            Parameter::Tol => "tol",
            Parameter::Eps => "eps",
            Parameter::Int8Mask => "int8_mask",
        }
    }

    /// The parameter of a name.
    ///
    /// # Errors
    /// None has it; the nearest is named.
    pub fn of_name(name: &str) -> Result<Parameter, Wrong> {
        let found = Parameter::ALL.into_iter().find(|parameter| parameter.name() == name);
        found.ok_or_else(|| unknown("parameter", name, Parameter::ALL.map(Parameter::name)))
    }

    /// What its values are.
    pub const fn kind(self) -> Kind {
        match self {
            Parameter::K | Parameter::MaxIter => Kind::Count,
            Parameter::Normalize
            | Parameter::Rescale
            | Parameter::NormalizeWeights
            | Parameter::FilterWise
            | Parameter::RowWise
            | Parameter::Flatten
            | Parameter::Int8Mask => Kind::Flag,
            _ => Kind::Number,
        }
    }

    /// Whether each task has its own.
    pub const fn is_of_tasks(self) -> bool {
        matches!(self, Parameter::Weight | Parameter::Density | Parameter::Gamma | Parameter::Epsilon)
    }

    /// Whether a value is one that it may have.
    ///
    /// # Errors
    /// It is not: expected and found.
    pub fn check(self, value: f64) -> Result<(), Wrong> {
        let is_share = value > 0.0 && value <= 1.0;
        let is_whole = value.fract() == 0.0;
        let (is_right, expected) = match self {
            Parameter::Weight | Parameter::Lambda | Parameter::T => (value.is_finite(), "a finite number"),
            Parameter::Density | Parameter::SelectTopk | Parameter::Common => {
                (is_share, "a share above 0 and at most 1")
            }
            Parameter::Gamma => ((0.0..1.0).contains(&value), "a share from 0 and below 1"),
            Parameter::Epsilon => ((0.0..0.5).contains(&value), "a number from 0 and below 0.5"),
            Parameter::K => {
                (is_whole && (1.0..=f64::from(u32::MAX)).contains(&value), "a whole number of tasks from 1 on")
            }
            Parameter::MaxIter => {
                (is_whole && (1.0..=N_ITERATIONS_MAX).contains(&value), "a whole number from 1 to 100000")
            }
            Parameter::MaskLambda | Parameter::Tol | Parameter::Eps => {
                (value > 0.0 && value.is_finite(), "a positive number")
            }
            Parameter::Normalize
            | Parameter::Rescale
            | Parameter::NormalizeWeights
            | Parameter::FilterWise
            | Parameter::RowWise
            | Parameter::Flatten
            | Parameter::Int8Mask => (value == 0.0 || value == 1.0, "true or false"),
        };
        if is_right { Ok(()) } else { Err(Wrong::new(format!("{self}: {expected} expected, {value} found"))) }
    }

    /// What it is where nothing is said; `None` where it must be said.
    pub fn default_of(self, method: Method, manner: Manner) -> Option<f64> {
        let is_paper = manner == Manner::Paper;
        match self {
            Parameter::Weight => (is_paper || !is_of_mergekit(method)).then_some(1.0),
            Parameter::Density => match (method, manner) {
                (Method::Ties, Manner::Paper) => Some(0.2),
                // Their papers choose it on validation data.
                (_, Manner::Paper) | (Method::Magnitude, _) => None,
                (_, Manner::Mergekit) => Some(1.0),
            },
            Parameter::Gamma => Some(0.01),
            Parameter::Epsilon => Some(0.15),
            Parameter::Lambda | Parameter::SelectTopk | Parameter::NormalizeWeights | Parameter::Flatten => Some(1.0),
            Parameter::Normalize => Some(f64::from(match method {
                Method::Linear | Method::Ties | Method::Della | Method::SignConsensus => true,
                // Signs as TIES: its mean of those that agree.
                Method::DareTies | Method::BreadcrumbsTies => is_paper,
                _ => false,
            })),
            Parameter::Rescale => Some(f64::from(drops_at_random(method))),
            Parameter::T => is_paper.then_some(0.5),
            Parameter::FilterWise | Parameter::RowWise | Parameter::Int8Mask => Some(0.0),
            Parameter::K => Some(2.0),
            Parameter::MaskLambda => Some(0.4),
            Parameter::Common => Some(0.8),
            Parameter::MaxIter => Some(10.0),
            Parameter::Tol => Some(1e-5),
            Parameter::Eps => Some(1e-8),
        }
    }

    /// A value in the words of a recipe.
    pub fn shown(self, value: f64) -> String {
        match self.kind() {
            Kind::Flag => (value != 0.0).to_string(),
            Kind::Count | Kind::Number => value.to_string(),
        }
    }
}

/// More iterations than that are no wish to stop.
const N_ITERATIONS_MAX: f64 = 100_000.0;

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The parameters that a method takes.
pub const fn parameters_of(method: Method) -> &'static [Parameter] {
    use Parameter::{
        Common, Density, Eps, Epsilon, FilterWise, Flatten, Gamma, K, Lambda, MaskLambda, MaxIter, Normalize,
        NormalizeWeights, Rescale, RowWise, SelectTopk, T, Tol, Weight,
    };
    match method {
        Method::Linear => &[Weight, Normalize],
        Method::TaskArithmetic | Method::SignConsensus => &[Weight, Lambda, Normalize],
        Method::Slerp => &[T],
        Method::NuSlerp => &[Weight, RowWise, Flatten],
        Method::MultiSlerp => &[Weight, NormalizeWeights, Eps],
        Method::Karcher => &[MaxIter, Tol],
        Method::ModelStock => &[FilterWise],
        Method::Ties | Method::DareLinear | Method::DareTies | Method::Magnitude => {
            &[Weight, Density, Lambda, Normalize, Rescale]
        }
        Method::Breadcrumbs | Method::BreadcrumbsTies => &[Weight, Density, Gamma, Lambda, Normalize, Rescale],
        Method::Della | Method::DellaLinear => &[Weight, Density, Epsilon, Lambda, Normalize, Rescale],
        Method::Sce => &[SelectTopk],
        Method::Consensus => &[Weight, Lambda, K, MaskLambda],
        Method::Tall => &[Weight, Lambda, MaskLambda],
        Method::MetaGpt | Method::Emr | Method::TsvM | Method::IsoC => &[Lambda],
        Method::IsoCts => &[Lambda, Common],
    }
}

/// Whether values fall at random.
pub const fn drops_at_random(method: Method) -> bool {
    matches!(method, Method::DareLinear | Method::DareTies | Method::Della | Method::DellaLinear)
}

/// Whether mergekit has it.
pub const fn is_of_mergekit(method: Method) -> bool {
    !matches!(
        method,
        Method::MetaGpt
            | Method::Magnitude
            | Method::SignConsensus
            | Method::Consensus
            | Method::Tall
            | Method::Emr
            | Method::TsvM
            | Method::IsoC
            | Method::IsoCts
    )
}

impl Wrong {
    /// One line of what was expected and what was found.
    pub fn new(message: impl Into<String>) -> Wrong {
        Wrong { message: message.into(), hint: None }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Wrong {
        Wrong { hint: Some(hint.into()), ..self }
    }

    /// With where it was found.
    #[must_use]
    pub fn at(self, place: &str) -> Wrong {
        Wrong { message: format!("{place}: {}", self.message), ..self }
    }

    /// As an error of a file.
    pub fn rejected(self) -> Error {
        self.told(Error::rejected)
    }

    /// As an error of the command line.
    pub fn usage(self) -> Error {
        self.told(Error::usage)
    }

    fn told(self, error: fn(String) -> Error) -> Error {
        let error = error(self.message);
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// A name that is none of `known`: with the nearest, or with all.
pub(super) fn unknown<const N: usize>(what: &str, name: &str, known: [&str; N]) -> Wrong {
    let short: String = name.chars().take(60).collect();
    let wrong = Wrong::new(format!("unknown {what} {short:?}"));
    match nearest(name, known) {
        Some(near) => wrong.hint(format!("did you mean {near:?}?")),
        None => wrong.hint(format!("one of: {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_known() {
        for parameter in Parameter::ALL {
            assert_eq!(Parameter::of_name(parameter.name()), Ok(parameter));
        }
        let error = Parameter::of_name("densty").unwrap_err().usage();
        assert_eq!(
            (error.message(), error.hint_text()),
            ("unknown parameter \"densty\"", Some("did you mean \"density\"?"))
        );
    }

    #[test]
    fn every_default_is_in_range_and_every_parameter_has_a_method() {
        for parameter in Parameter::ALL {
            let takers: Vec<Method> =
                Method::ALL.into_iter().filter(|method| parameters_of(*method).contains(&parameter)).collect();
            assert_eq!(takers.is_empty(), parameter == Parameter::Int8Mask, "{parameter}");
            for (method, manner) in
                takers.iter().flat_map(|method| [(*method, Manner::Paper), (*method, Manner::Mergekit)])
            {
                if let Some(value) = parameter.default_of(method, manner) {
                    assert_eq!(parameter.check(value), Ok(()), "{method}");
                }
            }
        }
    }

    #[test]
    fn values_out_of_range_are_told() {
        let cases = [
            (Parameter::Density, 0.0, "density: a share above 0 and at most 1 expected, 0 found"),
            (Parameter::Density, 1.5, "1.5 found"),
            (Parameter::Gamma, 1.0, "gamma: a share from 0 and below 1 expected, 1 found"),
            (Parameter::Epsilon, -0.1, "-0.1 found"),
            (Parameter::K, 1.5, "k: a whole number"),
            (Parameter::MaxIter, 0.0, "max_iter: a whole number from 1"),
            (Parameter::Weight, f64::NAN, "weight: a finite number expected, NaN found"),
            (Parameter::Tol, 0.0, "tol: a positive number"),
            (Parameter::Normalize, 0.5, "normalize: true or false"),
        ];
        for (parameter, value, message) in cases {
            let error = parameter.check(value).unwrap_err().usage();
            assert!(error.message().contains(message), "{error}");
        }
    }
}
