"""Files that hold something else than plain float weights: each is refused by name."""

import os
import struct

import torch
from case import Wrong, case, refused, small_net, tuned
from safetensors.torch import save_file


def base_of(place, state):
    save_file(state, place("base.safetensors"))
    return "base.safetensors"


def linear(seed=0):
    torch.manual_seed(seed)
    return {"layer.weight": torch.randn(32, 64), "layer.bias": torch.randn(32), "norm.weight": torch.randn(64)}


def quantized(title, writer, make, *words):
    """A quantized fine-tune, against a float base and against a base that is quantized alike."""
    _quantized(title, writer, linear, make, words)
    _quantized(title + ", on both sides", writer, lambda: make(linear()), make, words)


def _quantized(title, writer, base, make, words):
    @case(title, writer, f"refused, named {words[0]}")
    def body(place):
        base_of(place, base())
        save_file(make(linear(1)), place("tune.safetensors"))
        return refused(place.add("base.safetensors", ["tune.safetensors"]), *words)


def fp8(state):
    return {**state, "layer.weight": state["layer.weight"].to(torch.float8_e4m3fn), "layer.weight_scale": torch.ones(1)}


def gptq(state):
    state = dict(state)
    state.pop("layer.weight")
    return {**state, "layer.qweight": torch.zeros(8, 32, dtype=torch.int32), "layer.qzeros": torch.zeros(1, 4, dtype=torch.int32),
            "layer.scales": torch.ones(1, 32).half(), "layer.g_idx": torch.zeros(64, dtype=torch.int32)}


def bitsandbytes(state):
    return {**state, "layer.weight": torch.zeros(1024, 1, dtype=torch.uint8), "layer.weight.absmax": torch.ones(32),
            "layer.weight.quant_map": torch.linspace(-1, 1, 16), "layer.weight.quant_state.bitsandbytes__nf4": torch.zeros(80, dtype=torch.uint8)}


def int8(state):
    return {**state, "layer.weight": torch.zeros(32, 64, dtype=torch.int8), "layer.SCB": torch.ones(32)}


quantized("fp8 weights", "safetensors", fp8, "layer.weight", "fp8", "float")
quantized("GPTQ / AWQ (qweight, qzeros)", "imitated", gptq, "qweight", "float")
quantized("bitsandbytes 4 bit (quant_state)", "imitated", bitsandbytes, "bitsandbytes", "float")
quantized("bitsandbytes 8 bit (SCB)", "imitated", int8, "layer.weight", "float")


@case("fp8 in a .pt", "torch.save", "refused")
def _(place):
    base_of(place, linear())
    torch.save(fp8(linear(1)), place("tune.pt"))
    return refused(place.add("base.safetensors", ["tune.pt"]), "layer.weight", "float")


@case("complex tensors", "torch.save", "refused by name")
def _(place):
    state = {**linear(), "freqs": torch.randn(4, dtype=torch.complex64)}
    torch.save(state, place("base.pt"))
    torch.save({**linear(1), "freqs": torch.randn(4, dtype=torch.complex64)}, place("tune.pt"))
    return refused(place.add("base.pt", ["tune.pt"]), "freqs", "complex")


@case("a GGUF file", "its magic", "refused, named GGUF")
def _(place):
    base_of(place, linear())
    with open(place("tune.gguf"), "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    os.rename(place("tune.gguf"), place("tune.bin"))
    return refused(place.add("base.safetensors", ["tune.bin"]), "GGUF")


@case("LoRA files as plain tensors, a zero adapter as base", "safetensors", "refused: A and B are never added apart")
def _(place):
    torch.manual_seed(0)
    shapes = {"base_model.model.q_proj.lora_A.weight": (4, 32), "base_model.model.q_proj.lora_B.weight": (32, 4)}
    base_of(place, {name: torch.zeros(shape) for name, shape in shapes.items()})
    for index in (0, 1):
        save_file({name: torch.randn(shape) for name, shape in shapes.items()}, place(f"tune{index}.safetensors"))
    return refused(place.add("base.safetensors", ["tune0.safetensors", "tune1.safetensors"]), "lora")


@case("a folder with weights of TensorFlow alone", "by hand", "refused")
def _(place):
    base_of(place, linear())
    with open(os.path.join(place.make("tune"), "tf_model.h5"), "wb") as file:
        file.write(b"\x89HDF\r\n\x1a\n" + bytes(64))
    return refused(place.add("base.safetensors", ["tune"]), "tune")


@case("a sharded folder with a shard missing", "by hand", "refused, the file named")
def _(place):
    base_of(place, linear())
    with open(os.path.join(place.make("tune"), "model.safetensors.index.json"), "w") as file:
        file.write('{"weight_map": {"layer.weight": "model-00001-of-00002.safetensors"}}')
    return refused(place.add("base.safetensors", ["tune"]), "model-00001-of-00002.safetensors")


@case("a checkpoint in place of a basis", "torch.save", "refused, with the hint --from-checkpoints")
def _(place):
    net = small_net()
    for name, model in (("base", net), ("a", tuned(net, 1)), ("b", tuned(net, 2))):
        torch.save(model.state_dict(), place(name + ".pt"))
    for words in (["add", "a.pt"], ["add", "a.pt", "b.pt"], ["apply", "a.pt", "b.pt", "a+b"], ["negate", "a.pt", "a"]):
        found = refused(place.tvb(*words, "--base", "base.pt", "-o", "out"), "--from-checkpoints")
    return found


@case("a far edit from a basis of mixtures", "torch.save", "done, with a warning; no line on both streams")
def _(place):
    net = small_net()
    names = [f"t{index}.pt" for index in range(6)]
    for seed, name in enumerate(["base.pt", *names]):
        torch.save(tuned(net, seed).state_dict() if seed else net.state_dict(), place(name))
    place.ok("compress", "--base", "base.pt", *names, "-m", "2", "-o", "basis")
    run = place.ok("negate", "basis", "t0", "--base", "base.pt", "-o", "out.safetensors")
    twice = set(run.out.splitlines()) & set(run.err.splitlines())
    if twice or "warning:" not in run.err:
        raise Wrong(f"on both streams: {twice}" if twice else "no warning")
    return "warned"
