"""`python -m tvb.ray compress|gram`: a job on a Ray cluster from the shell, with the flags and exit codes of the command `tvb`."""

from __future__ import annotations

import argparse
import inspect
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tvb
import tvb.ray

#: What the driver itself decides, and what has no form of a flag.
_NOT_FLAGS = frozenset({"base", "tasks", "out", "overwrite", "progress", "part", "into", "threads", "weights", "options"})
#: May be given more than once.
_REPEATED = frozenset({"rename", "keep"})
_SHORT = {"atoms": ["-m"]}
_EXIT_CODES = {tvb.UsageError: 2, tvb.InputError: 3}


def main(words: Sequence[str] | None = None) -> int:
    """Runs one job; answers the exit code: 0, 1 failed, 2 usage, 3 a refused input, 130 Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    given = vars(_parser().parse_args(words))
    job: Callable[..., Any] = given.pop("job")
    given["progress"] = not given.pop("quiet")
    base, tasks, out = given.pop("base"), given.pop("tasks"), given.pop("out")
    try:
        made = job(base, tasks, out, **{name: value for name, value in given.items() if value is not None})
    except tvb.Error as error:
        print(f"error: {error}", file=sys.stderr)
        return next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), 1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(made.path)
    return 0


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m tvb.ray", description="Jobs of tvb in parts on the nodes of a Ray cluster.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, its, job in (("compress", tvb.compress, tvb.ray.compress), ("gram", tvb.gram, tvb.ray.gram)):
        command = commands.add_parser(name, help=(its.__doc__ or "").partition("\n")[0], allow_abbrev=False)
        command.set_defaults(job=job)
        command.add_argument("--base", required=True, help="the base checkpoint")
        command.add_argument("tasks", nargs="+", metavar="[NAME=]PATH", help="fine-tunes of the base")
        command.add_argument("-o", "--output", dest="out", required=True, help="what is written")
        command.add_argument("--address", default="auto", help="the cluster: auto, local, or HOST:PORT (default: auto)")
        command.add_argument("--parts", type=int, default=64, help="into how many parts the job is cut (default: 64)")
        command.add_argument("--num-cpus", type=int, default=1, help="CPUs and threads of each part (default: 1)")
        command.add_argument("--retries", type=int, default=4, help="how often a part whose worker died starts again (default: 4)")
        command.add_argument("--overwrite", action="store_true", help="replace the output")
        command.add_argument("-q", "--quiet", action="store_true", help="no bar")
        _add_flags_of(command, its)
    return top


def _add_flags_of(command: argparse.ArgumentParser, job: Callable[..., Any]) -> None:
    """A flag for each option of the Python function; its value is read by the parser of the command, as ever."""
    for name, parameter in inspect.signature(job).parameters.items():
        if name in _NOT_FLAGS:
            continue
        flags = [*_SHORT.get(name, []), "--" + name.replace("_", "-")]
        help_text = "as in `tvb`"
        if parameter.default is False:
            command.add_argument(*flags, action="store_true", default=None, help=help_text)
        elif name in _REPEATED:
            command.add_argument(*flags, action="append", help=help_text)
        else:
            command.add_argument(*flags, help=help_text)


if __name__ == "__main__":
    sys.exit(main())
