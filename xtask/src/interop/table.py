"""The table of `cargo xtask interop`: every case with what was found and what was expected.

    python table.py TVB WORK [--only REGEX] [--against FILE]

`WORK/table.md` is the table, `WORK/table.json` the same for `--against`, which adds what another `tvb` did: a column "before".
"""

import argparse
import importlib
import json
import logging
import os
import re
import subprocess
import sys
import time
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", TOKENIZERS_PARALLELISM="false",
                  TRANSFORMERS_VERBOSITY="error", DIFFUSERS_VERBOSITY="error")
warnings.filterwarnings("ignore")

from case import CASES, Place, Wrong

MODULES = ("from_transformers", "from_torch", "adapters", "pipelines", "refusals", "cards")


def cell(text):
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|")[:220]


def run(each, place):
    """What was found, and whether it is right; None where a library is missing."""
    missing = each.missing()
    if missing:
        return f"skipped: no {', '.join(missing)} here", None
    try:
        return each.body(place), True
    except Wrong as wrong:
        return str(wrong), False
    except subprocess.TimeoutExpired:
        return "tvb did not end", False
    except Exception as error:  # A loader that does not take what was written; a library that changed.
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200], False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tvb")
    parser.add_argument("work")
    parser.add_argument("--only", default="")
    parser.add_argument("--against")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    for name in MODULES:
        importlib.import_module(name)
    try:
        import transformers

        transformers.utils.logging.disable_progress_bar()
    except ImportError:
        pass
    before = json.load(open(arguments.against)) if arguments.against else {}
    os.makedirs(arguments.work, exist_ok=True)
    rows, results, module = [], {}, None
    for index, each in enumerate(CASES):
        if not re.search(arguments.only, each.title + " " + each.body.__module__):
            continue
        started, place = time.time(), Place(os.path.abspath(os.path.join(arguments.work, "cases", f"{index:03}")), os.path.abspath(arguments.tvb))
        found, right = run(each, place)
        word = {True: "ok", False: "WRONG", None: "-"}[right]
        print(f"{word:<6} {each.title}: {found}  [{time.time() - started:.1f} s]", flush=True)
        if right is False:
            print("       " + "\n       ".join(["cd " + place.folder, *place.log]), flush=True)
        results[each.title] = {"found": found, "ok": right}
        earlier = before.get(each.title, {})
        row = [each.title, each.writer, each.expected]
        if before:
            row.append(("" if earlier.get("ok", True) is not False else "**wrong**: ") + earlier.get("found", "-"))
        rows.append([*row, ("" if right is not False else "**wrong**: ") + found])
    heads = ["case", "written by", "expected", *(["before"] if before else []), "found"]
    lines = [heads, ["---"] * len(heads), *rows]
    n_wrong = sum(result["ok"] is False for result in results.values())
    n_skipped = sum(result["ok"] is None for result in results.values())
    summary = f"{len(results) - n_wrong - n_skipped} right, {n_wrong} wrong, {n_skipped} skipped of {len(results)} cases"
    with open(os.path.join(arguments.work, "table.md"), "w") as file:
        file.write("\n".join("| " + " | ".join(cell(text) for text in line) + " |" for line in lines) + f"\n\n{summary}\n")
    with open(os.path.join(arguments.work, "table.json"), "w") as file:
        json.dump(results, file, indent=1)
    print(summary)
    sys.exit(1 if n_wrong else 0)


if __name__ == "__main__":
    main()
