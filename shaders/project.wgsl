// project.wgsl: the fused projection S = VB straight from raw bytes.
//   atom_m(x) = sum_t (column_t(x) - base(x)) * encode[t, m]
// bindings, dispatch and numerics: shared/combine.wgsl, with subtract_base 1 and add_base 0

#import shared/combine.wgsl

@compute @workgroup_size(THREADS)
fn project(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    combine(group.x, thread);
}
