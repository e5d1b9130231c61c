"""Makes a base and many LoRA adapters of it, for measurements: `make_adapters.py FOLDER N_ADAPTERS [RANK [LAYERS [SIDE]]]`.

The adapters are made up: random factors around a few directions that they share, in bf16, in PEFT's layout. Needs numpy.
"""

import json
import sys
from pathlib import Path

import numpy as np

folder = Path(sys.argv[1])
n_adapters, rank, n_layers, side = (int(text) for text in (sys.argv[2:] + ["8", "2", "4096"][len(sys.argv) - 3 :])[:4])
modules = [f"model.layers.{n}.self_attn.{name}_proj" for n in range(n_layers) for name in "qkvo"]


def bf16(values):
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()


def write(path, tensors):
    header, at = {}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, data in tensors.values():
            file.write(data)


random = np.random.default_rng(1)
folder.mkdir(parents=True)
numbers = lambda *shape: random.standard_normal(shape, dtype=np.float32)
write(folder / "base.safetensors", {f"{name}.weight": ([side, side], bf16(0.02 * numbers(side, side))) for name in modules})
shared = {name: (numbers(side, 24), numbers(24, side)) for name in modules}
for n in range(n_adapters):
    tensors = {}
    for name, (left, right) in shared.items():
        b = left @ numbers(24, rank) / 5 + 0.3 * numbers(side, rank)
        a = numbers(rank, 24) @ right / 5 + 0.3 * numbers(rank, side)
        tensors[f"base_model.model.{name}.lora_A.weight"] = ([rank, side], bf16(0.02 * a))
        tensors[f"base_model.model.{name}.lora_B.weight"] = ([side, rank], bf16(0.002 * b))
    own = folder / f"a{n:04d}"
    own.mkdir()
    write(own / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    (own / "adapter_config.json").write_text(json.dumps(config))
