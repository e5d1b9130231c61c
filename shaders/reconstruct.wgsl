// reconstruct.wgsl: the fused reconstruction into the output format.
//   out_k(x) = [base(x) +] sum_c column_c(x) [- base(x)] * weight[c, k]
// bindings, dispatch and numerics: shared/combine.wgsl; what is in brackets is chosen by the params

#import shared/combine.wgsl

@compute @workgroup_size(THREADS)
fn reconstruct(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    combine(group.x, thread);
}
