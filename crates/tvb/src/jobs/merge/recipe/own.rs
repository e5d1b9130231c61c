//! What mergekit has no word for: the key `tvb` of a recipe.

use super::definition::Own;
use super::keys::check_keys;
use super::yaml::Node;
use crate::error::Error;
use crate::jobs::merge::parameters::{Manner, Wrong};
use crate::jobs::merge::settings::Over;

/// What stands under `tvb`.
pub(super) fn own(node: Option<&Node>) -> Result<(Option<Manner>, Own), Wrong> {
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
