"""Models of transformers: one file, shards, PyTorch files, Trainer runs, heads, ties, vocabularies."""

import os
import shutil

import models
import torch
from case import Wrong, arithmetic, case, refused, said, same, state, step, tuned, write_json

T = ("transformers",)


def saved(place, name, model, **more):
    model.save_pretrained(place(name), **more)
    return name


def whole(model):
    """The state dict in memory, ties as they are."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def loads_as(place, base, out, expected):
    """`from_pretrained` of what was written is the expected model, with nothing missing and nothing over."""
    return same(whole(models.loaded(type(base), place(out))), expected)


def architecture(name):
    @case(f"{name}: base and two fine-tunes, loaded again", "transformers save_pretrained", needs=T)
    def body(place):
        base = models.make(name)
        tunes = [tuned(base, seed) for seed in (1, 2)]
        saved(place, "base", base)
        names = [saved(place, f"tune{index}", tune) for index, tune in enumerate(tunes)]
        place.added("base", names)
        return loads_as(place, base, "out", arithmetic(whole(base), [whole(tune) for tune in tunes]))


for _name in models.ALL:
    architecture(_name)


@case("tied Llama in bf16, shards on both sides", "transformers save_pretrained", needs=T)
def _(place):
    base = models.make("LlamaForCausalLM", tie_word_embeddings=True).bfloat16()
    tunes = [tuned(base, seed) for seed in (1, 2)]
    saved(place, "base", base, max_shard_size="20KB")
    names = [saved(place, f"tune{index}", tune, max_shard_size="30KB") for index, tune in enumerate(tunes)]
    place.added("base", names)
    if "model.safetensors.index.json" not in os.listdir(place("out")):
        raise Wrong("no index")
    return loads_as(place, base, "out", arithmetic(whole(base), [whole(tune) for tune in tunes]))


@case("pytorch_model.bin folders (as transformers 4 wrote them)", "torch.save of state_dict()", needs=T)
def _(place):
    base = models.make("BertForSequenceClassification")
    tunes = [tuned(base, seed) for seed in (1, 2)]
    for name, model in zip(("base", "tune0", "tune1"), [base, *tunes]):
        model.config.save_pretrained(place.make(name))
        torch.save(model.state_dict(), place(name, "pytorch_model.bin"))
    found = place.added("base", ["tune0", "tune1"])
    return same(found, arithmetic(whole(base), [whole(tune) for tune in tunes]))


def trained(place, run, seed, **more):
    """A run folder of a real Trainer: two steps, a checkpoint each."""
    import transformers

    torch.manual_seed(seed)
    model = models.make("BertForSequenceClassification")
    rows = [{"input_ids": torch.randint(1, 99, (8,)), "labels": torch.tensor(index % 2)} for index in range(8)]
    arguments = transformers.TrainingArguments(
        place(run), max_steps=2, save_steps=1, per_device_train_batch_size=4, report_to=[], learning_rate=1e-2,
        disable_tqdm=True, use_cpu=True, seed=seed, **more,
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


@case("two Trainer runs, checkpoint-2 of each, no names given", "transformers Trainer", "same; tasks are called cars, mnist", T + ("accelerate",))
def _(place):
    base = models.make("BertForSequenceClassification")
    saved(place, "base", base)
    tunes = [trained(place, f"runs/{name}", seed) for seed, name in enumerate(("cars", "mnist"), 1)]
    found = place.added("base", ["runs/cars/checkpoint-2", "runs/mnist/checkpoint-2"])
    said(place.ok("inspect", "out-basis"), "cars", "mnist")
    return same(found, arithmetic(whole(base), tunes))


@case("a Trainer run folder in place of a checkpoint", "transformers Trainer", "refused, its checkpoints named", T + ("accelerate",))
def _(place):
    saved(place, "base", models.make("BertForSequenceClassification"))
    trained(place, "runs/cars", 1)
    return refused(place.add("base", ["runs/cars"]), "checkpoint-1", "checkpoint-2")


@case("optimizer.pt of a Trainer run as a task", "transformers Trainer", "refused", T + ("accelerate",))
def _(place):
    saved(place, "base", models.make("BertForSequenceClassification"))
    trained(place, "runs/cars", 1)
    return refused(place.add("base", ["runs/cars/checkpoint-2/optimizer.pt"]), "optimizer.pt")


@case("headless base (BertModel), fine-tunes with a head", "transformers save_pretrained", "same on the base's tensors; heads said to be left out", T)
def _(place):
    heads = [models.make("BertForSequenceClassification", seed) for seed in (1, 2)]
    base = models.make("BertModel", 0)
    for head in heads:
        head.bert.load_state_dict(tuned(whole(base), id(head) % 1000))
    saved(place, "base", base)
    names = [saved(place, f"tune{index}", head) for index, head in enumerate(heads)]
    found = place.added("base", names)
    expected = arithmetic(state(place("base")), [whole(head.bert) for head in heads])
    said(place.said, "classifier")
    return same(found, expected)


@case("base with a head, headless fine-tunes", "transformers save_pretrained", "same; the head is the base's, said so", T)
def _(place):
    base = models.make("BertForSequenceClassification")
    tunes = [tuned(whole(base.bert), seed) for seed in (1, 2)]
    saved(place, "base", base)
    for index, tune in enumerate(tunes):
        bert = models.make("BertModel")
        bert.load_state_dict(tune)
        saved(place, f"tune{index}", bert)
    run = place.add("base", ["tune0", "tune1"])
    if run.code == 3:
        return refused(run, "classifier")
    named = [{f"bert.{name}": value for name, value in tune.items()} for tune in tunes]
    said(run, "classifier")
    return same(state(place("out")), arithmetic(whole(base), named))


@case("--head-from: the edit carries a task's own head (5 labels, base has 2)", "transformers save_pretrained", "same, with that head's bits", T)
def _(place):
    base = models.make("BertForSequenceClassification")
    plain, other = tuned(base, 1), models.make("BertForSequenceClassification", 3, num_labels=5)
    other.bert.load_state_dict(tuned(whole(base.bert), 4))
    for name, model in (("base", base), ("a", plain), ("b", other)):
        saved(place, name, model)
    run = place.add("base", ["a", "b"], "--head-from", "b", "classifier.*")
    if run.code != 0:
        run = place.add("base", ["a", "b"], "--head-from", "b=classifier.*")
    if run.code != 0:
        raise Wrong(f"exit {run.code}: {run.error()}")
    expected = arithmetic(whole(base), [{n: v for n, v in whole(m).items() if "classifier" not in n} for m in (plain, other)])
    expected.update({n: v for n, v in whole(other).items() if "classifier" in n})
    return same(state(place("out")), expected)


def tie(title, base_ext, tune_ext, expected="same; nothing counted twice, tied tensors equal"):
    """GPT-2 ties its head to its embedding: safetensors leave it out, state dicts in `.pt` have it."""

    @case(title, "transformers, torch.save", expected, T)
    def body(place):
        base = models.make("GPT2LMHeadModel")
        tunes = [tuned(base, seed) for seed in (1, 2)]
        paths = []
        for name, model, form in [("base", base, base_ext), ("tune0", tunes[0], tune_ext[0]), ("tune1", tunes[1], tune_ext[1])]:
            saved(place, name, model)
            if form == "bin":
                os.remove(place(name, "model.safetensors"))
                torch.save(model.state_dict(), place(name, "pytorch_model.bin"))
            if form == "pt":
                torch.save(model.state_dict(), place(name + ".pt"))
                name += ".pt"
            paths.append(name)
        found = place.added(paths[0], paths[1:])
        expected = arithmetic(whole(base), [whole(tune) for tune in tunes])
        head, embedding = "lm_head.weight", "transformer.wte.weight"
        if head in found and not torch.equal(found[head], found[embedding]):
            raise Wrong("tied tensors differ in the output")
        # The squared norm counts the tied tensor once.
        import json

        basis = json.loads(place.ok("inspect", "out-basis", "--json").out)
        unique = sum((tunes[0].get_parameter(n).double() - p.double()).pow(2).sum() for n, p in base.named_parameters()).sqrt().item()
        if abs(basis["tasks"][0]["norm"] / unique - 1) > 1e-5:
            raise Wrong(f"norm {basis['tasks'][0]['norm']:.4f} in place of {unique:.4f}: a tied tensor counts twice")
        return same(found, {name: expected[name] for name in expected if name in found})


tie("tied head: in no file", "safetensors", ("safetensors", "safetensors"))
tie("tied head: in the fine-tunes' .pt, not in the base", "safetensors", ("pt", "pt"))
tie("tied head: in the base's .pt, not in the fine-tunes", "pt", ("safetensors", "safetensors"))
tie("tied head: in the base and one fine-tune of two (.bin folders)", "bin", ("bin", "safetensors"))
tie("tied head: in all files (.pt)", "pt", ("pt", "pt"))


@case("a tied base, a fine-tune whose head was untied and trained apart", "transformers save_pretrained", "refused, or said", T)
def _(place):
    base = models.make("LlamaForCausalLM", tie_word_embeddings=True)
    free = models.make("LlamaForCausalLM", tie_word_embeddings=False)
    free.load_state_dict(tuned(whole(base), 1))
    saved(place, "base", base)
    saved(place, "tune", free)
    run = place.add("base", ["tune"])
    if run.code in (2, 3):
        return refused(run, "lm_head.weight")
    said(run, "lm_head.weight")
    return "said"


def resized(place):
    base = models.make("GPT2LMHeadModel")
    tunes = [tuned(base, seed) for seed in (1, 2)]
    tunes[0].resize_token_embeddings(104, mean_resizing=False)
    saved(place, "base", base)
    for index, tune in enumerate(tunes):
        saved(place, f"tune{index}", tune)
    return base, tunes


@case("an embedding of 104 rows against 99, nothing said about it", "transformers resize_token_embeddings", "refused, with the hint --vocab common", T)
def _(place):
    resized(place)
    return refused(place.add("base", ["tune0", "tune1"]), "wte.weight", "--vocab common")


@case("the same with --vocab common", "transformers resize_token_embeddings", "same in the first 99 rows, said so", T)
def _(place):
    base, tunes = resized(place)
    place.added("base", ["tune0", "tune1"], "--vocab", "common")
    cut = [{n: v[:99] if n.endswith(("wte.weight", "lm_head.weight")) else v for n, v in whole(tune).items()} for tune in tunes]
    said(place.said, "99", "104")
    return loads_as(place, base, "out", arithmetic(whole(base), cut))


@case("--vocab common, the base is the larger one", "transformers resize_token_embeddings", "same; rows the fine-tune lacks are the base's", T)
def _(place):
    base = models.make("GPT2LMHeadModel", vocab_size=104)
    tune = tuned(base, 1)
    tune.resize_token_embeddings(99, mean_resizing=False)
    saved(place, "base", base)
    saved(place, "tune", tune)
    place.added("base", ["tune"], "--vocab", "common")
    padded = whole(tune)
    for name, value in whole(base).items():
        if padded[name].shape != value.shape:
            padded[name] = torch.cat([padded[name], value[len(padded[name]) :]])
    return loads_as(place, base, "out", arithmetic(whole(base), [padded]))


@case("--skip-mismatched that leaves out an embedding", "transformers resize_token_embeddings", "the share of the parameters is said, as a warning", T)
def _(place):
    resized(place)
    run = place.ok("compress", "--base", "base", "tune0", "tune1", "--skip-mismatched", "-o", "basis")
    said(run, "warning", "%", "wte")
    return "said"


@case("a folder of the hub's cache (models--ORG--NAME), and its snapshot", "huggingface_hub's layout, made by hand", "same; the card names ORG/NAME", T)
def _(place):
    base = models.make("BertModel")
    tune = tuned(base, 1)
    saved(place, "tune", tune)
    saved(place, "plain", base)
    home = place.make("hub", "models--org--tiny")
    os.makedirs(os.path.join(home, "blobs"))
    os.makedirs(os.path.join(home, "refs"))
    os.makedirs(os.path.join(home, "snapshots", "0123abcd"))
    with open(os.path.join(home, "refs", "main"), "w") as file:
        file.write("0123abcd")
    for index, name in enumerate(sorted(os.listdir(place("plain")))):
        shutil.copy(place("plain", name), os.path.join(home, "blobs", f"{index:064x}"))
        os.symlink(f"../../blobs/{index:064x}", os.path.join(home, "snapshots", "0123abcd", name))
    expected = arithmetic(state(place("plain")), [state(place("tune"))])
    same(place.added("hub/models--org--tiny/snapshots/0123abcd", ["tune"]), expected)
    with open(place("out", "README.md")) as card:
        if '"org/tiny"' not in card.read():
            raise Wrong("the card does not name org/tiny")
    return same(place.added("hub/models--org--tiny", ["tune"], out="again"), expected)


@case("bf16 base, f32 and f16 fine-tunes", "transformers save_pretrained", "same, in the base's type", T)
def _(place):
    base = models.make("LlamaForCausalLM").bfloat16()
    tunes = [tuned(base, 1).float(), tuned(base, 2).half()]
    saved(place, "base", base)
    for index, tune in enumerate(tunes):
        saved(place, f"tune{index}", tune)
    return same(place.added("base", ["tune0", "tune1"]), arithmetic(whole(base), [whole(tune) for tune in tunes]))


@case("model.fp16.safetensors alone in a folder", "transformers save_pretrained(variant='fp16')", needs=T)
def _(place):
    base = models.make("BertModel").half()
    saved(place, "base", base)
    saved(place, "tune", tuned(base, 1), variant="fp16")
    if os.listdir(place("tune")).count("model.fp16.safetensors") != 1:
        raise Wrong("transformers wrote another name")
    return same(place.added("base", ["tune"]), arithmetic(state(place("base")), [state(place("tune"))]))


@case("quantization_config in config.json", "transformers config, by hand", "refused", T)
def _(place):
    base = models.make("BertModel")
    saved(place, "base", base)
    saved(place, "tune", tuned(base, 1))
    import json

    config = json.load(open(place("tune", "config.json")))
    write_json(place("tune", "config.json"), {**config, "quantization_config": {"quant_method": "gptq", "bits": 4}})
    return refused(place.add("base", ["tune"]), "gptq")
