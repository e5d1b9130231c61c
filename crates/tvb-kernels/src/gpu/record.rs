//! A plan put into wgpu's words: its bindings, and its dispatches and copies in a command encoder.

use super::context::Context;
use super::plan::{Plan, Step};
use crate::error::KernelError;
use crate::limits::BINDING_ALIGNMENT;
use crate::work::OnGpu;
use std::num::NonZero;
use std::ops::Range;

/// The buffers that a plan's kernels see, and the one its result is copied to.
pub(super) struct PlanBuffers<'a> {
    /// The chunk's bytes.
    pub(super) chunk: &'a wgpu::Buffer,
    /// The plan's tables.
    pub(super) tables: &'a wgpu::Buffer,
    /// Packed weights, or a few bytes where the work has none.
    pub(super) weights: &'a wgpu::Buffer,
    /// The kernels' output.
    pub(super) out: &'a wgpu::Buffer,
    /// What the host reads.
    pub(super) readback: &'a wgpu::Buffer,
}

/// Which steps of a plan are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Steps {
    /// Kernels, and copies to the readback buffer.
    All,
    /// Kernels only, for a measurement: the result stays where it is.
    Dispatches,
}

/// A plan, ready to be put into encoders.
pub(super) struct Recorded {
    bindings: wgpu::BindGroup,
    pipelines: Vec<Option<wgpu::ComputePipeline>>,
}

impl Recorded {
    /// Makes the bindings and finds the pipelines.
    pub(super) fn new<P>(context: &Context, plan: &Plan<P>, buffers: &PlanBuffers<'_>) -> Result<Self, KernelError> {
        let pipelines = plan
            .steps
            .iter()
            .map(|step| match step {
                Step::Dispatch { kernel, .. } => context.pipeline(*kernel).map(Some),
                Step::Copy { .. } => Ok(None),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let part = |range: &Range<usize>| {
            // An empty table is bound as a few bytes of padding.
            wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: buffers.tables,
                offset: range.start as u64,
                size: NonZero::new(range.len().max(BINDING_ALIGNMENT / 4) as u64),
            })
        };
        let params = part(&(0..BINDING_ALIGNMENT));
        let fourth = plan.folds.as_ref().map_or_else(|| buffers.weights.as_entire_binding(), part);
        let entry = |binding, resource| wgpu::BindGroupEntry { binding, resource };
        let bindings = context.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &context.bind_group_layout,
            entries: &[
                entry(0, params),
                entry(1, buffers.chunk.as_entire_binding()),
                entry(2, part(&plan.slices)),
                entry(3, part(&plan.runs)),
                entry(4, fourth),
                entry(5, buffers.out.as_entire_binding()),
                entry(6, buffers.chunk.as_entire_binding()),
            ],
        });
        Ok(Self { bindings, pipelines })
    }

    /// Appends the plan's steps, in order.
    pub(super) fn encode<P>(
        &self,
        plan: &Plan<P>,
        buffers: &PlanBuffers<'_>,
        wanted: Steps,
        encoder: &mut wgpu::CommandEncoder,
    ) {
        for (step, pipeline) in plan.steps.iter().zip(&self.pipelines) {
            match (step, pipeline) {
                (Step::Dispatch { params, groups, .. }, Some(pipeline)) => {
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                    pass.set_pipeline(pipeline);
                    pass.set_bind_group(0, &self.bindings, &[*params]);
                    pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
                }
                (Step::Copy { from, to, n_words }, _) if wanted == Steps::All => {
                    let bytes = |words: &usize| *words as u64 * 4;
                    let (from, to, n_bytes) = (bytes(from), bytes(to), bytes(n_words));
                    encoder.copy_buffer_to_buffer(buffers.out, from, buffers.readback, to, n_bytes);
                }
                (Step::Copy { .. }, _) | (Step::Dispatch { .. }, None) => {}
            }
        }
    }
}

/// The weights in the shader's order, on the device; for work without any, a few bytes.
pub(super) fn weights_buffer<W: OnGpu>(context: &Context, work: &W) -> Result<wgpu::Buffer, KernelError> {
    let packed = work.packed_weights()?;
    let n_bytes = packed.len() as u64 * 4;
    let most = context.facts.max_binding_bytes;
    if n_bytes > most {
        return Err(KernelError::Limit { what: "bytes of weights", found: n_bytes, most });
    }
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
    let buffer = context.buffer("weights", n_bytes, usage, false)?;
    context.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&packed));
    Ok(buffer)
}
