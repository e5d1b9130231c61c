"""How far the parts of a job are: a Ray actor that parts tell, and the one bar that the driver draws of it."""

from __future__ import annotations

from .._progress import Progress, sink

#: What is done of a part, and of how much, in bytes.
Told = tuple[int, int]


class Board:
    """Holds the latest word of every part."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, int], Told] = {}

    def tell(self, kind: str, number: int, done: int, total: int) -> None:
        """A part is so far. One that starts again does not take back what was counted."""
        before, _ = self._told.get((kind, number), (0, 0))
        self._told[kind, number] = (max(done, before), total)

    def read(self, kind: str) -> dict[int, Told]:
        """Every part of a kind that was heard of."""
        return {number: told for (its, number), told in self._told.items() if its == kind}


class Bar:
    """One bar for all parts."""

    def __init__(self, progress: Progress, stage: str) -> None:
        self._sink = sink(progress)
        self._stage = stage
        self._total, self._shown = 0, 0

    def show(self, told: dict[int, Told], done: set[int], n_parts: int) -> None:
        """Shows what is done of all parts. Those that have not started are taken to be like those that have, so the total is a
        guess
        at first; the bar keeps it, and shows the share that is done."""
        reached, total = sum_up(told, done, n_parts)
        if total == 0:
            return
        if self._total == 0:
            self._total = round(total)
            self._sink.begin(self._stage, self._total)
        self._advance(int(self._total * reached / total))

    def finish(self) -> None:
        """All parts are done."""
        self._advance(self._total)
        self.close()

    def close(self) -> None:
        """Takes the bar away, whether or not all is done."""
        if self._total > 0:
            self._sink.finish()
            self._total = self._shown = 0

    def _advance(self, shown: int) -> None:
        if shown > self._shown:
            self._sink.advance(shown - self._shown)
            self._shown = shown


def sum_up(told: dict[int, Told], done: set[int], n_parts: int) -> tuple[float, float]:
    """What is done of all parts, and of how much."""
    totals = {number: total for number, (_, total) in told.items() if total > 0}
    if not totals:
        return 0.0, 0.0
    mean = sum(totals.values()) / len(totals)
    reached = total = 0.0
    for number in range(1, n_parts + 1):
        its = totals.get(number, mean)
        total += its
        reached += its if number in done else min(told.get(number, (0, 0))[0], its)
    return reached, total
