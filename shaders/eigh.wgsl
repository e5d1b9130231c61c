// eigh.wgsl: parallel Jacobi on a batch of small symmetric matrices, each from start to end in one workgroup.
//   A <- J^T A J,  V <- V J      until A is diagonal: then A = Lambda, V = U
// binding 0  params    uniform     EighParams (crates/tvb-kernels/src/params.rs)
// binding 5  matrices  read_write  f32: for each matrix [n, n], A at first and V column-major in the end; then for each
//                                  a mark; then for each the number of sweeps that it took
// dispatch   x: matrix from params.first_matrix
// numerics   f32; the host refines and checks the result in f64
//
// A round rotates ceil(n / 2) disjoint pairs of rows and columns at once, paired as in a round-robin tournament: player
// n' - 1 stays, the others go round. n' - 1 rounds (n' = n rounded up to even) meet every pair once: a sweep. Where n is odd
// the last player is a row of zeros, which nothing turns. A's lower triangle is in the workgroup's memory. V is too where
// there is room; else it is where A was read from, and each thread keeps to a row of its own, so that no barrier is needed.

const THREADS: u32 = 64u;
// The largest order, even.
const SIDE: u32 = 64u;
// 1 where V is in the workgroup's memory; SIDE is below THREADS then.
const HELD: u32 = 0u;
// Entries of V there; 1 where it is not.
const V_LEN: u32 = HELD * (SIDE * SIDE - 1u) + 1u;
// The host has the same number (limits.rs).
const MOST_SWEEPS: u32 = 14u;

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

var<workgroup> a: array<f32, SIDE * (SIDE + 1u) / 2u>;
var<workgroup> v: array<f32, V_LEN>;
var<workgroup> rotations: array<Rotation, SIDE / 2u>;
var<workgroup> unsettled: array<u32, SIDE / 2u>;
var<workgroup> goes_on: u32;

// Where A[i, j] is.
fn place(i: u32, j: u32) -> u32 {
    let row = max(i, j);
    return row * (row + 1u) / 2u + min(i, j);
}

// Sets a pair's rotation and turns its own block of A; answers whether the pair was far from settled.
fn rotate_pair(round: u32, pair: u32) -> bool {
    let players = pair_of(round, pair);
    let pp = place(players.x, players.x);
    let pq = place(players.x, players.y);
    let qq = place(players.y, players.y);
    let r = rotation_of(players, a[pp], a[qq], a[pq]);
    a[pp] -= r.t * r.apq;
    a[qq] += r.t * r.apq;
    a[pq] = select(a[pq], 0.0, r.s != 0.0);
    rotations[pair] = r;
    return abs(r.apq) > UNSETTLED;
}

// One block of J^T A J, of the rows of one pair and the columns of another.
fn rotate_block(rows: Rotation, columns: Rotation) {
    if (rows.s == 0.0 && columns.s == 0.0) {
        return;
    }
    let pk_at = place(rows.p, columns.p);
    let pl_at = place(rows.p, columns.q);
    let qk_at = place(rows.q, columns.p);
    let ql_at = place(rows.q, columns.q);
    let pk = a[pk_at];
    let pl = a[pl_at];
    let qk = a[qk_at];
    let ql = a[ql_at];
    // Rows first: J^T A.
    let pk_row = rows.c * pk - rows.s * qk;
    let pl_row = rows.c * pl - rows.s * ql;
    let qk_row = rows.s * pk + rows.c * qk;
    let ql_row = rows.s * pl + rows.c * ql;
    a[pk_at] = columns.c * pk_row - columns.s * pl_row;
    a[pl_at] = columns.s * pk_row + columns.c * pl_row;
    a[qk_at] = columns.c * qk_row - columns.s * ql_row;
    a[ql_at] = columns.s * qk_row + columns.c * ql_row;
}

// The row of a strictly lower triangle, packed row by row, that holds entry `at`.
fn row_of(at: u32) -> u32 {
    let near = u32((sqrt(f32(8u * at + 1u)) + 1.0) * 0.5);
    let low = select(near, near - 1u, near * (near - 1u) / 2u > at);
    return select(low, low + 1u, (low + 1u) * low / 2u <= at);
}

@compute @workgroup_size(THREADS)
fn eigh(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let n = params.n;
    let n_pairs = params.n_players / 2u;
    let n_rounds = params.n_players - 1u;
    let matrix = params.first_matrix + group.x;
    let start = matrix * n * n;
    for (var j = 0u; j < params.n_players; j += 1u) {
        for (var i = j + thread; i < params.n_players; i += THREADS) {
            if (i < n) {
                a[place(i, j)] = matrices[start + j * n + i];
            } else {
                a[place(i, j)] = 0.0;
            }
        }
    }
    workgroupBarrier();

    // The thread's part of V: one row, every so many-th column or pair of columns.
    let row = thread % SIDE;
    let first = thread / SIDE;
    let step = THREADS / SIDE;
    if (row < n) {
        for (var column = first; column < n; column += step) {
            let entry = select(0.0, 1.0, row == column);
            if (HELD == 1u) {
                v[column * SIDE + row] = entry;
            } else {
                matrices[start + column * n + row] = entry;
            }
        }
    }

    var n_sweeps = 0u;
    for (var sweep = 0u; sweep < MOST_SWEEPS; sweep += 1u) {
        var is_unsettled = false;
        for (var round = 0u; round < n_rounds; round += 1u) {
            if (thread < n_pairs) {
                let found = rotate_pair(round, thread);
                is_unsettled = is_unsettled || found;
            }
            workgroupBarrier();
            for (var at = thread; at < n_pairs * (n_pairs - 1u) / 2u; at += THREADS) {
                let rows = row_of(at);
                rotate_block(rotations[rows], rotations[at - rows * (rows - 1u) / 2u]);
            }
            if (row < n) {
                for (var pair = first; pair < n_pairs; pair += step) {
                    let r = rotations[pair];
                    if (r.s != 0.0) {
                        rotate_row(start, row, r);
                    }
                }
            }
            workgroupBarrier();
        }
        if (thread < n_pairs) {
            unsettled[thread] = select(0u, 1u, is_unsettled);
        }
        workgroupBarrier();
        if (thread == 0u) {
            var any = 0u;
            for (var pair = 0u; pair < n_pairs; pair += 1u) {
                any |= unsettled[pair];
            }
            goes_on = any;
        }
        n_sweeps = sweep + 1u;
        let again = workgroupUniformLoad(&goes_on);
        if (again == 0u) {
            break;
        }
    }

    if (HELD == 1u && row < n) {
        for (var column = first; column < n; column += step) {
            matrices[start + column * n + row] = v[column * SIDE + row];
        }
    }
    if (thread == 0u) {
        matrices[params.marks + matrix] = f32(params.stamp);
        matrices[params.unsettled + matrix] = f32(n_sweeps);
    }
}

// Two entries of a row of V.
fn rotate_row(start: u32, row: u32, r: Rotation) {
    if (HELD == 1u) {
        let p_at = r.p * SIDE + row;
        let q_at = r.q * SIDE + row;
        let x = v[p_at];
        let y = v[q_at];
        v[p_at] = r.c * x - r.s * y;
        v[q_at] = r.s * x + r.c * y;
    } else {
        let p_at = start + r.p * params.n + row;
        let q_at = start + r.q * params.n + row;
        let x = matrices[p_at];
        let y = matrices[q_at];
        matrices[p_at] = r.c * x - r.s * y;
        matrices[q_at] = r.s * x + r.c * y;
    }
}
