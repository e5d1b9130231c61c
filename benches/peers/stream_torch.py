"""What a careful PyTorch user would write: task vector bases and task arithmetic, streamed tensor by tensor.

compress BASE OUT N_ATOMS TASK...   Gram in f64 from float32 products, eigh, top-M atoms by matmul, one file for each atom
add BASE OUT TASK...                base + 0.3 * sum of task vectors
start BASE OUT                      nothing: what starting Python and PyTorch takes

Files are memory-mapped by safetensors and never held as a whole, except the outputs, which `save_file` wants at once.
"""

import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

CHUNK_ROWS = 1 << 18


def deltas(files, base, name):
    """Task vectors of one tensor as [T, rows] pieces of at most CHUNK_ROWS rows, float32."""
    start = base.get_tensor(name).float().flatten()
    columns = [file.get_tensor(name).flatten() for file in files]
    for first in range(0, start.numel(), CHUNK_ROWS):
        rows = slice(first, first + CHUNK_ROWS)
        yield rows, torch.stack([column[rows].float() for column in columns]) - start[rows]


def compress(base_path, out, n_atoms, task_paths):
    base = safe_open(base_path, "pt")
    files = [safe_open(path, "pt") for path in task_paths]
    n_tasks = len(files)
    gram = torch.zeros(n_tasks, n_tasks, dtype=torch.float64)
    for name in base.keys():
        for _, piece in deltas(files, base, name):
            gram += (piece @ piece.T).double()
    vectors = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :n_atoms].float()
    atoms = [{} for _ in range(n_atoms)]
    for name in base.keys():
        shape = base.get_slice(name).get_shape()
        stored = torch.empty(n_atoms, torch.Size(shape).numel())
        for rows, piece in deltas(files, base, name):
            torch.matmul(vectors.T, piece, out=stored[:, rows])
        for atom, row in zip(atoms, stored):
            atom[name] = row.reshape(shape)
    for index, atom in enumerate(atoms):
        save_file({name: tensor.contiguous() for name, tensor in atom.items()}, f"{out}/atom-{index:02}.safetensors")


def add(base_path, out, task_paths):
    base = safe_open(base_path, "pt")
    files = [safe_open(path, "pt") for path in task_paths]
    edited = {}
    for name in base.keys():
        start = base.get_tensor(name)
        result = start.float().flatten().clone()
        for rows, piece in deltas(files, base, name):
            result[rows] += 0.3 * piece.sum(0)
        edited[name] = result.reshape(start.shape).to(start.dtype)
    save_file(edited, f"{out}/edited.safetensors")


if __name__ == "__main__":
    what, base, out, *rest = sys.argv[1:]
    with torch.inference_mode():
        if what == "compress":
            compress(base, out, int(rest[0]), rest[1:])
        elif what == "add":
            add(base, out, rest)
