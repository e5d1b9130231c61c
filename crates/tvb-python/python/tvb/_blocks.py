"""Tensors of a model grouped into blocks, by their names: what shares one row of coefficients."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ._errors import UsageError

#: A number of blocks, patterns of which the first found in a name takes it, or a function from a name to its block's name.
Blocks = int | Sequence[str] | Callable[[str], object]


def blocks_of(names: Sequence[str], blocks: Blocks) -> dict[str, list[str]]:
    """Each block's name and the tensors in it, in order.

    `names` are in the model's order. A tensor that is in no block is an error: nothing would move it, and nobody would know.
    """
    if callable(blocks):
        return _grouped([(name, str(blocks(name))) for name in names])
    if isinstance(blocks, int) and not isinstance(blocks, bool):
        return _by_layer(names, blocks)
    if isinstance(blocks, (str, bytes)) or not isinstance(blocks, Sequence):
        raise UsageError(f"blocks: expected a number, a list of patterns or a function, found {type(blocks).__name__}")
    return _by_pattern(names, blocks)


def _grouped(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, block in pairs:
        found.setdefault(block, []).append(name)
    return found


def _by_pattern(names: Sequence[str], patterns: Sequence[str]) -> dict[str, list[str]]:
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern))
        except (re.error, TypeError) as error:
            raise UsageError(f"blocks: {pattern!r} is no pattern: {error}") from None
    found: dict[str, list[str]] = {pattern.pattern: [] for pattern in compiled}
    if len(found) < len(compiled):
        raise UsageError("blocks: a pattern is there twice")
    lost: list[str] = []
    for name in names:
        taken = next((pattern.pattern for pattern in compiled if pattern.search(name)), None)
        if taken is None:
            lost.append(name)
        else:
            found[taken].append(name)
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise UsageError(
            f"blocks: no pattern matches {', '.join(lost[:3])}{more}",
            "end the list with '' to take all others as one block",
        )
    empty = [pattern for pattern, tensors in found.items() if not tensors]
    if empty:
        raise UsageError(f"blocks: {empty[0]!r} takes no tensor", "the first pattern that is found in a name takes it")
    return found


#: The first number that stands alone between dots: `encoder.layers.3.fc.weight` is in layer 3 of `encoder.layers`.
_LAYER = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")


def _by_layer(names: Sequence[str], n_blocks: int) -> dict[str, list[str]]:
    """Layers in order, in `n_blocks` runs of nearly the same length.

    What stands before the first layer (embeddings) goes with the first block, any other tensor of no layer (the head) with the one
    before it.
    """
    stacks: dict[str, set[int]] = {}
    layer_of: dict[str, tuple[str, int]] = {}
    for name in names:
        if match := _LAYER.search(name):
            layer = (name[: match.start()], int(match.group(1)))
            stacks.setdefault(layer[0], set()).add(layer[1])
            layer_of[name] = layer
    layers = [(stack, layer) for stack, found in stacks.items() for layer in sorted(found)]
    if not 1 <= n_blocks <= max(len(layers), 1):
        raise UsageError(
            f"blocks: expected 1 to {max(len(layers), 1)}, the number of layers by their names, found {n_blocks}",
            "a list of patterns groups tensors of any names",
        )
    place = {layer: index * n_blocks // len(layers) for index, layer in enumerate(layers)}
    found: dict[str, list[str]] = {f"block{index}": [] for index in range(n_blocks)}
    here = 0
    for name in names:
        here = place[layer_of[name]] if name in layer_of else here
        found[f"block{here}"].append(name)
    return found
