"""numpy arrays and torch tensors as memory that the extension reads and writes, each in its own type."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ._errors import InputError, UsageError

#: Types by numpy's names; bfloat16 and the 8-bit floats are those of ``ml_dtypes``.
_NUMPY = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "complex64": "C64",
}
#: The same by torch's.
_TORCH = {f"torch.{name}": dtype for name, dtype in _NUMPY.items()}

#: Types in which edits are formed.
FORMED = ("float32", "float16", "bfloat16")


class Lent(NamedTuple):
    """The memory of one tensor, row after row without gaps. ``owner`` keeps it alive."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    address: int
    n_bytes: int
    owner: Any


def torch_module() -> Any:
    """torch where the program has imported it; who has not holds no tensor of it."""
    return sys.modules.get("torch")


def is_module(value: Any) -> bool:
    """Whether this is a ``torch.nn.Module``."""
    torch = torch_module()
    return torch is not None and isinstance(value, torch.nn.Module)


def tensors_of(value: Any, label: str) -> Mapping[str, Any]:
    """The state dict of a module, or the mapping itself; a module's tensors share its memory."""
    if is_module(value):
        state: Mapping[str, Any] = value.state_dict(keep_vars=True)
        return state
    if isinstance(value, Mapping):
        return value
    raise UsageError(f"{label}: a path, a state dict or a module expected, {type(value).__name__} found")


def readable(tensors: Mapping[str, Any], label: str) -> list[Lent]:
    """The memory of every tensor, to be read. What is not contiguous or not in this machine's memory is copied."""
    far: dict[str, int] = {}
    lent = [_read(name, value, label, far) for name, value in tensors.items()]
    for device, n_tensors in far.items():
        plural = "tensor is" if n_tensors == 1 else "tensors are"
        warnings.warn(f"{label}: {n_tensors} {plural} on {device} and read through the CPU", stacklevel=4)
    return lent


class Copies:
    """Copies on the CPU of tensors that are elsewhere: they are edited in their place, and brought back when all is done."""

    def __init__(self) -> None:
        self._made: dict[Any, tuple[Any, Any]] = {}
        self._n_on: dict[str, int] = {}

    def of(self, tensor: Any) -> Any:
        """The copy of a tensor; tensors that share memory share it, too."""
        key = (str(tensor.device), tensor.data_ptr(), tensor.shape, tensor.dtype)
        if key not in self._made:
            self._made[key] = (tensor, tensor.to("cpu", copy=True))
            self._n_on[str(tensor.device)] = self._n_on.get(str(tensor.device), 0) + 1
        return self._made[key][1]

    def tell(self, label: str) -> None:
        """Warns of what is copied."""
        for device, n_tensors in self._n_on.items():
            plural = "tensor is" if n_tensors == 1 else "tensors are"
            warnings.warn(f"{label}: {n_tensors} {plural} on {device} and edited through copies on the CPU", stacklevel=4)

    def bring_back(self) -> None:
        """Writes every copy to where it is from."""
        for tensor, copy in self._made.values():
            tensor.copy_(copy)


def writable(tensors: Mapping[str, Any], label: str) -> tuple[list[Lent], Copies]:
    """The memory of every tensor, to be written in place; refused where that is not possible."""
    copies = Copies()
    lent = [_write(name, value, label, copies) for name, value in tensors.items()]
    copies.tell(label)
    return lent, copies


def empty(name: str, shape: tuple[int, ...], dtype: str, as_torch: bool) -> tuple[Any, Lent]:
    """A new array or tensor, and its memory to be written."""
    if dtype not in FORMED:
        raise UsageError(f"dtype: one of {', '.join(FORMED)} expected, {dtype!r} found")
    if as_torch:
        try:
            import torch
        except ImportError:
            raise UsageError("as_torch: torch cannot be imported", "pip install torch, or take numpy arrays") from None
        tensor = torch.empty(shape, dtype=getattr(torch, dtype))
        return tensor, _of_torch(name, tensor, "edit")
    kind: Any = dtype
    if dtype == "bfloat16":
        try:
            from ml_dtypes import bfloat16
        except ImportError:
            hint = "pip install ml_dtypes, or take torch tensors with as_torch=True"
            raise UsageError("dtype: numpy has no bfloat16 without the package ml_dtypes", hint) from None
        kind = bfloat16
    array = np.empty(shape, dtype=kind)
    return array, _of_numpy(name, array, "edit")


def told(lent: Iterable[Lent]) -> None:
    """Lets autograd know that tensors were written to, so that it refuses to go back through what it kept of them."""
    torch = torch_module()
    if torch is None:
        return
    for tensor in (one.owner for one in lent):
        if isinstance(tensor, torch.Tensor) and not tensor.is_inference():
            torch._C._increment_version(tensor if _takes_one(torch) else [tensor])


def _takes_one(torch: Any) -> bool:
    """Before 2.7 the function took one tensor, since then a list."""
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    return (major, minor) < (2, 7)


def _read(name: str, value: Any, label: str, far: dict[str, int]) -> Lent:
    _check_name(name, label)
    torch = torch_module()
    if torch is not None and isinstance(value, torch.Tensor):
        value = _plain(name, value, label, torch)
        if is_far(value):
            far[str(value.device)] = far.get(str(value.device), 0) + 1
            value = value.cpu()
        return _of_torch(name, value.contiguous(), label)
    array = np.asarray(value) if isinstance(value, np.generic) else _array(name, value, label)
    return _of_numpy(name, np.ascontiguousarray(array).reshape(array.shape), label)


def is_far(tensor: Any) -> bool:
    """Whether a tensor is not in memory that the extension can reach."""
    return bool(tensor.device.type != "cpu")


def _write(name: str, value: Any, label: str, copies: Copies) -> Lent:
    _check_name(name, label)
    torch = torch_module()
    if torch is not None and isinstance(value, torch.Tensor):
        if value.is_conj() or value.is_neg():
            raise InputError(f"{label}, tensor {name}: values as they are expected, a view that negates them found", "copy it")
        value = _plain(name, value, label, torch)
        if not value.is_contiguous():
            raise _not_contiguous(name, label, "tensor.contiguous()")
        if is_far(value):
            value = copies.of(value)
        return _of_torch(name, value, label)
    array = _array(name, value, label)
    if not array.flags.c_contiguous:
        raise _not_contiguous(name, label, "numpy.ascontiguousarray(array)")
    if not array.flags.writeable:
        raise InputError(f"{label}, tensor {name}: memory that can be written expected, a read-only array found", "copy it")
    return _of_numpy(name, array, label)


def _not_contiguous(name: str, label: str, way: str) -> InputError:
    return InputError(f"{label}, tensor {name}: rows without gaps expected, other strides found", f"give {way}")


def _check_name(name: Any, label: str) -> None:
    if not isinstance(name, str):
        raise InputError(f"{label}: names of tensors expected, {name!r} found", "give the state dict itself")


def _plain(name: str, value: Any, label: str, torch: Any) -> Any:
    """The same memory as a tensor of no special kind."""

    def refused(found: str, hint: str) -> InputError:
        return InputError(f"{label}, tensor {name}: a dense tensor with values expected, {found} found", hint)

    if value.is_meta:
        raise refused("one on the device meta", "load its values first")
    if value.is_quantized:
        raise refused("a quantised one", "give tensor.dequantize()")
    if value.is_nested:
        raise refused("a nested one", "give its parts, each under its own name")
    if value.layout != torch.strided:
        raise refused(f"one of layout {value.layout}", "give tensor.to_dense()")
    plain = value.detach().resolve_conj().resolve_neg()
    if type(plain) is not torch.Tensor:
        raise refused(f"a {type(plain).__name__}", "give a plain tensor of its values")
    return plain


def _array(name: str, value: Any, label: str) -> np.ndarray[Any, Any]:
    if isinstance(value, np.ndarray):
        return value
    hint = "give the state dict itself" if isinstance(value, Mapping) else "leave it out, or make it an array"
    raise InputError(f"{label}, tensor {name}: a numpy array or a torch tensor expected, {type(value).__name__} found", hint)


def _of_numpy(name: str, array: np.ndarray[Any, Any], label: str) -> Lent:
    dtype = _NUMPY.get(array.dtype.name)
    if dtype is None or not array.dtype.isnative:
        shown = array.dtype.str if dtype is not None else array.dtype.name
        raise InputError(
            f"{label}, tensor {name}: one of {', '.join(_NUMPY)} in this machine's order of bytes expected, {shown} found",
            "convert it with array.astype(...)",
        )
    return Lent(name, dtype, array.shape, array.ctypes.data, array.nbytes, array)


def _of_torch(name: str, tensor: Any, label: str) -> Lent:
    dtype = _TORCH.get(str(tensor.dtype))
    if dtype is None:
        raise InputError(
            f"{label}, tensor {name}: one of {', '.join(_TORCH)} expected, {tensor.dtype} found",
            "convert it with tensor.to(...)",
        )
    n_bytes = tensor.numel() * tensor.element_size()
    return Lent(name, dtype, tuple(tensor.shape), tensor.data_ptr(), n_bytes, tensor)
