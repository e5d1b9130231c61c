"""The Python half of `cargo xtask interop`: `write` makes checkpoints with real PyTorch, `check` reads what tvb made.

    python interop.py write|check FIXTURES WORK
"""

import json
import os
import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

ACTION, FIXTURES, WORK = sys.argv[1:]
METADATA = {"format": "pt", "note": "kept as it is"}
CHECKED = []


def work(*names):
    return os.path.join(WORK, *names)


def load(*names):
    return torch.load(work(*names), weights_only=True)


def checked(what, right):
    print(("ok      " if right else "WRONG   ") + what)
    CHECKED.append(right)


def same(found, expected, tolerance=0.0):
    """Two state dicts: names, shapes and types alike, values to `tolerance` of the largest."""
    if list(sorted(found)) != list(sorted(expected)):
        return False
    for name, value in expected.items():
        other = found[name]
        if other.shape != value.shape or other.dtype != value.dtype:
            return False
        off = (other.double() - value.double()).abs()
        if off.numel() and off.max() > tolerance * max(value.double().abs().max().item(), 1e-30):
            return False
    return True


def model(seed):
    """A base of every kind of tensor (seed 0), or a fine-tune of it: one tensor stays as it is."""
    torch.manual_seed(0)
    state = {
        "embed.weight": torch.randn(50, 16),
        "frozen.weight": torch.randn(7, 3),
        "block.weight": torch.randn(300, 70).bfloat16(),
        "block.bias": torch.randn(300).half(),
        "head.weight": torch.randn(5, 16, dtype=torch.float64),
        "scale": torch.tensor(4.6),
        "steps": torch.tensor([3, 4]),
        "mask": torch.tensor([True, False]),
    }
    torch.manual_seed(seed)
    for name, value in state.items():
        if seed and value.is_floating_point() and not name.startswith("frozen"):
            state[name] = (value.double() + 0.1 * torch.randn(value.shape, dtype=torch.float64)).to(value.dtype)
    return state


def write():
    base = model(0)
    torch.save(base, work("base.pt"))
    for seed, name in enumerate("abc", 1):
        torch.save(model(seed), work(name + ".pt"))
    os.makedirs(work("base"))
    save_file(base, work("base", "model.safetensors"), metadata=METADATA)
    with open(work("base", "config.json"), "w") as file:
        json.dump({"model_type": "made-up", "torch_dtype": "float32"}, file)
    os.makedirs(work("sharded"))
    names = list(base)
    index = {"metadata": {"total_size": sum(v.numel() * v.element_size() for v in base.values())}, "weight_map": {}}
    for number, part in enumerate((names[:3], names[3:]), 1):
        shard = f"model-{number:05}-of-00002.safetensors"
        save_file({name: base[name] for name in part}, work("sharded", shard), metadata=METADATA)
        index["weight_map"].update({name: shard for name in part})
    with open(work("sharded", "model.safetensors.index.json"), "w") as file:
        json.dump(index, file)


def atoms(folder):
    names = sorted(name for name in os.listdir(folder) if name.startswith("atom-"))
    return [load_file(os.path.join(folder, name)) for name in names]


def add(vectors, weights):
    return {name: sum(float(w) * v[name] for w, v in zip(weights, vectors)) for name in vectors[0]}


def recover(folder):
    """What the reference's loader does with a folder: W over the vectors, or for PCA the mean and the coefficients."""
    vectors = load(folder, "basis_vectors.pt")["basis_vectors"]
    info = json.load(open(work(folder, "method_info.json")))
    if info["method"] == "PCABasisMethod":
        pca = load(folder, "pca_components.pt")
        assert pca["total_dim"] == pca["mean_vector"].numel() and pca["M_actual"] == len(vectors)
        # The loader flattens the vectors by their own order of names and never asks whether it is the mean's.
        assert all(list(vector) == pca["keys_order"] for vector in vectors)
        mean, at = {}, 0
        for name in pca["keys_order"]:
            shape = pca["param_shapes"][name]
            assert isinstance(shape, torch.Size)
            mean[name] = pca["mean_vector"][at:at + shape.numel()].reshape(shape)
            at += shape.numel()
        assert at == pca["total_dim"]
        return [add([mean] + vectors, [1.0] + column.tolist()) for column in pca["coefficients"].t()]
    awb = load(folder, "AWB.pt")
    meta = awb["metadata"]
    assert meta == info and meta["softmax_w"] is False and meta["M"] == len(vectors)
    for key in ("steps", "lr", "tau_init", "weight_decay", "grad_clip", "batch_cols", "device", "seed", "anneal_every"):
        assert key in meta
    assert awb["A"].shape == awb["B"].shape == awb["W"].t().shape
    return [add(vectors, column) for column in awb["W"].t()]


def check_bases():
    for method in ("AE", "PCA", "Random", "RandomSample"):
        path = os.path.join(FIXTURES, "published", f"ViT-tiny_{method}_M4_8task", "basis_vectors.pt")
        published = torch.load(path, weights_only=True)["basis_vectors"]
        imported = atoms(work("imported", method))
        checked(f"{method}: imported atoms have the published bits",
                all(same(a, b) for a, b in zip(imported, published)) and len(imported) == 4 + (method == "PCA"))
    for method in ("AE", "PCA", "Random", "RandomSample", "anchored", "pca"):
        folder = os.path.join("exported", method)
        data = load(folder, "basis_vectors.pt")
        vectors = data["basis_vectors"]
        checked(f"{method}: exported vectors load", data["num_basis"] == len(vectors) and isinstance(data["method"], str))
        ours = load_file(work("sums", method + ".safetensors"))
        total = {name: value for name, value in add(vectors, [1.0] * len(vectors)).items() if name in ours}
        checked(f"{method}: the sum of the vectors is `tvb add --rule sum`", same(total, ours, 1e-6))
        names = json.load(open(work(folder, "method_info.json")))["datasets"]
        for name, vector in zip(names, recover(folder)):
            ours = load_file(work("recovered", method, name + ".safetensors"))
            vector = {key: value for key, value in vector.items() if key in ours}
            checked(f"{method}: {name} as the loader recovers it", same(vector, ours, 1e-5))
    for method in ("anchored", "pca"):
        vectors = load("exported", method, "basis_vectors.pt")["basis_vectors"]
        floats = {name for name, value in model(0).items() if value.is_floating_point()}
        checked(f"{method}: every float tensor of the model is there, frozen ones as zeros",
                all(set(v) == floats and not v["frozen.weight"].any() for v in vectors))


def check_edits():
    base, tuned = model(0), [model(seed) for seed in (1, 2, 3)]
    for folder in ("base", "sharded"):
        loaded = {}
        shards = sorted(name for name in os.listdir(work(folder)) if name.endswith(".safetensors"))
        for shard in shards:
            with safe_open(work("edited", folder, shard), "pt") as new, safe_open(work(folder, shard), "pt") as old:
                checked(f"edited {folder}/{shard}: names, metadata", set(new.keys()) == set(old.keys()) and new.metadata() == old.metadata())
                loaded.update({name: new.get_tensor(name) for name in new.keys()})
        right = set(loaded) == set(base)
        for name, value in base.items():
            right &= loaded[name].shape == value.shape and loaded[name].dtype == value.dtype
            if value.is_floating_point():
                exact = value.double() + 0.5 * sum(t[name].double() - value.double() for t in tuned)
                step = {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(value.dtype, 1e-6)
                right &= bool(((loaded[name].double() - exact).abs() <= step * exact.abs() + 1e-6).all())
            else:
                right &= torch.equal(loaded[name], value)
        checked(f"edited {folder}: shapes, types and values", right)
        checked(f"edited {folder}: its state dict for torch.load has the same bits", same(load("edited", folder + ".pt"), loaded))
    checked("a recovered checkpoint as a state dict", same(load("whole", "a.pt"), load_file(work("whole", "a.safetensors"))))
    checked("a recovered checkpoint has the base's tensors",
            {n: (v.dtype, v.shape) for n, v in load("whole", "a.pt").items()} == {n: (v.dtype, v.shape) for n, v in base.items()})


if ACTION == "write":
    write()
else:
    check_bases()
    check_edits()
    print(f"{sum(CHECKED)} of {len(CHECKED)} right; torch {torch.__version__}")
    sys.exit(0 if all(CHECKED) else 1)
