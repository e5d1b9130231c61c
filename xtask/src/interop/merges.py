"""Mergers beside mergekit 0.1.5: the same recipes on the same files, compared element by element.

    merges.py TVB FOLDER

Small Llama models are made with transformers: a base and fine-tunes that differ from it by noise of other sizes in every tensor,
one tensor by none in two of them. Every recipe is run by mergekit, on the CPU in f32, and by `tvb merge`. Deterministic methods must be equal
to 1e-5 of the largest difference from the base; random ones are compared by what they keep. Whole matrices are compared with plain
PyTorch versions of the published algorithms (matrices.py).
"""

import json
import pathlib
import shutil
import subprocess
import sys

import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import matrices

TOLERANCE = 1e-5
NAMES = ["base", "a", "b", "c"]


def make_models(folder: pathlib.Path) -> None:
    """A base and three fine-tunes, in f32."""
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    base = {name: value.clone() for name, value in model.state_dict().items()}
    shared = {name: torch.randn_like(value) for name, value in base.items()}
    for index, name in enumerate(NAMES):
        state = dict(base)
        if index > 0:
            for tensor, value in base.items():
                # Rows differ in size, and one tensor stays as it is.
                size = 0.01 * (0.5 + index) * torch.rand(value.shape[0], *[1] * (value.dim() - 1))
                noise = torch.randn_like(value) + 0.5 * shared[tensor]
                is_still = "layers.2.mlp.up_proj" in tensor and name != "c"
                state[tensor] = value if is_still else value + size * noise
        model.load_state_dict(state)
        model.save_pretrained(folder / name, safe_serialization=True)


def recipes() -> dict[str, dict]:
    """Every deterministic method and form of a parameter, as mergekit's YAML."""

    def models(**parameters):
        one = lambda name: {key: value[name] if isinstance(value, dict) and "a" in value else value for key, value in parameters.items()}
        return [{"model": name, "parameters": one(name)} for name in NAMES[1:]]

    def recipe(method, models, base="base", **parameters):
        made = {"merge_method": method, "models": models, "dtype": "float32"}
        if base:
            made["base_model"] = base
        if parameters:
            made["parameters"] = parameters
        return made

    weights = {"a": 1.0, "b": 0.5, "c": 0.25}
    two = lambda **parameters: [{"model": name, "parameters": parameters} for name in ("a", "b")]
    only = lambda names: [{"model": name} for name in names]
    made = {
        "linear": recipe("linear", models(weight=weights), base=None),
        "linear, not normalized": recipe("linear", models(weight=weights), base=None, normalize=False),
        "task_arithmetic": recipe("task_arithmetic", models(weight=weights)),
        "task_arithmetic, normalize, lambda": recipe("task_arithmetic", models(weight=weights), normalize=True, **{"lambda": 0.7}),
        "slerp": recipe("slerp", only(["base", "a"]), t=0.4),
        "slerp, gradients and filters": recipe(
            "slerp",
            only(["base", "a"]),
            t=[
                {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
                {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
                {"value": 0.5},
            ],
        ),
        "nuslerp": recipe("nuslerp", two(weight=1.0), base=None),
        "nuslerp, base": recipe("nuslerp", [{"model": "a", "parameters": {"weight": 1.0}}, {"model": "b", "parameters": {"weight": 3.0}}]),
        "nuslerp, base, rows": recipe("nuslerp", two(weight=1.0), nuslerp_flatten=False),
        "nuslerp, base, columns": recipe("nuslerp", two(weight=1.0), nuslerp_flatten=False, nuslerp_row_wise=True),
        "multislerp": recipe("multislerp", models(weight=weights), base=None),
        "multislerp, base": recipe("multislerp", models(weight=weights)),
        "karcher": recipe("karcher", only(["a", "b", "c"]), base=None),
        "karcher, base, max_iter": recipe("karcher", only(["a", "b", "c"]), max_iter=3, tol=1e-6),
        "model_stock": recipe("model_stock", only(["a", "b", "c"])),
        "model_stock, filter_wise": recipe("model_stock", only(["a", "b"]), filter_wise=True),
        "ties": recipe("ties", models(weight=1.0, density=0.3)),
        "ties, weights, not normalized, lambda": recipe(
            "ties", models(weight=weights, density={"a": 0.2, "b": 0.5, "c": 0.9}), normalize=False, **{"lambda": 1.5}
        ),
        "ties, gradients and filters": recipe(
            "ties",
            models(
                weight={"a": [0.2, 0.9], "b": 1.0, "c": [{"filter": "mlp", "value": 0.4}, {"value": 1.1}]},
                density={"a": [1.0, 0.3, 0.5], "b": [{"filter": "self_attn", "value": [0.2, 0.6]}, {"value": 0.5}], "c": 0.7},
            ),
        ),
        "ties, rescale": recipe("ties", models(weight=1.0, density=0.4), rescale=True),
        "breadcrumbs": recipe("breadcrumbs", models(weight=weights, density=0.6, gamma=0.05)),
        "breadcrumbs_ties": recipe("breadcrumbs_ties", models(weight=weights, density=0.9, gamma=0.02), rescale=True),
        "sce": recipe("sce", only(["a", "b", "c"]), select_topk=0.3),
        "sce, all": recipe("sce", only(["a", "b", "c"])),
        "dare_ties, density 1": recipe("dare_ties", models(weight=weights, density=1.0)),
        "della_linear, density 1": recipe("della_linear", models(weight=weights, density=1.0), **{"lambda": 0.5}),
    }
    made["ties, slices"] = {
        "merge_method": "ties",
        "base_model": "base",
        "dtype": "float32",
        "slices": [
            {
                "sources": [
                    {"model": name, "layer_range": layers, "parameters": {"weight": weight, "density": density}}
                    for name, weight in (("a", 1.0), ("b", weight_of_b), ("base", 0.0))
                ]
            }
            for layers, weight_of_b, density in (([0, 2], 0.3, 0.4), ([2, 4], 2.0, 0.8))
        ],
    }
    made["out_dtype"] = {**made["ties"], "out_dtype": "bfloat16"}
    return made


def random_recipes() -> dict[str, dict]:
    """Methods whose results are compared by what they keep."""
    made = {}
    for method in ("dare_linear", "dare_ties", "della_linear", "della"):
        for rescale in (True, False):
            parameters = {"weight": 1.0, "density": 0.4} | ({"epsilon": 0.2} if "della" in method else {})
            made[f"{method}, rescale {str(rescale).lower()}"] = {
                "merge_method": method,
                "base_model": "base",
                "dtype": "float32",
                "models": [{"model": "b", "parameters": parameters}],
                "parameters": {"rescale": rescale, "normalize": False},
            }
    return made


def mergekit(recipe: dict, folder: pathlib.Path, out: pathlib.Path) -> dict[str, torch.Tensor]:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    text = json.loads(json.dumps(recipe))

    def absolute(value):
        if isinstance(value, dict):
            return {
                key: str(folder / own) if key in ("model", "base_model") else absolute(own) for key, own in value.items()
            }
        return [absolute(own) for own in value] if isinstance(value, list) else value

    options = MergeOptions(lazy_unpickle=True, low_cpu_memory=True, copy_tokenizer=False, quiet=True, random_seed=3)
    run_merge(MergeConfiguration.model_validate(absolute(text)), str(out), options=options)
    return load(out)


def load(path: pathlib.Path) -> dict[str, torch.Tensor]:
    made = {}
    for file in sorted(path.glob("*.safetensors")):
        made |= load_file(file)
    return made


def ours(tvb: str, recipe: dict, folder: pathlib.Path, out: pathlib.Path, *more: str) -> dict[str, torch.Tensor]:
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([tvb, "-q", "merge", str(path), "-o", str(out), *more], check=True, stdout=subprocess.DEVNULL)
    return load(out)


def compare(expected: dict, found: dict, base: dict) -> float:
    """The largest difference, as a share of the largest difference from the base."""
    if set(expected) != set(found):
        raise SystemExit(f"other tensors: {sorted(set(expected) ^ set(found))}")
    largest = max(float((expected[name].double() - base[name].double()).abs().max()) for name in expected)
    difference = max(float((expected[name].double() - found[name].double()).abs().max()) for name in expected)
    return difference / largest


def shares(model: dict, base: dict, tuned: dict) -> tuple[float, float]:
    """The share of the moved elements that stays, and the length of what stays along the task vector, as a share of it."""
    kept = moved = 0
    product = square = 0.0
    for name, value in model.items():
        delta = tuned[name].double() - base[name].double()
        difference = value.double() - base[name].double()
        moved += int((delta != 0).sum())
        kept += int(((difference != 0) & (delta != 0)).sum())
        product += float((difference * delta).sum())
        square += float((delta * delta).sum())
    return kept / moved, product / square


def check_matrices(tvb: str, folder: pathlib.Path, base: dict, tuned: list[dict]) -> list[tuple[str, float]]:
    """TSV-M, Iso-C and Iso-CTS against plain PyTorch, in f64."""
    rows = []
    for method, merge in (("tsv_m", matrices.tsv_m), ("iso_c", matrices.iso_c), ("iso_cts", matrices.iso_cts)):
        out = folder / "matrices"
        shutil.rmtree(out, ignore_errors=True)
        tasks = [str(folder / name) for name in NAMES[1:]]
        command = [tvb, "-q", "merge", "--method", method, "--base", str(folder / "base"), *tasks, "-o", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        expected = {}
        for name, value in base.items():
            deltas = [own[name].double() - value.double() for own in tuned]
            expected[name] = (value.double() + merge(deltas)).float()
        # Where a task did not move its singular vectors are not determined; PyTorch puts some in, tvb none.
        moved = [name for name in base if all(bool((own[name] != base[name]).any()) for own in tuned)]
        pick = lambda state: {name: state[name] for name in moved}
        rows.append((f"{method} (PyTorch, f64)", compare(pick(expected), pick(load(out)), base)))
    return rows


def main() -> None:
    tvb, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make_models(folder)
    base, tuned = load(folder / "base"), [load(folder / name) for name in NAMES[1:]]
    rows, failed = [], []
    for name, recipe in recipes().items():
        expected = mergekit(recipe, folder, folder / "expected")
        found = ours(tvb, recipe, folder, folder / "found")
        share = compare(expected, found, base)
        # bf16 has 8 bits: the same values, rounded once each.
        tolerance = 0.02 if name == "out_dtype" else TOLERANCE
        rows.append((name, share))
        if not share <= tolerance:
            failed.append(name)
        shutil.rmtree(folder / "expected")
    for name, share in check_matrices(tvb, folder, base, tuned):
        rows.append((name, share))
        if not share <= TOLERANCE:
            failed.append(name)
    width = max(len(name) for name, _ in rows)
    print(f"{'recipe':{width}}  largest difference / largest edit")
    for name, share in rows:
        print(f"{name:{width}}  {share:.1e}{'  FAILED' if name in failed else ''}")
    print(f"{'random':{width}}  kept, along the task vector: mergekit, tvb")
    for name, recipe in random_recipes().items():
        expected = shares(mergekit(recipe, folder, folder / "expected"), base, tuned[1])
        found = shares(ours(tvb, recipe, folder, folder / "found"), base, tuned[1])
        shutil.rmtree(folder / "expected")
        # About 150 000 elements: five standard errors of a share near a half are 0.007, of a sum of squares about twice that.
        is_far = abs(expected[0] - found[0]) > 0.01 or abs(expected[1] / found[1] - 1) > 0.03
        print(f"{name:{width}}  {expected[0]:.4f} {found[0]:.4f}   {expected[1]:.4f} {found[1]:.4f}{'  FAILED' if is_far else ''}")
        failed += [name] if is_far else []
    if failed:
        raise SystemExit(f"{len(failed)} of mergekit's recipes gave something else: {', '.join(failed)}")


if __name__ == "__main__":
    main()
