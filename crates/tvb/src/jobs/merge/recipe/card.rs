//! The recipe inside a model card: a block of YAML with a mark, from which the merge is repeated.

use super::recipe::Recipe;
use super::yaml::MAX_BYTES;
use crate::checkpoint::{Budget, read_capped_or_pipe};
use crate::error::{Error, Result};
use crate::shown::shown_path;
use std::path::Path;

/// What stands behind the fence.
const MARK: &str = "yaml tvb-recipe";
/// A card is longer than a recipe by its prose.
const CARD_BYTES_MAX: u64 = MAX_BYTES * 4;

impl Recipe {
    /// The recipe as a block of Markdown.
    pub fn in_card(&self) -> String {
        // Every line of it begins with a key or a dash, so none ends the fence.
        format!("```{MARK}\n{}```\n", self.to_yaml())
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
