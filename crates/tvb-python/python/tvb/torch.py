"""Coefficients of a basis's tasks as the parameters of a PyTorch module: few-shot fitting by gradients.

A new task is often well met by an edit of tasks that are known, theta0 + sum of c_i * tau_i. A handful of examples is enough to fit
the c_i, because there are so few of them: one for each task, or one for each task and block of layers.

    basis = tvb.open("basis")
    fitted = tvb.torch.Coefficients(model, basis)          # model: the base, as an nn.Module
    optimizer = torch.optim.Adam(fitted.parameters(), lr=0.05)
    for batch, labels in examples:
        optimizer.zero_grad()
        loss(fitted(batch), labels).backward()
        optimizer.step()
    basis.apply(model, fitted.weights())                   # bakes the edit into the model

The model itself is never changed: neither its parameters nor their `requires_grad`, nor its buffers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.func import functional_call

from ._blocks import Blocks, blocks_of
from ._errors import InputError, UsageError
from ._model_names import Targets, targets_of

if TYPE_CHECKING:
    from . import Basis

__all__ = ["Coefficients"]

#: Mismatches that an error lists; the rest are counted.
_LISTED = 20

#: The formats in which task vectors may be held.
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Coefficients(nn.Module):
    """A base model plus a weighted sum of a basis's task vectors, whose weights are the parameters.

    ``forward`` passes what it is given to the model's ``forward``, with theta0 + sum of c_i * tau_i in place of its tensors.
    Gradients reach the coefficients alone. The basis's tensors are found by name: wrappers' prefixes are seen through, and tied
    parameters are edited once.

    Memory beside the model: each task vector once (``n_bytes`` says how much), and the edited tensors of one forward pass, one
    copy of what is edited. Backward takes no further copy of the model, however many tasks there are. A float buffer that the
    basis edits (a BatchNorm's mean) moves with the coefficients, but carries no gradient; in training, buffers are updated in a
    copy that is dropped.

    ``.to()``, ``.cuda()`` and the like move the model, the task vectors and the coefficients; coefficients stay in float32 (or
    float64), task vectors in their own type. ``.train()`` and ``.eval()`` are passed on to the model. ``state_dict()`` holds the
    coefficients alone.

    Args:
        model: The base as a module. It is not changed.
        basis: A basis of that base.
        tasks: Names of the tasks that take part; all where nothing is said.
        blocks: ``None`` for one coefficient for each task. For a row of them for each block of tensors: a number of runs of
            layers; a list of patterns, of which the first found in a tensor's name takes it; or a function from a name to its
            block's name.
        init: Where the coefficients start: a number, ``"sum"`` (every task with weight 1), or weights by task (others 0).
        dtype: How task vectors are held: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        progress: As of :func:`tvb.compress`.

    Raises:
        InputError: The basis's tensors do not fit the model; all of them are listed.
        UsageError: Unknown tasks, or blocks that leave a tensor out.

    >>> fitted = tvb.torch.Coefficients(model, basis, blocks=4, init=0.3)
    >>> fitted.values.shape
    torch.Size([4, 2])
    """

    #: The coefficients: ``[n_tasks]``, or ``[n_blocks, n_tasks]``.
    values: nn.Parameter
    _model: nn.Module

    def __init__(
        self,
        model: nn.Module,
        basis: Basis,
        *,
        tasks: Sequence[str] | None = None,
        blocks: Blocks | None = None,
        init: float | str | Mapping[str, float] = 0.0,
        dtype: str = "float32",
        progress: Any = None,
    ) -> None:
        super().__init__()
        names = _chosen(basis, tasks)
        if dtype not in _DTYPES:
            raise UsageError(f"dtype: expected {', '.join(_DTYPES)}, found {dtype!r}")
        # Kept out of nn.Module's registers: the optimizer and the state dict are to see the coefficients alone.
        object.__setattr__(self, "_model", model)
        self._tasks = names
        self._vectors: dict[str, list[torch.Tensor | None]] = {}
        #: The basis's name of each tensor that it moves.
        self._names: dict[str, str] = {}
        targets = targets_of(model, basis.path)
        for index, name in enumerate(names):
            self._hold(index, basis.task(name, as_torch=True, dtype=dtype, progress=progress), targets)
        ordered = [target for target in _names_in_order(model) if target in self._vectors]
        self._blocks = None if blocks is None else blocks_of([self._names[target] for target in ordered], blocks)
        row_of = {name: row for row, found in enumerate((self._blocks or {}).values()) for name in found}
        self._row = {target: row_of.get(name, 0) for target, name in self._names.items()}
        start = torch.tensor(_start(names, init), dtype=torch.float32)
        if self._blocks is not None:
            start = start.repeat(len(self._blocks), 1)
        self.values = nn.Parameter(start.to(next(iter(_tensors(model).values())).device))

    def _hold(self, index: int, vectors: Mapping[str, torch.Tensor], targets: Targets) -> None:
        """Takes one task's vectors, each to the device of the tensor that it moves; zeros are not kept."""
        tensors = _tensors(self._model)
        faults = []
        found = targets.find(list(vectors))
        #: Tensors that are one under two names have one vector, which is moved once.
        moved: dict[int, torch.Tensor | None] = {}
        of_target: dict[str, torch.Tensor] = {}
        for name, vector in vectors.items():
            target = found.get(name)
            tensor = None if target is None else tensors[target]
            if target is None or tensor is None:
                faults.append(f"tensor {name}: the basis has it, the model does not")
            elif tensor.shape != vector.shape:
                faults.append(f"tensor {name}: expected {list(vector.shape)} as in the basis, found {list(tensor.shape)}")
            elif not tensor.is_floating_point():
                faults.append(f"tensor {name}: expected floats, found {str(tensor.dtype).removeprefix('torch.')}")
            elif of_target.setdefault(target, vector) is not vector:
                faults.append(f"tensor {name}: the model ties it to another that the basis holds apart")
            else:
                self._names.setdefault(target, name)
                if id(vector) not in moved:
                    moved[id(vector)] = vector.to(tensor.device) if vector.any() else None
                row = self._vectors.setdefault(target, [None] * len(self._tasks))
                row[index] = moved[id(vector)]
        if faults:
            more = [f"… and {len(faults) - _LISTED} more"] if len(faults) > _LISTED else []
            n = f"{len(faults)} {'mismatch' if len(faults) == 1 else 'mismatches'}"
            lines = "\n".join(["  " + line for line in faults[:_LISTED] + more])
            raise InputError(
                f"{targets.basis}: {n} between the basis and the model\n{lines}",
                "the model is the base that the basis was made from",
            )

    @property
    def model(self) -> nn.Module:
        """The base model, as it was given.

        >>> fitted.model is model
        True
        """
        return self._model

    @property
    def tasks(self) -> list[str]:
        """The tasks' names, in the order of the coefficients.

        >>> fitted.tasks
        ['cars', 'mnist']
        """
        return list(self._tasks)

    @property
    def blocks(self) -> dict[str, list[str]] | None:
        """Each block's name and its tensors, under the basis's names; ``None`` where every task has one coefficient.

        >>> list(fitted.blocks)
        ['block0', 'block1', 'block2', 'block3']
        """
        return None if self._blocks is None else {name: list(tensors) for name, tensors in self._blocks.items()}

    @property
    def n_bytes(self) -> int:
        """Bytes that the task vectors take.

        >>> fitted.n_bytes
        691456
        """
        held = {id(vector): vector for row in self._vectors.values() for vector in row if vector is not None}
        return sum(vector.numel() * vector.element_size() for vector in held.values())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's forward, with the edited tensors in place of its own.

        >>> logits = fitted(batch)
        """
        return functional_call(self._model, self._edited(), args, kwargs, tie_weights=True)

    def _edited(self) -> dict[str, torch.Tensor]:
        """Every tensor of the model under its first name: edited, or as it is. Those of the model itself are not written to."""
        # One transfer for all tensors: each `alpha` below is a number on the host.
        rows = self.values.detach().double().reshape(-1, len(self._tasks)).tolist()
        tensors: dict[str, torch.Tensor] = {}
        buffers = dict(self._model.named_buffers())
        for name, tensor in _tensors(self._model).items():
            row = self._vectors.get(name)
            if name in buffers:
                # BatchNorm writes to its buffers while training, so it is given a copy.
                base = tensor.detach().clone() if self.training else tensor
                tensors[name] = base if row is None else _sum(base, row, rows[self._row[name]])
            elif row is None:
                tensors[name] = tensor.detach()
            else:
                values = self.values if self.values.dim() == 1 else self.values[self._row[name]]
                tensors[name] = _WeightedSum.apply(values, tensor.detach(), row, rows[self._row[name]])
        return tensors

    def weights(self) -> dict[str, Any]:
        """The coefficients as numbers: a dict by task, or with blocks a dict of such dicts by block.

        Without blocks ``basis.apply`` and ``basis.save_edit`` take it as it is.

        >>> fitted.weights()
        {'cars': 0.61, 'mnist': -0.08}
        """
        values = self.values.detach().double().tolist()
        if self._blocks is None:
            return dict(zip(self._tasks, values, strict=True))
        return {block: dict(zip(self._tasks, row, strict=True)) for block, row in zip(self._blocks, values, strict=True)}

    def merged(self) -> dict[str, torch.Tensor]:
        """The edited model as a state dict of its own memory, in the model's formats and under its names.

        Loading it bakes the edit in, blocks and all. Do not go on with the coefficients after that: their model holds the edit
        already.

        >>> model.load_state_dict(fitted.merged())
        <All keys matched successfully>
        """
        with torch.no_grad():
            edited = self._edited()
            first = _first_names(self._model)
            state = self._model.state_dict()
            made: dict[str, torch.Tensor] = {}
            merged: dict[str, Any] = {}
            for name, value in state.items():
                its = first.get(name)
                if its is None:
                    # What a module adds to its state itself.
                    merged[name] = value
                    continue
                if its not in made:
                    made[its] = edited[its] if its in self._vectors else edited[its].clone()
                merged[name] = made[its]
            return merged

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the coefficients as a JSON file, whole or not at all. docs/few-shot.md describes it.

        >>> fitted.save("coefficients.json")
        """
        blocks = None if self._blocks is None else [{"name": name, "tensors": found} for name, found in self._blocks.items()]
        record = {
            "format": "tvb-coefficients",
            "version": 1,
            "tasks": self._tasks,
            "blocks": blocks,
            "values": self.values.detach().double().tolist(),
        }
        if not bool(torch.isfinite(self.values).all()):
            raise InputError("a coefficient is not a finite number", "lower the learning rate")
        text = json.dumps(record, indent=1) + "\n"
        partial = f"{os.fspath(path)}.{os.getpid()}.partial"
        try:
            with open(partial, "x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            if os.path.exists(partial):
                os.unlink(partial)
            raise

    def load(self, path: str | os.PathLike[str]) -> Coefficients:
        """Takes the coefficients of a file that ``save`` wrote, for the same tasks and blocks. Returns the module itself.

        >>> fitted = tvb.torch.Coefficients(model, basis).load("coefficients.json")
        """
        shown = os.fspath(path)
        record = _read_record(shown)
        if record.get("tasks") != self._tasks:
            found = "atoms" if "atoms" in record else record.get("tasks")
            raise InputError(f"{shown}: expected the tasks {', '.join(self._tasks)}, found {found}")
        rows = _rows(record.get("blocks"), self._blocks)
        if rows is None:
            raise InputError(f"{shown}: its blocks are others than these", "make Coefficients with the blocks that the file lists")
        values = _numbers(record.get("values"))
        if values is None or values.shape != self.values.shape:
            raise InputError(f"{shown}: values: expected {list(self.values.shape)} finite numbers")
        values = values if self._blocks is None else values[rows]
        with torch.no_grad():
            self.values.copy_(values)
        return self

    def train(self, mode: bool = True) -> Coefficients:
        """As of every module; the model is set too.

        >>> fitted.train().model.training
        True
        """
        super().train(mode)
        self._model.train(mode)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> Coefficients:
        # The base for `.to()`, `.cuda()`, `.half()`: `fn` moves and may change the format.
        def moved(tensor: torch.Tensor) -> torch.Tensor:
            its: torch.Tensor = fn(tensor)
            # A coefficient in 8 bits of mantissa does not move by a small step.
            return tensor.to(its.device) if its.dtype in (torch.bfloat16, torch.float16) else its

        super()._apply(moved, recurse)
        self._model._apply(fn)
        for row in self._vectors.values():
            for index, vector in enumerate(row):
                if vector is not None:
                    row[index] = vector.to(fn(vector.new_empty(0)).device)
        return self

    def extra_repr(self) -> str:
        blocks = "" if self._blocks is None else f"{len(self._blocks)} blocks, "
        return f"{blocks}tasks: {', '.join(self._tasks)}; {self.n_bytes / 1e6:.1f} MB of task vectors"


class _WeightedSum(torch.autograd.Function):
    """base + sum of c_i * tau_i for one tensor. Backward takes inner products: no task needs a copy of the tensor."""

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, base: torch.Tensor, row: list[torch.Tensor | None], numbers: list[float]
    ) -> torch.Tensor:
        ctx.row, ctx.kind = row, (values.dtype, values.device)
        return _sum(base, row, numbers)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        wide = torch.float64 if gradient.dtype == torch.float64 else torch.float32
        flat = gradient.reshape(-1).to(wide)
        zero = flat.new_zeros(())
        products = [zero if vector is None else torch.dot(flat, vector.reshape(-1).to(wide)) for vector in ctx.row]
        return torch.stack(products).to(dtype=ctx.kind[0], device=ctx.kind[1]), None, None, None


def _sum(base: torch.Tensor, row: Iterable[torch.Tensor | None], numbers: Sequence[float]) -> torch.Tensor:
    """base + sum of numbers[i] * row[i], added up in f32 (f64 for f64) and rounded once, as `apply` does."""
    wide = torch.float64 if base.dtype == torch.float64 else torch.float32
    total = base.to(wide, copy=True)
    for vector, number in zip(row, numbers, strict=True):
        if vector is not None and number != 0.0:
            total.add_(vector.to(wide), alpha=number)
    return total.to(base.dtype)


def _chosen(basis: Basis, tasks: Sequence[str] | None) -> list[str]:
    known = list(basis.tasks)
    if tasks is None:
        return known
    if isinstance(tasks, str):
        raise UsageError(f"tasks: expected a list of names, found {tasks!r}", f"write [{tasks!r}]")
    for index, name in enumerate(tasks):
        if name not in known:
            raise UsageError(f"unknown task: {name}", f"the basis has {', '.join(known)}")
        if name in tasks[:index]:
            raise UsageError(f"task {name} is there twice")
    if not tasks:
        raise UsageError("no task given", f"the basis has {', '.join(known)}")
    return list(tasks)


def _start(names: Sequence[str], init: float | str | Mapping[str, float]) -> list[float]:
    if isinstance(init, Mapping):
        for name in init:
            if name not in names:
                raise UsageError(f"init: unknown task: {name}", f"the tasks are {', '.join(names)}")
        start = [float(init.get(name, 0.0)) for name in names]
    elif isinstance(init, str):
        if init != "sum":
            raise UsageError(f"init: expected a number, 'sum' or a dict of weights, found {init!r}")
        start = [1.0] * len(names)
    else:
        start = [float(init)] * len(names)
    if not all(math.isfinite(number) for number in start):
        raise UsageError("init: expected finite numbers")
    return start


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, each under its first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _first_names(model: nn.Module) -> dict[str, str]:
    """From every name of a tensor to its first one: tied parameters have several."""
    first: dict[int, str] = {}
    names = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: first.setdefault(id(tensor), name) for name, tensor in names}


def _names_in_order(model: nn.Module) -> list[str]:
    """First names in the order of the model's state dict, where parameters and buffers stand module by module."""
    first = _first_names(model)
    return list(dict.fromkeys(first[name] for name in model.state_dict() if name in first))


def _read_record(shown: str) -> dict[str, Any]:
    try:
        with open(shown, encoding="utf-8") as file:
            record = json.load(file)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{shown}: expected a file of coefficients: {error}") from None
    if not isinstance(record, dict) or record.get("format") != "tvb-coefficients":
        raise InputError(f"{shown}: expected a file of coefficients, found other JSON")
    if record.get("version") != 1:
        raise InputError(f"{shown}: expected version 1, found {record.get('version')!r}", "a newer tvb wrote it")
    return record


def _rows(found: Any, blocks: Mapping[str, Sequence[str]] | None) -> list[int] | None:
    """Which of a file's blocks each of these is, by the tensors in it, in any order; `None` where they are others."""
    if blocks is None or found is None:
        return [] if blocks is None and found is None else None
    try:
        theirs = [frozenset(block["tensors"]) for block in found]
    except (TypeError, KeyError):
        return None
    ours = [frozenset(tensors) for tensors in blocks.values()]
    if len(theirs) != len(ours) or set(theirs) != set(ours):
        return None
    return [theirs.index(tensors) for tensors in ours]


def _numbers(found: Any) -> torch.Tensor | None:
    try:
        values = torch.tensor(found, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    return values if bool(torch.isfinite(values).all()) else None
