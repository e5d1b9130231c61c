//! The mergers: their names, what they take, and where they were published.

use crate::error::{Error, Result};
use crate::nearest::nearest;
use std::fmt;

/// A merger. Names are mergekit's where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Weighted mean of models (Model soups, arXiv 2203.05482).
    Linear,
    /// Weighted sum of task vectors (arXiv 2212.04089).
    TaskArithmetic,
    /// Spherical interpolation between the base and one model (Shoemake 1985).
    Slerp,
    /// Spherical interpolation of two task vectors, or of two models.
    NuSlerp,
    /// Barycentric interpolation on a sphere, in the tangent space at the mean.
    MultiSlerp,
    /// The Karcher (Riemannian) mean of the models' directions (arXiv 2603.04972).
    Karcher,
    /// Between base and mean, by the angle between task vectors (Model Stock, arXiv 2403.19522).
    ModelStock,
    /// Closed-form scales: each task's share of the squared norms (MetaGPT, arXiv 2406.11385).
    MetaGpt,
    /// Trim, elect signs, merge the agreeing (TIES, arXiv 2306.01708).
    Ties,
    /// Drop at random and rescale, then the sum (DARE, arXiv 2311.03099).
    DareLinear,
    /// Drop at random and rescale, then signs as TIES.
    DareTies,
    /// Without the smallest and the largest values, then the sum (Model Breadcrumbs, arXiv 2312.06795).
    Breadcrumbs,
    /// The same, then signs as TIES.
    BreadcrumbsTies,
    /// Drop at random, small values more often, then signs as TIES (DELLA, arXiv 2406.11617).
    Della,
    /// The same, then the sum.
    DellaLinear,
    /// The largest values of each task, then the sum.
    Magnitude,
    /// All values, those of the elected sign (the middle step of TIES).
    SignConsensus,
    /// Select, calculate, erase (SCE, arXiv 2408.07990).
    Sce,
    /// What at least k tasks need, of the sum (Consensus TA, arXiv 2405.07813).
    Consensus,
    /// One task's part of the sum (TALL masks, arXiv 2405.07813).
    Tall,
    /// Elect, mask and rescale: the unified task vector, or one task's part of it (EMR-Merging, arXiv 2405.17461).
    Emr,
    /// Task singular vectors, decorrelated (TSV-M, arXiv 2412.00081).
    TsvM,
    /// One common subspace with a flat spectrum (Iso-C, arXiv 2502.04959).
    IsoC,
    /// Common and task-specific subspaces with a flat spectrum (Iso-CTS, arXiv 2502.04959).
    IsoCts,
}

/// What a merger needs to know before it can form an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A weighted sum of base and task vectors; the weights come from the tensor's Gram matrix, or from the user.
    Coefficients,
    /// Each element from the tasks' values there, thresholds and signs.
    Elements,
    /// Whole matrices of all tasks.
    Matrices,
}

impl Method {
    /// All of them, in the order in which help lists them.
    pub const ALL: [Method; 24] = [
        Method::Linear,
        Method::TaskArithmetic,
        Method::Slerp,
        Method::NuSlerp,
        Method::MultiSlerp,
        Method::Karcher,
        Method::ModelStock,
        Method::MetaGpt,
        Method::Ties,
        Method::DareLinear,
        Method::DareTies,
        Method::Breadcrumbs,
        Method::BreadcrumbsTies,
        Method::Della,
        Method::DellaLinear,
        Method::Magnitude,
        Method::SignConsensus,
        Method::Sce,
        Method::Consensus,
        Method::Tall,
        Method::Emr,
        Method::TsvM,
        Method::IsoC,
        Method::IsoCts,
    ];

    /// Its name in recipes and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Linear => "linear",
            Method::TaskArithmetic => "task_arithmetic",
            Method::Slerp => "slerp",
            Method::NuSlerp => "nuslerp",
            Method::MultiSlerp => "multislerp",
            Method::Karcher => "karcher",
            Method::ModelStock => "model_stock",
            Method::MetaGpt => "metagpt",
            Method::Ties => "ties",
            Method::DareLinear => "dare_linear",
            Method::DareTies => "dare_ties",
            Method::Breadcrumbs => "breadcrumbs",
            Method::BreadcrumbsTies => "breadcrumbs_ties",
            Method::Della => "della",
            Method::DellaLinear => "della_linear",
            Method::Magnitude => "magnitude",
            Method::SignConsensus => "sign_consensus",
            Method::Sce => "sce",
            Method::Consensus => "consensus",
            Method::Tall => "tall",
            Method::Emr => "emr",
            Method::TsvM => "tsv_m",
            Method::IsoC => "iso_c",
            Method::IsoCts => "iso_cts",
        }
    }

    /// What it needs to know.
    pub const fn family(self) -> Family {
        match self {
            Method::Linear
            | Method::TaskArithmetic
            | Method::Slerp
            | Method::NuSlerp
            | Method::MultiSlerp
            | Method::Karcher
            | Method::ModelStock
            | Method::MetaGpt => Family::Coefficients,
            Method::TsvM | Method::IsoC | Method::IsoCts => Family::Matrices,
            _ => Family::Elements,
        }
    }

    /// The method of a name; hyphens are as good as underscores.
    ///
    /// # Errors
    /// Usage: none has it; the nearest is named.
    pub fn of_name(name: &str) -> Result<Method> {
        let plain = name.replace('-', "_").to_lowercase();
        let found = Method::ALL.into_iter().find(|method| method.name() == plain);
        found.ok_or_else(|| {
            let names = Method::ALL.map(Method::name);
            let error = Error::usage(format!("unknown merge method {name:?}"));
            match nearest(&plain, names) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => error.hint(format!("one of: {}", names.join(", "))),
            }
        })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
