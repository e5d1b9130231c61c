// eigh.wgsl: some rounds of parallel Jacobi on a batch of symmetric matrices.
//   A <- J^T A J,  V <- V J      until A is diagonal: then A = Lambda, V = U
// binding 0  params    uniform     EighParams (crates/tvb-kernels/src/params.rs)
// binding 5  matrices  read_write  f32: for each matrix A [n, n], V [n, n] row-major, then one mark each
// dispatch   x: matrix
// numerics   f32; the host refines and checks the result in f64
//
// A round rotates ceil(n / 2) disjoint pairs of rows and columns at once, paired as in a round-robin tournament: player
// n' - 1 stays, the others go round. n' - 1 rounds (n' = n rounded up to even) meet every pair once: a sweep.

const THREADS: u32 = 64u;
const MOST_PAIRS: u32 = 512u;

struct EighParams {
    n: u32,
    // n rounded up to even.
    n_players: u32,
    first_round: u32,
    n_rounds: u32,
    n_matrices: u32,
    stamp: u32,
}

struct Rotation {
    p: u32,
    q: u32,
    c: f32,
    s: f32,
}

@group(0) @binding(0) var<uniform> params: EighParams;
@group(0) @binding(5) var<storage, read_write> matrices: array<f32>;

var<workgroup> rotations: array<Rotation, MOST_PAIRS>;

// The pair of round `turn_at`, p < q; q = n stands for a bye.
fn pair_of(turn_at: u32, pair: u32) -> vec2<u32> {
    let others = params.n_players - 1u;
    let turn = turn_at % others;
    let left = select((turn + pair) % others, others, pair == 0u);
    let right = (turn + others - pair) % others;
    return vec2<u32>(min(left, right), max(left, right));
}

// The rotation that makes A[p, q] zero.
fn rotation_of(a: u32, p: u32, q: u32) -> Rotation {
    if (q >= params.n) {
        return Rotation(p, q, 1.0, 0.0);
    }
    let app = matrices[a + p * params.n + p];
    let aqq = matrices[a + q * params.n + q];
    let apq = matrices[a + p * params.n + q];
    let size = abs(app) + abs(aqq);
    if (abs(apq) <= 1e-9 * size || abs(apq) < 1e-30) {
        return Rotation(p, q, 1.0, 0.0);
    }
    // The smaller root t = tan(angle) of t^2 + 2*theta*t - 1 = 0; a huge theta overflows to t = 0, which is right.
    let theta = (aqq - app) / (2.0 * apq);
    let sign = select(-1.0, 1.0, theta >= 0.0);
    let t = sign / (abs(theta) + sqrt(theta * theta + 1.0));
    let c = 1.0 / sqrt(t * t + 1.0);
    return Rotation(p, q, c, t * c);
}

@compute @workgroup_size(THREADS)
fn eigh(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let n = params.n;
    let n_pairs = params.n_players / 2u;
    let a = group.x * 2u * n * n;
    let v = a + n * n;
    for (var turn = 0u; turn < params.n_rounds; turn += 1u) {
        for (var pair = thread; pair < n_pairs; pair += THREADS) {
            let players = pair_of(params.first_round + turn, pair);
            rotations[pair] = rotation_of(a, players.x, players.y);
        }
        workgroupBarrier();
        // Each 2 x 2 block of A belongs to one pair of rows and one pair of columns: no two threads share an entry.
        for (var at = thread; at < n_pairs * n_pairs; at += THREADS) {
            let rows = rotations[at / n_pairs];
            let columns = rotations[at % n_pairs];
            rotate_block(a, rows, columns);
        }
        for (var at = thread; at < n * n_pairs; at += THREADS) {
            let row = v + (at / n_pairs) * n;
            let r = rotations[at % n_pairs];
            if (r.q < n) {
                let x = matrices[row + r.p];
                let y = matrices[row + r.q];
                matrices[row + r.p] = r.c * x - r.s * y;
                matrices[row + r.q] = r.s * x + r.c * y;
            }
        }
        storageBarrier();
        workgroupBarrier();
    }
    if (thread == 0u) {
        matrices[params.n_matrices * 2u * n * n + group.x] = f32(params.stamp);
    }
}

// One block of J^T A J. A bye has c = 1, s = 0 and no entries of its own.
fn rotate_block(a: u32, rows: Rotation, columns: Rotation) {
    let n = params.n;
    let has_row = rows.q < n;
    let has_column = columns.q < n;
    let pp_at = a + rows.p * n + columns.p;
    let pq_at = a + rows.p * n + min(columns.q, n - 1u);
    let qp_at = a + min(rows.q, n - 1u) * n + columns.p;
    let qq_at = a + min(rows.q, n - 1u) * n + min(columns.q, n - 1u);
    let pp = matrices[pp_at];
    let pq = select(0.0, matrices[pq_at], has_column);
    let qp = select(0.0, matrices[qp_at], has_row);
    let qq = select(0.0, matrices[qq_at], has_row && has_column);
    // Rows first: J^T A.
    let pp_row = rows.c * pp - rows.s * qp;
    let pq_row = rows.c * pq - rows.s * qq;
    let qp_row = rows.s * pp + rows.c * qp;
    let qq_row = rows.s * pq + rows.c * qq;
    matrices[pp_at] = columns.c * pp_row - columns.s * pq_row;
    if (has_column) {
        matrices[pq_at] = columns.s * pp_row + columns.c * pq_row;
    }
    if (has_row) {
        matrices[qp_at] = columns.c * qp_row - columns.s * qq_row;
    }
    if (has_row && has_column) {
        matrices[qq_at] = columns.s * qp_row + columns.c * qq_row;
    }
}
