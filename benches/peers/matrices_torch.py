"""A merge by matrix in plain PyTorch, streamed tensor by tensor: METHOD BASE OUT TASK...

METHOD is tsv_m, iso_c or iso_cts, as `cargo xtask interop` compares them. Files are memory-mapped by safetensors and never held
as a whole, except the output, which `save_file` wants at once.
"""

import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "xtask/src/interop"))
import matrices  # noqa: E402

if __name__ == "__main__":
    method, base_path, out, *task_paths = sys.argv[1:]
    merge = {"tsv_m": matrices.tsv_m, "iso_c": matrices.iso_c, "iso_cts": matrices.iso_cts}[method]
    base = safe_open(base_path, "pt")
    files = [safe_open(path, "pt") for path in task_paths]
    merged = {}
    with torch.inference_mode():
        for name in base.keys():
            start = base.get_tensor(name)
            deltas = [file.get_tensor(name).float() - start.float() for file in files]
            merged[name] = (start.float() + merge(deltas)).to(start.dtype).contiguous()
    save_file(merged, f"{out}/merged.safetensors", metadata={"format": "pt"})
