//! The flags of a merger's parameters, as typed.

use tvb::Error;
use tvb::jobs::merge::Parameter;
use tvb::jobs::merge::recipe::Typed;

/// One flag for each parameter; a value for some tasks is TASK=VALUE, and values apart by commas go through the layers.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Parameters of the method")]
pub(crate) struct ParameterArgs {
    /// Weight of every task, or of one; values apart by commas go from the first layer to the last
    #[arg(long, value_name = "[TASK=]X", allow_hyphen_values = true)]
    pub weight: Vec<String>,
    /// Share of each task's values that stay, in (0, 1]
    #[arg(long, value_name = "[TASK=]X")]
    pub density: Vec<String>,
    /// Share of each task's values that go as the largest (breadcrumbs)
    #[arg(long, value_name = "[TASK=]X")]
    pub gamma: Vec<String>,
    /// Half the range of the chances to stay (della)
    #[arg(long, value_name = "[TASK=]X")]
    pub epsilon: Vec<String>,
    /// Factor λ of the whole edit
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    pub lambda: Option<String>,
    /// Whether the edit is divided by the weights that took part
    #[arg(long, value_name = "BOOL")]
    pub normalize: Option<String>,
    /// Whether values that stay make up for those that go
    #[arg(long, value_name = "BOOL")]
    pub rescale: Option<String>,
    /// Where between the base (0) and the model (1) (slerp)
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    pub t: Option<String>,
    /// Whether weights are made to sum to 1 (multislerp)
    #[arg(long, value_name = "BOOL")]
    pub normalize_weights: Option<String>,
    /// An answer for each row of a matrix (model_stock)
    #[arg(long, value_name = "BOOL")]
    pub filter_wise: Option<String>,
    /// Without flattening: columns, not rows (nuslerp)
    #[arg(long, value_name = "BOOL")]
    pub nuslerp_row_wise: Option<String>,
    /// One answer for each tensor (nuslerp)
    #[arg(long, value_name = "BOOL")]
    pub nuslerp_flatten: Option<String>,
    /// Share of the elements with the largest variance that stay, in (0, 1] (sce)
    #[arg(long, value_name = "X")]
    pub select_topk: Option<String>,
    /// How many tasks must need an element (consensus)
    #[arg(long, value_name = "N")]
    pub k: Option<String>,
    /// λ of the masks (consensus, tall)
    #[arg(long, value_name = "X")]
    pub mask_lambda: Option<String>,
    /// Share of the spectrum that is common, in (0, 1] (iso_cts)
    #[arg(long, value_name = "X")]
    pub common: Option<String>,
    /// Iterations at most (karcher)
    #[arg(long, value_name = "N")]
    pub max_iter: Option<String>,
    /// Where iterations stop (karcher)
    #[arg(long, value_name = "X")]
    pub tol: Option<String>,
    /// Guard against division by nothing (multislerp)
    #[arg(long, value_name = "X")]
    pub eps: Option<String>,
}

impl ParameterArgs {
    /// What was typed.
    pub(crate) fn typed(&self) -> Vec<Typed> {
        let several = [
            (Parameter::Weight, &self.weight),
            (Parameter::Density, &self.density),
            (Parameter::Gamma, &self.gamma),
            (Parameter::Epsilon, &self.epsilon),
        ];
        let single = [
            (Parameter::Lambda, &self.lambda),
            (Parameter::Normalize, &self.normalize),
            (Parameter::Rescale, &self.rescale),
            (Parameter::T, &self.t),
            (Parameter::NormalizeWeights, &self.normalize_weights),
            (Parameter::FilterWise, &self.filter_wise),
            (Parameter::RowWise, &self.nuslerp_row_wise),
            (Parameter::Flatten, &self.nuslerp_flatten),
            (Parameter::SelectTopk, &self.select_topk),
            (Parameter::K, &self.k),
            (Parameter::MaskLambda, &self.mask_lambda),
            (Parameter::Common, &self.common),
            (Parameter::MaxIter, &self.max_iter),
            (Parameter::Tol, &self.tol),
            (Parameter::Eps, &self.eps),
        ];
        let several =
            several.into_iter().flat_map(|(parameter, texts)| texts.iter().map(move |text| (parameter, text)));
        let single = single.into_iter().filter_map(|(parameter, text)| Some((parameter, text.as_ref()?)));
        several.chain(single).map(|(parameter, text)| Typed { parameter, text: text.clone() }).collect()
    }

    /// Whether there is none, where a recipe says its own.
    pub(crate) fn check_none(&self) -> Result<(), Error> {
        match self.typed().first() {
            None => Ok(()),
            Some(typed) => Err(Error::usage(format!(
                "--{} goes with --method; a recipe says its own",
                typed.parameter.name().replace('_', "-")
            ))
            .hint("write it into the recipe")),
        }
    }
}
