"""Pipelines and components of diffusers, models of open_clip."""

import os

import torch
from case import Wrong, arithmetic, case, refused, said, same, state, tuned, write_json
from safetensors.torch import save_file

D = ("diffusers", "transformers")
C = ("open_clip",)


def whole(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def unet():
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32, attention_head_dim=2,
    ).eval()


def pipeline(place):
    """A small Stable Diffusion with random weights and a tokenizer of a few words."""
    import transformers
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline

    torch.manual_seed(0)
    folder = place.make("words")
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3, "b": 4, "b</w>": 5}
    write_json(os.path.join(folder, "vocab.json"), words)
    with open(os.path.join(folder, "merges.txt"), "w") as file:
        file.write("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt"), model_max_length=16)
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(vocab_size=6, hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
                                    max_position_embeddings=16, bos_token_id=0, eos_token_id=1)
    )
    vae = AutoencoderKL(block_out_channels=(4, 8), norm_num_groups=2, layers_per_block=1, latent_channels=4,
                        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    return StableDiffusionPipeline(
        unet=unet(), vae=vae, text_encoder=text, tokenizer=tokenizer, scheduler=DDIMScheduler(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )


def moved(pipe, seed, parts=("unet", "text_encoder")):
    """The pipeline with these components trained."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(**{
        **pipe.components, **{name: tuned(getattr(pipe, name), seed) for name in parts}, "requires_safety_checker": False,
    })


@case("whole pipelines (unet and text encoder trained), loaded again", "diffusers save_pretrained", "same in every component", D)
def _(place):
    from diffusers import DiffusionPipeline

    base = pipeline(place)
    tunes = [moved(base, seed) for seed in (1, 2)]
    base.save_pretrained(place("base"))
    for name, tune in zip(("cars", "mnist"), tunes):
        tune.save_pretrained(place(name))
    run = place.tvb("add", "--base", "base", "--scale", "0.5", "-o", "out", "--from-checkpoints", "cars", "mnist")
    if run.code != 0:
        raise Wrong(f"exit {run.code}: {run.error()}")
    pipe = DiffusionPipeline.from_pretrained(place("out"), safety_checker=None)
    for name in ("unet", "text_encoder", "vae"):
        right = arithmetic(whole(getattr(base, name)), [whole(getattr(tune, name)) for tune in tunes])
        found = same(whole(getattr(pipe, name)), right)
    place.ok("compress", "--base", "base", "cars", "mnist", "-o", "basis", "--bits", "4")
    place.ok("add", "basis", "--base", "base", "-o", "from-basis")
    DiffusionPipeline.from_pretrained(place("from-basis"), safety_checker=None)
    return found


@case("components: base/unet, cars/unet, mnist/unet, no names given", "diffusers save_pretrained", "same; tasks are called cars, mnist", D)
def _(place):
    base = unet()
    tunes = [tuned(base, seed) for seed in (1, 2)]
    base.save_pretrained(place("base/unet"))
    for name, tune in zip(("cars", "mnist"), tunes):
        tune.save_pretrained(place(name, "unet"))
    found = place.added("base/unet", ["cars/unet", "mnist/unet"])
    said(place.ok("inspect", "out-basis"), "cars", "mnist")
    return same(found, arithmetic(whole(base), [whole(tune) for tune in tunes]))


@case("a pipeline as base, a bare UNet as task", "diffusers save_pretrained", "same in the UNet, or refused with base/unet", D)
def _(place):
    base = pipeline(place)
    base.save_pretrained(place("base"))
    tune = tuned(base.unet, 1)
    tune.save_pretrained(place("tune"))
    run = place.add("base", ["tune"])
    if run.code in (2, 3):
        return refused(run, "unet")
    return same(state(place("out", "unet")), arithmetic(whole(base.unet), [whole(tune)]))


@case("variant='fp16' of a pipeline", "diffusers save_pretrained", "same, in f16", D)
def _(place):
    base = pipeline(place).to(torch.float16)
    tune = moved(base, 1, ("unet",))
    base.save_pretrained(place("base"), variant="fp16")
    tune.save_pretrained(place("tune"), variant="fp16")
    place.ok("add", "--base", "base", "--scale", "0.5", "-o", "out", "--from-checkpoints", "tune")
    return same(state(place("out", "unet")), arithmetic(whole(base.unet), [whole(tune.unet)]))


def clip():
    import open_clip

    torch.manual_seed(0)
    return open_clip.CLIP(
        embed_dim=16, vision_cfg=dict(image_size=16, layers=2, width=64, patch_size=4, head_width=16),
        text_cfg=dict(context_length=8, vocab_size=50, width=32, heads=2, layers=2),
    ).eval()


@case("open_clip folders (open_clip_config.json, open_clip_pytorch_model.bin)", "open_clip, torch.save", "same; the card says open_clip", C)
def _(place):
    base = clip()
    tunes = [tuned(base, seed) for seed in (1, 2)]
    for name, model in (("base", base), ("cars", tunes[0]), ("mnist", tunes[1])):
        torch.save(model.state_dict(), os.path.join(place.make(name), "open_clip_pytorch_model.bin"))
        write_json(place(name, "open_clip_config.json"), {"model_cfg": {"embed_dim": 16}, "preprocess_cfg": {}})
    found = place.added("base", ["cars", "mnist"])
    with open(place("out", "README.md")) as card:
        if "open_clip" not in card.read():
            raise Wrong("the card does not say open_clip")
    if not os.path.isfile(place("out", "open_clip_config.json")):
        raise Wrong("open_clip_config.json is missing in the output")
    right = arithmetic(whole(base), [whole(tune) for tune in tunes])
    return same(found, {name: right[name] for name in found})


@case("checkpoints of open_clip's training (epoch_3.pt: state_dict with module., optimizer)", "open_clip, as its script saves", "same; tasks are called cars, mnist", C)
def _(place):
    base = clip()
    tunes = [tuned(base, seed) for seed in (1, 2)]
    torch.save(base.state_dict(), place("base.pt"))
    for name, tune in zip(("cars", "mnist"), tunes):
        held = {"epoch": 3, "name": name, "state_dict": {f"module.{key}": value for key, value in tune.state_dict().items()},
                "optimizer": torch.optim.AdamW(tune.parameters()).state_dict()}
        torch.save(held, os.path.join(place.make("logs", name, "checkpoints"), "epoch_3.pt"))
    found = place.added("base.pt", ["logs/cars/checkpoints/epoch_3.pt", "logs/mnist/checkpoints/epoch_3.pt"])
    said(place.ok("inspect", "out-basis"), "cars", "mnist")
    right = arithmetic(whole(base), [whole(tune) for tune in tunes])
    return same(found, {name: right[name] for name in found})
