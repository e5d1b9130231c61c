//! The recipe inside a model card: a block of YAML with a mark, from which the merge is repeated.

use super::definition::Recipe;
use super::setting::Setting;
use super::yaml::MAX_BYTES;
use crate::checkpoint::{Budget, read_capped_or_pipe};
use crate::error::{Error, Result};
use crate::jobs::merge::method::Method;
use crate::jobs::merge::parameters::{Manner, is_of_mergekit, parameters_of};
use crate::shown::shown_path;
use std::path::Path;

/// What stands behind the fence.
const MARK: &str = "yaml tvb-recipe";
/// A card is longer than a recipe by its prose.
const CARD_BYTES_MAX: u64 = MAX_BYTES * 4;

impl Recipe {
    /// The recipe as a block of Markdown, with every default spelled out: it says the same whatever defaults become.
    pub fn in_card(&self) -> String {
        let mut whole = self.clone();
        for &parameter in parameters_of(self.method) {
            let is_said = self.parameters.iter().any(|(said, _)| *said == parameter);
            if let (false, Some(value)) = (is_said, parameter.default_of(self.method, self.manner)) {
                whole.parameters.push((parameter, Setting::of(value)));
            }
        }
        whole.own.trim = whole.own.trim.or(self.default_trim());
        // Every line of it begins with a key or a dash, so none ends the fence.
        format!("```{MARK}\n{}```\n", whole.to_yaml())
    }

    /// What a model card says of the merge: the method, whose meaning of it counts, and the recipe.
    pub fn in_words(&self) -> String {
        let (title, address) = paper_of(self.method);
        let manner = match (self.manner, is_of_mergekit(self.method)) {
            (Manner::Mergekit, true) => "as mergekit 0.1.5 does it",
            (Manner::Paper, true) => "as its paper has it, which is not what mergekit does everywhere",
            (_, false) => "as its paper has it",
        };
        let paper = match address {
            Some(address) => format!("*{title}*, [{address}](https://arxiv.org/abs/{address})"),
            None => title.to_owned(),
        };
        format!(
            "Merged by `{}` ({paper}), {manner}.\n\nThe recipe; `tvb merge --recipe-from README.md -o OUT` repeats it:\n\n{}",
            self.method,
            self.in_card()
        )
    }
}

/// Where a method was published: a title, and its address on arXiv where it has one.
pub const fn paper_of(method: Method) -> (&'static str, Option<&'static str>) {
    match method {
        Method::Linear => ("Model soups", Some("2203.05482")),
        Method::TaskArithmetic => ("Editing models with task arithmetic", Some("2212.04089")),
        Method::Slerp | Method::NuSlerp => ("Animating rotation with quaternion curves, SIGGRAPH 1985", None),
        Method::MultiSlerp => ("barycentric interpolation on a sphere", None),
        Method::Karcher => ("Karcher mean", Some("2603.04972")),
        Method::ModelStock => ("Model Stock", Some("2403.19522")),
        Method::MetaGpt => ("MetaGPT", Some("2406.11385")),
        Method::Ties | Method::SignConsensus | Method::Magnitude => ("TIES-Merging", Some("2306.01708")),
        Method::DareLinear | Method::DareTies => ("Language models are Super Mario", Some("2311.03099")),
        Method::Breadcrumbs | Method::BreadcrumbsTies => ("Model Breadcrumbs", Some("2312.06795")),
        Method::Della | Method::DellaLinear => ("DELLA-Merging", Some("2406.11617")),
        Method::Sce => ("FuseChat", Some("2408.07990")),
        Method::Consensus | Method::Tall => {
            ("Localizing task information for improved model merging", Some("2405.07813"))
        }
        Method::Emr => ("EMR-Merging", Some("2405.17461")),
        Method::TsvM => ("Task singular vectors", Some("2412.00081")),
        Method::IsoC | Method::IsoCts => ("No task left behind: isotropic model merging", Some("2502.04959")),
    }
}

/// The recipe that the model card at `path` holds.
///
/// # Errors
/// Failed: I/O. Rejected: no recipe in it or several, and as [`Recipe::parse`]. Interrupted.
pub fn of_card(path: &Path, budget: &Budget) -> Result<Recipe> {
    let bytes = read_capped_or_pipe(path, "a model card", CARD_BYTES_MAX, budget)?;
    let text = String::from_utf8(bytes)
        .map_err(|error| Error::rejected(format!("{}: not UTF-8: {error}", shown_path(path))))?;
    let recipe = block(&text).and_then(Recipe::parse);
    recipe.map_err(|error| error.context(shown_path(path)))
}

/// The text of the one block.
fn block(card: &str) -> Result<&str> {
    let start = format!("```{MARK}\n");
    let ends = |at: usize| at == 0 || card.get(..at).is_some_and(|before| before.ends_with('\n'));
    let blocks: Vec<usize> = card.match_indices(&start).map(|(at, _)| at).filter(|at| ends(*at)).collect();
    let one = match blocks[..] {
        [one] => one,
        [] => {
            return Err(Error::rejected("a model card with a recipe of `tvb merge` expected, none found in it")
                .hint("`tvb merge RECIPE.yml` reads a recipe alone"));
        }
        [..] => return Err(Error::rejected(format!("one recipe expected, {} found", blocks.len()))),
    };
    let rest = card.get(one + start.len()..).unwrap_or_default();
    let end = rest
        .match_indices("```")
        .map(|(at, _)| at)
        .find(|&at| at == 0 || rest.get(..at).is_some_and(|before| before.ends_with('\n')));
    end.and_then(|end| rest.get(..end)).ok_or_else(|| Error::rejected("the end of the recipe expected, none found"))
}
