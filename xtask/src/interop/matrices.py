"""TSV-M, Iso-C and Iso-CTS as published (arXiv 2412.00081, 2502.04959), in plain PyTorch: one tensor of all tasks at a time.

What is no matrix is the mean of the task vectors, as in the published code.
"""

import torch


def _polar(matrix: torch.Tensor) -> torch.Tensor:
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right


def _is_matrix(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 2 and min(tensor.shape) > 1


def tsv_m(deltas: list[torch.Tensor]) -> torch.Tensor:
    """The largest 1/T of every task's singular triplets, their left and right vectors made orthogonal."""
    if not _is_matrix(deltas[0]):
        return sum(deltas) / len(deltas)
    rank = min(deltas[0].shape) // len(deltas)
    left, values, right = [], [], []
    for delta in deltas:
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
        left.append(u[:, :rank])
        values.append(s[:rank])
        right.append(vh[:rank])
    return _polar(torch.cat(left, 1)) * torch.cat(values) @ _polar(torch.cat(right, 0))


def iso_c(deltas: list[torch.Tensor]) -> torch.Tensor:
    """The sum with a flat spectrum."""
    if not _is_matrix(deltas[0]):
        return sum(deltas) / len(deltas)
    u, s, vh = torch.linalg.svd(sum(deltas), full_matrices=False)
    return s.mean() * u @ vh


def iso_cts(deltas: list[torch.Tensor], common: float = 0.8) -> torch.Tensor:
    """Directions of the sum, and of each task what lies outside of them, with a flat spectrum."""
    if not _is_matrix(deltas[0]):
        return sum(deltas) / len(deltas)
    short, n = min(deltas[0].shape), len(deltas)
    own = round((short - int(short * common)) / n)
    n_common = short - own * n
    u, s, vh = torch.linalg.svd(sum(deltas), full_matrices=False)
    shared = u[:, :n_common]
    left, values, right = [], [], []
    for delta in deltas:
        a, b, c = torch.linalg.svd(delta - shared @ (shared.T @ delta), full_matrices=False)
        left.append(a[:, :own])
        values.append(b[:own])
        right.append(c[:own])
    left, values, right = left + [shared], values + [s[:n_common]], right + [vh[:n_common]]
    return torch.cat(values).mean() * _polar(torch.cat(left, 1)) @ _polar(torch.cat(right, 0))
