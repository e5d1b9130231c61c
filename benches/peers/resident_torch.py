"""The stages of `tvb bench` as a careful PyTorch user would write them, on data that lies in the card's memory.

resident_torch.py [GIGABYTES]      Markdown rows: stage, dtype, T, M, time, GB/s of bytes read and written, and as a part of the card's copy

Products are in full float32 (no TF32). `gram` forms differences and T×T products piece by piece, since all differences at once would
need the memory of a second set of checkpoints; the best of several piece sizes counts.
"""

import sys
import time

import torch

torch.backends.cuda.matmul.allow_tf32 = False
PIECES = [1 << 16, 1 << 18, 1 << 20, 1 << 22]


def median_seconds(work):
    work()
    torch.cuda.synchronize()
    seconds, began = [], time.perf_counter()
    while len(seconds) < 5 or time.perf_counter() - began < 0.6 and len(seconds) < 50:
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]


def gram(base, tasks, rows):
    total = torch.zeros(len(tasks), len(tasks), dtype=torch.float64, device=base.device)
    for first in range(0, base.numel(), rows):
        piece = tasks[:, first : first + rows].float() - base[first : first + rows].float()
        total += (piece @ piece.T).double()
    return total


def project(base, tasks, encode, out, rows):
    for first in range(0, base.numel(), rows):
        piece = tasks[:, first : first + rows].float() - base[first : first + rows].float()
        out[:, first : first + rows] = encode @ piece


def reconstruct(base, atoms, weights, out, rows):
    for first in range(0, base.numel(), rows):
        edit = weights @ atoms[:, first : first + rows].float()
        out[first : first + rows] = (base[first : first + rows].float() + edit[0]).to(out.dtype)


def best(work):
    return min(((median_seconds(lambda: work(rows)), rows) for rows in PIECES), key=lambda found: found[0])


def main(n_bytes):
    device = torch.device("cuda")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}\n")
    print("| stage | dtype | T | M | rows a piece | time | GB/s | of copy |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    a = torch.empty(n_bytes // 8, dtype=torch.float32, device=device).normal_()
    b = torch.empty_like(a)
    seconds = median_seconds(lambda: b.copy_(a))
    copy = 2 * a.numel() * 4 / seconds / 1e9
    print(f"| copy | - | - | - | - | {seconds * 1e3:.3g} ms | {copy:.0f} | 100 % |")
    del a, b

    def row(stage, dtype, n_tasks, n_atoms, found, moved):
        seconds, rows = found
        rate = moved / seconds / 1e9
        name = str(dtype).removeprefix("torch.")
        print(
            f"| {stage} | {name} | {n_tasks} | {n_atoms or '-'} | {rows} | {seconds * 1e3:.3g} ms | {rate:.0f} | {rate / copy * 100:.0f} % |",
            flush=True,
        )

    for dtype in (torch.float32, torch.bfloat16):
        size = 4 if dtype == torch.float32 else 2
        for n_tasks in (8, 20, 64, 256):
            n = n_bytes // size // (n_tasks + 1)
            base = torch.randn(n, device=device).to(dtype)
            tasks = torch.stack([(base.float() + 0.01 * torch.randn(n, device=device)).to(dtype) for _ in range(n_tasks)])
            row("gram", dtype, n_tasks, None, best(lambda rows: gram(base, tasks, rows)), (n_tasks + 1) * n * size)
            n_atoms = n_tasks // 2
            encode = torch.randn(n_atoms, n_tasks, device=device)
            out = torch.empty(n_atoms, n, dtype=dtype, device=device)
            row("project", dtype, n_tasks, n_atoms, best(lambda rows: project(base, tasks, encode, out, rows)), (n_tasks + 1 + n_atoms) * n * size)
            del out
            weights, edited = torch.randn(1, n_tasks, device=device), torch.empty(n, dtype=dtype, device=device)
            row("reconstruct", dtype, n_tasks, 1, best(lambda rows: reconstruct(base, tasks, weights, edited, rows)), (n_tasks + 2) * n * size)
            del base, tasks, edited
            torch.cuda.empty_cache()


if __name__ == "__main__":
    with torch.inference_mode():
        main(int(float(sys.argv[1] if len(sys.argv) > 1 else 4) * 1e9))
