"""LoRA adapters as tasks: by PEFT against its own merge, in kohya's and diffusers' layouts, and edits written as adapters."""

import copy
import os

import models
import torch
from case import Wrong, arithmetic, case, refused, said, same, state, tuned, write_json
from safetensors.torch import load_file, save_file

PEFT = ("transformers", "peft")
# PEFT merges in f32, module by module; `tvb` rounds once.
MERGED = 5e-6


def whole(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def adapter(model, seed, folder, **config):
    """An adapter with random factors, saved by PEFT; answers the model that PEFT merges it into."""
    import peft

    torch.manual_seed(seed)
    made = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**{"r": 4, "lora_alpha": 16, **config}))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.requires_grad:
                size = 0.02 if "modules_to_save" in name or "bias" in name else 0.1
                if "magnitude" in name:
                    parameter *= 1 + 0.1 * torch.randn(parameter.shape)
                else:
                    parameter += size * torch.randn(parameter.shape)
    made.eval().save_pretrained(folder)
    merged = made.merge_and_unload()
    # Names as they are in files, which transformers changes for some models.
    merged.save_pretrained(folder + "-merged")
    return state(folder + "-merged")


def lora(title, kind, expected="same as merge_and_unload", bias=False, words=(), **configs):
    """Two adapters of PEFT added to a base folder, and one more full fine-tune where `full`."""

    @case(title, "PEFT save_pretrained", expected, PEFT)
    def body(place):
        base = models.make(kind)
        base.save_pretrained(place("base"))
        tunes = [adapter(base, seed, place(f"runs/{name}"), **configs) for seed, name in ((1, "cars"), (2, "mnist"))]
        run = place.tvb("add", "--base", "base", "--scale", "0.5", "-o", "out", "--from-checkpoints", "runs/cars", "runs/mnist")
        if run.code in (2, 3) and "refused" in expected:
            return refused(run, *words)
        found = place.added("base", ["runs/cars", "runs/mnist"], out="again")
        return same(found, arithmetic(state(place("base")), tunes), MERGED)


lora("LoRA, linear (Llama q_proj, v_proj)", "LlamaForCausalLM", target_modules=["q_proj", "v_proj"])
lora("LoRA, every linear", "LlamaForCausalLM", target_modules="all-linear")
lora("rank_pattern, alpha_pattern", "LlamaForCausalLM", target_modules=["q_proj", "v_proj", "up_proj"],
     rank_pattern={"q_proj": 8, "layers.1.self_attn.v_proj": 2}, alpha_pattern={"v_proj": 3, "layers.0.mlp.up_proj": 5})
lora("rslora (alpha/√r)", "LlamaForCausalLM", target_modules=["q_proj", "v_proj"], use_rslora=True)
lora("Conv1D of GPT-2 (fan_in_fan_out)", "GPT2LMHeadModel", target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
lora("embeddings (lora_embedding_A)", "LlamaForCausalLM", target_modules=["embed_tokens", "q_proj"])
lora("tied embedding of GPT-2", "GPT2LMHeadModel", "same as merge_and_unload, or refused", words=("wte",), target_modules=["wte"])
lora("a classification head in modules_to_save", "BertForSequenceClassification", target_modules=["query", "value"], modules_to_save=["classifier"])
lora("trained biases (bias='lora_only')", "BertForSequenceClassification", target_modules=["query", "value"], bias="lora_only")
lora("convolutions (ViT)", "ViTForImageClassification", target_modules=["projection"])
lora("modules that transformers 5 calls otherwise in files (ViT)", "ViTForImageClassification", "same as merge_and_unload, or refused, the module named",
     words=("q_proj",), target_modules=["q_proj", "query"])
lora("experts' own linear layers, gate (Mixtral)", "MixtralForCausalLM", "same as merge_and_unload, or refused", words=("lora",), target_modules=["q_proj", "o_proj"])
lora("DoRA", "LlamaForCausalLM", "same as merge_and_unload, or refused, named DoRA", words=("dora",), target_modules=["q_proj", "v_proj"], use_dora=True)
lora("layers_to_transform", "LlamaForCausalLM", target_modules=["q_proj"], layers_to_transform=[1])
lora("a regular expression for target_modules", "LlamaForCausalLM", target_modules=r".*layers\.0.*(q_proj|down_proj)")
lora("trainable tokens (trainable_token_indices)", "LlamaForCausalLM", "same as merge_and_unload, or refused", words=("token",), target_modules=["q_proj"], trainable_token_indices=[3, 7])


@case("an adapter and a full fine-tune together", "PEFT and transformers", "same", PEFT)
def _(place):
    base = models.make("LlamaForCausalLM")
    base.save_pretrained(place("base"))
    one = adapter(base, 1, place("lora"), target_modules=["q_proj", "v_proj"])
    full = tuned(base, 2)
    full.save_pretrained(place("full"))
    return same(place.added("base", ["lora", "full"]), arithmetic(state(place("base")), [one, state(place("full"))]), MERGED)


@case("adapters in a coded basis (4 bits), each recovered", "PEFT save_pretrained", "within the error that compress states", PEFT)
def _(place):
    base = models.make("LlamaForCausalLM")
    base.save_pretrained(place("base"))
    tunes = [adapter(base, seed, place(f"t{seed}"), target_modules="all-linear") for seed in (1, 2, 3)]
    import json

    basis = json.loads(place.ok("compress", "--base", "base", "t1", "t2", "t3", "--bits", "4", "-o", "basis", "--json").out)
    place.ok("recover", "basis", "-o", "out")
    worst = 0.0
    for tune, task in zip(tunes, basis["tasks"]):
        found = load_file(place("out", task["name"] + ".safetensors"))
        exact = {name: tune[name].double() - value.double() for name, value in state(place("base")).items()}
        norm = sum(value.pow(2).sum() for value in exact.values())
        off = sum((found[name].double() - exact[name]).pow(2).sum() if name in found else exact[name].pow(2).sum() for name in exact)
        error, stated = (off / norm).item(), task["relative_error"] or 0.0
        worst = max(worst, error)
        if abs(error - stated) > 0.2 * stated + 1e-6:
            raise Wrong(f"{task['name']}: error {error:.2e}, {stated:.2e} stated")
        if abs(task["norm"] / norm.sqrt().item() - 1) > 1e-4:
            raise Wrong(f"{task['name']}: norm {task['norm']:.4f} in place of {norm.sqrt():.4f}")
    return f"errors as stated, at most {worst:.1e}"


@case("the weights of an adapter without its adapter_config.json", "PEFT save_pretrained", "refused: the scale is not known", PEFT)
def _(place):
    base = models.make("LlamaForCausalLM")
    base.save_pretrained(place("base"))
    adapter(base, 1, place("lora"), target_modules=["q_proj"])
    os.rename(place("lora", "adapter_model.safetensors"), place("lone.safetensors"))
    return refused(place.add("base", ["lone.safetensors"]), "adapter_config.json")


@case("an adapter of another base (a module that is not there)", "PEFT save_pretrained", "refused, the module named", PEFT)
def _(place):
    models.make("BertForSequenceClassification").save_pretrained(place("base"))
    adapter(models.make("LlamaForCausalLM"), 1, place("lora"), target_modules=["q_proj"])
    return refused(place.add("base", ["lora"]), "q_proj")


@case("a checkpoint-2 of a Trainer run that trains an adapter", "transformers Trainer with PEFT", "same as merge_and_unload", PEFT + ("accelerate",))
def _(place):
    import peft
    import transformers

    base = models.make("BertForSequenceClassification")
    base.save_pretrained(place("base"))
    made = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"]))
    rows = [{"input_ids": torch.randint(1, 99, (8,)), "labels": torch.tensor(index % 2)} for index in range(8)]
    arguments = transformers.TrainingArguments(place("runs/cars"), max_steps=2, save_steps=1, learning_rate=0.05, report_to=[], use_cpu=True, disable_tqdm=True)
    transformers.Trainer(made, arguments, train_dataset=rows).train()
    tune = whole(made.eval().merge_and_unload())
    found = place.added("base", ["runs/cars/checkpoint-2"])
    right = arithmetic(whole(base), [tune])
    return same(found, {name: right[name] for name in found}, MERGED)


@case("kohya's layout (lora_unet_…, lora_down, lora_up, alpha) on a UNet", "imitated; the UNet by diffusers", "same as B·A", ("diffusers",))
def _(place):
    import pipelines

    unet = pipelines.unet()
    unet.save_pretrained(place("unet"))
    tunes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        file, tune = {}, whole(unet)
        for name, module in unet.named_modules():
            if not (name.endswith(("to_q", "to_out.0", "conv1"))):
                continue
            weight = module.weight
            down = torch.randn(4, *weight.shape[1:]) * 0.1
            up = torch.randn(weight.shape[0], 4, *([1, 1] if weight.dim() == 4 else [])) * 0.1
            key = "lora_unet_" + name.replace(".", "_")
            file.update({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(2.0)})
            tune[name + ".weight"] = weight.detach() + 2.0 / 4 * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
        save_file(file, place(f"style{seed}.safetensors"))
        tunes.append(tune)
    return same(place.added("unet", ["style1.safetensors", "style2.safetensors"]), arithmetic(whole(unet), tunes), MERGED)


@case("save_lora_weights on a UNet", "diffusers with PEFT", "same as fuse_lora", ("diffusers", "peft"))
def _(place):
    import peft
    import pipelines
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers

    unet = pipelines.unet()
    unet.save_pretrained(place("unet"))
    tunes, names = [], []
    for seed in (1, 2):
        trained = copy.deepcopy(unet)
        torch.manual_seed(seed)
        trained.add_adapter(peft.LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_v"]))
        with torch.no_grad():
            for name, parameter in trained.named_parameters():
                if "lora_" in name:
                    parameter += 0.1 * torch.randn(parameter.shape)
        layers = convert_state_dict_to_diffusers(peft.utils.get_peft_model_state_dict(trained))
        StableDiffusionPipeline.save_lora_weights(place(f"style{seed}"), unet_lora_layers=layers)
        trained.fuse_lora()
        trained.unload_lora()
        tunes.append(whole(trained))
        names.append(f"s{seed}=style{seed}/pytorch_lora_weights.safetensors")
    return same(place.added("unet", names), arithmetic(whole(unet), tunes), MERGED)


def edit_as_adapter(title, kind, keep, tolerance=1e-5, **config):
    @case(title, "PEFT loads what tvb wrote", "same as dense arithmetic to 1e-5", PEFT)
    def body(place):
        import peft

        base = models.make(kind)
        base.save_pretrained(place("base"))
        tunes = [adapter(base, seed, place(f"t{seed}"), **config) for seed in (1, 2)]
        place.ok("apply", "t1 - 0.5*t2", "--base", "base", "--lora-out", "edit", *keep, "--from-checkpoints", "t1", "t2")
        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), place("edit")).eval().merge_and_unload()
        loaded.save_pretrained(place("loaded"))
        right = {
            name: (value.double() + (tunes[0][name].double() - value.double()) - 0.5 * (tunes[1][name].double() - value.double())).to(value.dtype)
            for name, value in state(place("base")).items()
        }
        return same(state(place("loaded")), right, tolerance)


edit_as_adapter("--lora-out, rank 8 of two of rank 4 (exact)", "LlamaForCausalLM", ["--rank", "8"], target_modules=["q_proj", "v_proj"])
edit_as_adapter("--lora-out --energy 1 (exact)", "LlamaForCausalLM", ["--energy", "1"], target_modules=["q_proj", "down_proj"])
edit_as_adapter("--lora-out with Conv1D", "GPT2LMHeadModel", ["--rank", "8"], target_modules=["c_attn"], fan_in_fan_out=True)
edit_as_adapter("--lora-out with convolutions", "ViTForImageClassification", ["--rank", "8"], target_modules=["projection"])
edit_as_adapter("--lora-out with embeddings", "LlamaForCausalLM", ["--rank", "8"], target_modules=["embed_tokens", "q_proj"])


@case("--lora-out, cut at rank 2: the error that is said", "PEFT loads what tvb wrote", "the best of rank 2, error as said", PEFT)
def _(place):
    import json

    import peft

    base = models.make("LlamaForCausalLM")
    base.save_pretrained(place("base"))
    tunes = [adapter(base, seed, place(f"t{seed}"), target_modules=["q_proj"]) for seed in (1, 2)]
    run = place.ok("apply", "t1 - t2", "--base", "base", "--lora-out", "edit", "--rank", "2", "--json", "--from-checkpoints", "t1", "t2")
    peft.PeftModel.from_pretrained(copy.deepcopy(base), place("edit")).eval().merge_and_unload().save_pretrained(place("loaded"))
    loaded = state(place("loaded"))
    off = total = best = 0.0
    for name, value in state(place("base")).items():
        exact = tunes[0][name].double() - tunes[1][name].double()
        off += (loaded[name].double() - value.double() - exact).pow(2).sum().item()
        total += exact.pow(2).sum().item()
        if exact.dim() == 2 and exact.abs().max() > 1e-4:
            best += torch.linalg.svdvals(exact)[2:].pow(2).sum().item()
    if off > best * 1.001 + 1e-9:
        raise Wrong(f"error {off / total:.4f}, the best of rank 2 has {best / total:.4f}")
    text = run.out + run.err
    numbers = [f"{off / total:.{n}f}" for n in (2, 3, 4)] + [f"{1 - off / total:.{n}f}" for n in (2, 3, 4)]
    root = (off / total) ** 0.5
    numbers += [f"{root:.{n}f}" for n in (2, 3, 4)]
    if not any(number in text for number in numbers):
        raise Wrong(f"error {off / total:.4f} is not in what was said")
    return f"error {off / total:.4f}, the best"


@case("--lora-out: heads, biases, signed weights, cuts, bf16", "PEFT loads what tvb wrote", "dense arithmetic and truncated SVDs of PyTorch", PEFT)
def _(place):
    """`lora.py` has each of them on five models."""
    import subprocess
    import sys

    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lora.py")
    done = subprocess.run([sys.executable, script, place.program, place("models")], capture_output=True, text=True)
    wrong = [line for line in done.stdout.splitlines() if line.startswith("WRONG")]
    if done.returncode != 0:
        raise Wrong((wrong or done.stderr.strip().splitlines() or ["no answer"])[0])
    return done.stdout.strip().splitlines()[-1]
