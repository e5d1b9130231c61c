// eigh_round.wgsl: one round of parallel Jacobi on a symmetric matrix, over many workgroups.
//   A' <- J^T A J,  V <- V J      until A is diagonal: then A = Lambda, V = U
// binding 0  params    uniform     EighParams (crates/tvb-kernels/src/params.rs)
// binding 5  matrices  read_write  f32: A, A', V, [n', n'] each, V column-major; then one mark for each workgroup; then, for
//                                  each pair, the last sweep, counted from 1, in which the pair of that number was far
//                                  from settled
// dispatch   x, y: 8 x 8 threads, pairs of columns by pairs of rows
// numerics   f32; the host refines and checks the result in f64
//
// Rounds and pairs are those of eigh.wgsl. A thread turns a block of A that is no other's, of the rows of one pair and the
// columns of another, and finds both rotations by itself from the old A, which nobody writes: so a round needs no barrier
// and no other dispatch. The host lets A and A' change places after every round, and pads an odd n with a row of zeros.

const THREADS: u32 = 64u;

// ---- Rotations: the same lines in eigh.wgsl and eigh_round.wgsl ----
struct EighParams {
    n: u32,
    // n rounded up to even.
    n_players: u32,
    // Of the dispatch.
    first_matrix: u32,
    // Word of the output where the marks begin.
    marks: u32,
    // In eigh_round.wgsl: 1 where A and A' have changed places; which round of which sweep.
    is_odd: u32,
    round: u32,
    sweep: u32,
    // Word of the output where it says how many sweeps that takes.
    unsettled: u32,
    stamp: u32,
}

// Pairs that were this far from settled, in units of the largest entry, call for another sweep. Closer ones of a cluster would
// go on for many, and the host solves clusters.
const UNSETTLED: f32 = 1e-6;

struct Rotation {
    p: u32,
    q: u32,
    c: f32,
    s: f32,
    // s / c, and A[p, q] before it becomes zero.
    t: f32,
    apq: f32,
}

@group(0) @binding(0) var<uniform> params: EighParams;
@group(0) @binding(5) var<storage, read_write> matrices: array<f32>;

// The players of a pair of a round, p < q.
fn pair_of(round: u32, pair: u32) -> vec2<u32> {
    let others = params.n_players - 1u;
    let left = select(wrapped(round + pair, others), others, pair == 0u);
    let right = wrapped(round + others - pair, others);
    return vec2<u32>(min(left, right), max(left, right));
}

fn wrapped(at: u32, others: u32) -> u32 {
    return select(at - others, at, at < others);
}

// The rotation that makes A[p, q] zero. Entries are in units of the largest, and what is down to f32's rounding of that one
// stays: pairs of one cluster would go on turning about each other by any angle, and keep the rest from settling.
fn rotation_of(players: vec2<u32>, app: f32, aqq: f32, apq: f32) -> Rotation {
    if (abs(apq) < 1e-7) {
        return Rotation(players.x, players.y, 1.0, 0.0, 0.0, 0.0);
    }
    // t = tan(angle), the smaller root of t^2 + t (aqq - app) / apq - 1 = 0.
    let gap = aqq - app;
    let twice = 2.0 * select(-apq, apq, gap >= 0.0);
    let t = twice / (abs(gap) + sqrt(gap * gap + twice * twice));
    let c = inverseSqrt(t * t + 1.0);
    let s = t * c;
    // Drivers' roots and quotients may be off by a few units, always to one side: V would stretch with every round.
    let longer = 0.5 * (c * c - 1.0 + s * s);
    return Rotation(players.x, players.y, c - c * longer, s - s * longer, t, apq);
}
// ---- End of rotations ----

fn rotation_at(a: u32, pair: u32) -> Rotation {
    let side = params.n_players;
    let players = pair_of(params.round, pair);
    let app = matrices[a + players.x * side + players.x];
    let aqq = matrices[a + players.y * side + players.y];
    return rotation_of(players, app, aqq, matrices[a + players.x * side + players.y]);
}

@compute @workgroup_size(8, 8)
fn eigh_round(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
) {
    let side = params.n_players;
    let n_pairs = side / 2u;
    let old = params.is_odd * side * side;
    let next = (1u - params.is_odd) * side * side;
    let v = 2u * side * side;
    // Neighbouring threads have neighbouring columns of A and rows of V.
    let at_rows = group.y * 8u + thread.y;
    let at_columns = group.x * 8u + thread.x;
    if (at_rows < n_pairs && at_columns < n_pairs) {
        let rows = rotation_at(old, at_rows);
        let columns = rotation_at(old, at_columns);
        if (at_rows == at_columns) {
            let apq = matrices[old + rows.p * side + rows.q];
            let rest = select(apq, 0.0, rows.s != 0.0);
            matrices[next + rows.p * side + rows.p] = matrices[old + rows.p * side + rows.p] - rows.t * rows.apq;
            matrices[next + rows.q * side + rows.q] = matrices[old + rows.q * side + rows.q] + rows.t * rows.apq;
            matrices[next + rows.p * side + rows.q] = rest;
            matrices[next + rows.q * side + rows.p] = rest;
            if (abs(rows.apq) > UNSETTLED) {
                matrices[params.unsettled + at_rows] = f32(params.sweep);
            }
        } else {
            rotate_block(old, next, rows, columns);
        }
        // Rows 2k and 2k + 1 of V belong to whoever has the columns' k-th pair; columns of V to the rows' pair.
        for (var row = 2u * at_columns; row < 2u * at_columns + 2u; row += 1u) {
            let p_at = v + rows.p * side + row;
            let q_at = v + rows.q * side + row;
            let x = matrices[p_at];
            let y = matrices[q_at];
            matrices[p_at] = rows.c * x - rows.s * y;
            matrices[q_at] = rows.s * x + rows.c * y;
        }
    }
    if (thread.x == 0u && thread.y == 0u) {
        matrices[params.marks + group.y * groups.x + group.x] = f32(params.stamp);
    }
}

// One block of J^T A J, of the rows of one pair and the columns of another.
fn rotate_block(old: u32, next: u32, rows: Rotation, columns: Rotation) {
    let side = params.n_players;
    let pk_at = rows.p * side + columns.p;
    let pl_at = rows.p * side + columns.q;
    let qk_at = rows.q * side + columns.p;
    let ql_at = rows.q * side + columns.q;
    let pk = matrices[old + pk_at];
    let pl = matrices[old + pl_at];
    let qk = matrices[old + qk_at];
    let ql = matrices[old + ql_at];
    // Rows first: J^T A.
    let pk_row = rows.c * pk - rows.s * qk;
    let pl_row = rows.c * pl - rows.s * ql;
    let qk_row = rows.s * pk + rows.c * qk;
    let ql_row = rows.s * pl + rows.c * ql;
    matrices[next + pk_at] = columns.c * pk_row - columns.s * pl_row;
    matrices[next + pl_at] = columns.s * pk_row + columns.c * pl_row;
    matrices[next + qk_at] = columns.c * qk_row - columns.s * ql_row;
    matrices[next + ql_at] = columns.s * qk_row + columns.c * ql_row;
}
