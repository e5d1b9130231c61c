//! `--lora-out`: an edit of adapters as one adapter, at a rank or at a share of its energy.

use std::path::PathBuf;
use tvb::solve::Cut;

/// Where an edit goes as an adapter, and how much of it, as typed.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "As a LoRA adapter")]
pub(crate) struct LoraArgs {
    /// Write the edit as a LoRA adapter in PEFT's layout: a folder; exact at the rank it has where nothing else is said
    #[arg(long, value_name = "DIR", conflicts_with_all = ["output", "delta", "bits", "clip"])]
    pub lora_out: Option<PathBuf>,
    /// With --lora-out: the rank of every module, at most
    #[arg(long, value_name = "K", requires = "lora_out", conflicts_with_all = ["energy", "output"])]
    pub rank: Option<usize>,
    /// With --lora-out: the share of the edit's squared norm to keep, such as 0.99, over all modules together
    #[arg(long, value_name = "E", requires = "lora_out", conflicts_with = "output")]
    pub energy: Option<f64>,
}

impl LoraArgs {
    /// How much is kept.
    pub(crate) fn cut(&self) -> Cut {
        match (self.rank, self.energy) {
            (Some(rank), _) => Cut::Rank(rank),
            (None, Some(share)) => Cut::Energy(share),
            (None, None) => Cut::Lossless,
        }
    }
}
