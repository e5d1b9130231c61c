//! What a merger is told of one tensor: the numbers of a recipe or of the command line, resolved.

/// What "the largest values" is asked over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Over {
    /// Each tensor for itself, as mergekit does.
    #[default]
    Tensor,
    /// All tensors of a task together, as in the TIES paper.
    Model,
}

/// How values that stay make up for those that go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rescale {
    /// They do not.
    #[default]
    No,
    /// Each is divided by the chance that it stayed, as in DARE and DELLA.
    Chance,
    /// All of a tensor by one factor that keeps its L1 norm, as mergekit does.
    L1,
}

/// Numbers for one tensor: those of the tasks by their order, \[n_tasks\] each.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSettings {
    /// Weight of each task.
    pub weight: Vec<f64>,
    /// Share of values that stay, in (0, 1].
    pub density: Vec<f64>,
    /// Share of the largest values that go first (breadcrumbs).
    pub gamma: Vec<f64>,
    /// Half the range of the chances to stay (DELLA).
    pub epsilon: Vec<f64>,
    /// Factor of the whole edit.
    pub lambda: f64,
    /// Whether the edit is divided by the weights that took part (for multislerp: whether weights are made to sum to 1).
    pub normalize: bool,
    /// How values that stay make up for those that go.
    pub rescale: Rescale,
    /// What thresholds are asked over.
    pub over: Over,
    /// Weight of the base itself (linear; 0 where it is no input).
    pub base_weight: f64,
    /// Where between the two models (slerp): 0 is the base.
    pub t: f64,
    /// One answer for each row of a matrix (model_stock's filter_wise, nuslerp's row-wise forms).
    pub rows: RowWise,
    /// Share of the elements with the largest variance (SCE), in (0, 1].
    pub select_topk: f64,
    /// How many tasks must need an element (consensus).
    pub k: usize,
    /// λ of the TALL masks: how much of the multi-task vector's distance a task's own value must outweigh.
    pub mask_lambda: f64,
    /// Share of the spectrum that is common (Iso-CTS), in (0, 1].
    pub common: f64,
    /// Iterations (karcher), at most.
    pub max_iter: usize,
    /// Where iterations stop (karcher).
    pub tol: f64,
    /// Guard against division by nothing (multislerp).
    pub eps: f64,
}

/// What shares one answer in the spherical methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowWise {
    /// The whole tensor.
    #[default]
    Whole,
    /// Each run along the last dimension.
    Rows,
    /// Each run along the first dimension.
    Columns,
}

impl TensorSettings {
    /// Every task with weight 1 and all of its values.
    pub fn new(n_tasks: usize) -> TensorSettings {
        TensorSettings {
            weight: vec![1.0; n_tasks],
            density: vec![1.0; n_tasks],
            gamma: vec![0.01; n_tasks],
            epsilon: vec![0.15; n_tasks],
            lambda: 1.0,
            normalize: false,
            rescale: Rescale::No,
            over: Over::Tensor,
            base_weight: 0.0,
            t: 0.5,
            rows: RowWise::Whole,
            select_topk: 1.0,
            k: 2,
            mask_lambda: 0.4,
            common: 0.8,
            max_iter: 10,
            tol: 1e-5,
            eps: 1e-8,
        }
    }
}
