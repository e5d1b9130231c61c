"""PyTorch's own files: wrappers, modules, old formats, training checkpoints, distributed ones."""

import os

import torch
from case import Wrong, arithmetic, case, refused, said, same, small_net, state, tuned


def plain(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def three(place):
    """A base as safetensors-free `.pt`, and two fine-tunes in memory."""
    base = small_net()
    torch.save(base.state_dict(), place("base.pt"))
    return base, [tuned(base, seed) for seed in (1, 2)]


def expected(base, tunes):
    return arithmetic(plain(base), [plain(tune) for tune in tunes])


def wrapped(title, writer, wrap, base_too=False, announced=None):
    """Fine-tunes whose names begin with what the wrapper adds."""

    @case(title, writer, f"same{', announced' if announced else ''}")
    def body(place):
        base, tunes = three(place)
        for index, tune in enumerate(tunes):
            torch.save(wrap(tune), place(f"tune{index}.pt"))
        if base_too:
            torch.save(wrap(base), place("base.pt"))
        found = place.added("base.pt", ["tune0.pt", "tune1.pt"])
        if announced:
            said(place.said, announced)
        right = expected(base, tunes)
        if base_too:
            prefix = next(iter(found)).split("0.weight")[0]
            found = {name.removeprefix(prefix): value for name, value in found.items()}
            found.pop("n_averaged", None)
        return same(found, right)


def compiled(module):
    return torch.compile(module).state_dict()


def data_parallel(module):
    return torch.nn.DataParallel(module).state_dict()


def distributed(module):
    import tempfile

    import torch.distributed as dist

    if not dist.is_initialized():
        store = tempfile.NamedTemporaryFile(delete=False).name
        dist.init_process_group("gloo", init_method=f"file://{store}.store", rank=0, world_size=1)
    return torch.nn.parallel.DistributedDataParallel(module).state_dict()


def averaged(module):
    model = torch.optim.swa_utils.AveragedModel(module)
    model.update_parameters(module)
    return model.state_dict()


def lightning(module):
    names = {f"model.{name}": value for name, value in module.state_dict().items()}
    return {"epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.5.0", "state_dict": names,
            "loops": {}, "callbacks": {}, "optimizer_states": [torch.optim.Adam(module.parameters()).state_dict()], "lr_schedulers": []}


wrapped("torch.compile'd fine-tunes (`_orig_mod.`)", "torch.compile", compiled)
wrapped("torch.compile'd base and fine-tunes", "torch.compile", compiled, base_too=True)
wrapped("DataParallel fine-tunes (`module.`)", "torch.nn.DataParallel", data_parallel, announced="module.")
wrapped("DDP fine-tunes", "DistributedDataParallel (gloo)", distributed, announced="module.")
wrapped("DDP base and fine-tunes", "DistributedDataParallel (gloo)", distributed, base_too=True)
wrapped("SWA fine-tunes (`module.` and n_averaged)", "AveragedModel", averaged, announced="module.")
wrapped("SWA base and fine-tunes", "AveragedModel", averaged, base_too=True)
wrapped("Lightning's layout (`state_dict`, `model.`)", "imitated", lightning, announced="model.")


@case("wrapped base, plain fine-tunes (`module.`)", "torch.nn.DataParallel", "same, announced")
def _(place):
    base, tunes = three(place)
    torch.save(data_parallel(base), place("base.pt"))
    for index, tune in enumerate(tunes):
        torch.save(tune.state_dict(), place(f"tune{index}.pt"))
    found = place.added("base.pt", ["tune0.pt", "tune1.pt"])
    said(place.said, "module.")
    return same({name.removeprefix("module."): value for name, value in found.items()}, expected(base, tunes))


@case("compiled and wrapped at once (`module._orig_mod.`)", "torch.compile, DataParallel", "same, announced")
def _(place):
    base, tunes = three(place)
    for index, tune in enumerate(tunes):
        torch.save(torch.nn.DataParallel(torch.compile(tune)).state_dict(), place(f"tune{index}.pt"))
    return same(place.added("base.pt", ["tune0.pt", "tune1.pt"]), expected(base, tunes))


@case("--rename where the names were changed by hand", "torch.save")
def _(place):
    base, tunes = three(place)
    for index, tune in enumerate(tunes):
        torch.save({f"net.layers.{name}": value for name, value in tune.state_dict().items()}, place(f"tune{index}.pt"))
    return same(place.added("base.pt", ["tune0.pt", "tune1.pt"], "--rename", "s/^net\\.layers\\.//"), expected(base, tunes))


@case("other names, nothing said about them", "torch.save", "refused, with the hint --rename")
def _(place):
    base, tunes = three(place)
    torch.save({f"net.{index}": value for index, value in enumerate(tunes[0].state_dict().values())}, place("tune.pt"))
    return refused(place.add("base.pt", ["tune.pt"]), "--rename")


@case("EMA weights of a training checkpoint: NAME=PATH::state_dict_ema, plain base", "torch.save", "same as the EMA weights")
def _(place):
    base, tunes = three(place)
    average = [tuned(tune, 7) for tune in tunes]
    for index, (tune, ema) in enumerate(zip(tunes, average)):
        held = {"epoch": 3, "arch": "small", "state_dict": tune.state_dict(), "state_dict_ema": ema.state_dict(),
                "optimizer": torch.optim.SGD(tune.parameters(), 0.1, momentum=0.9).state_dict()}
        torch.save(held, place(f"tune{index}.pth.tar"))
    found = place.added("base.pt", [f"t{index}=tune{index}.pth.tar::state_dict_ema" for index in (0, 1)])
    return same(found, expected(base, average))


@case("a training checkpoint with state_dict and state_dict_ema, no key given", "torch.save", "read as state_dict and said, or refused with the keys")
def _(place):
    base, tunes = three(place)
    torch.save({"state_dict": tunes[0].state_dict(), "state_dict_ema": tuned(tunes[0], 7).state_dict()}, place("tune.pth.tar"))
    run = place.add("base.pt", ["tune.pth.tar"])
    if run.code in (2, 3):
        return refused(run, "state_dict_ema")
    said(run, "state_dict_ema")
    return same(state(place("out")), expected(base, tunes[:1]))


@case("{'model': …, 'optimizer': …}", "torch.save", "same as the model's weights")
def _(place):
    base, tunes = three(place)
    for index, tune in enumerate(tunes):
        optimizer = torch.optim.Adam(tune.parameters())
        tune(torch.randn(2, 3, 8, 8)).sum().backward()
        trained = plain(tune)
        torch.save({"model": trained, "optimizer": optimizer.state_dict(), "epoch": 1}, place(f"tune{index}.pt"))
        tunes[index] = tune
    found = place.added("base.pt", ["tune0.pt", "tune1.pt"])
    return same(found, expected(base, tunes))


@case("whole pickled modules", "torch.save(module)")
def _(place):
    base, tunes = three(place)
    torch.save(base, place("base.pt"))
    for index, tune in enumerate(tunes):
        torch.save(tune, place(f"tune{index}.pt"))
    return same(place.added("base.pt", ["tune0.pt", "tune1.pt"]), expected(base, tunes))


@case("the format before 1.6", "torch.save(_use_new_zipfile_serialization=False)", "same, or refused with a way to convert")
def _(place):
    base, tunes = three(place)
    torch.save(tunes[0].state_dict(), place("old.pt"), _use_new_zipfile_serialization=False)
    run = place.add("base.pt", ["old.pt"])
    if run.code in (2, 3):
        return refused(run, "torch.save")
    return same(state(place("out")), expected(base, tunes[:1]))


@case("views, transposed and shared storages", "torch.save")
def _(place):
    torch.manual_seed(0)
    whole = torch.randn(40, 30)
    base = {"a": whole[:10], "b": whole[10:].t(), "c": torch.randn(5, 6)}
    torch.save(base, place("base.pt"))
    moved = torch.randn(40, 30)
    tune = {"a": moved[:10], "b": moved[10:].t(), "c": torch.randn(6, 5).t()}
    torch.save(tune, place("tune.pt"))
    return same(place.added("base.pt", ["tune.pt"]), arithmetic(base, [tune]))


@case("a folder of torch.distributed.checkpoint", "torch.distributed.checkpoint.save", "refused, with dcp_to_torch")
def _(place):
    import torch.distributed.checkpoint as dcp

    base, tunes = three(place)
    dcp.save({"model": tunes[0].state_dict()}, checkpoint_id=place("dcp"))
    if not any(name.endswith(".distcp") for name in os.listdir(place("dcp"))):
        raise Wrong("torch wrote something else")
    return refused(place.add("base.pt", ["dcp"]), "dcp_to_torch")


@case("the same, converted as the hint says", "dcp_to_torch_save")
def _(place):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    base, tunes = three(place)
    for index, tune in enumerate(tunes):
        dcp.save({"model": tune.state_dict()}, checkpoint_id=place(f"dcp{index}"))
        dcp_to_torch_save(place(f"dcp{index}"), place(f"tune{index}.pt"))
    return same(place.added("base.pt", ["tune0.pt", "tune1.pt"]), expected(base, tunes))


def consolidated(name):
    @case(f"{name}, the only weights of a folder", "safetensors" if name.endswith("safetensors") else "torch.save", "same")
    def body(place):
        from safetensors.torch import save_file

        base, tunes = three(place)
        for index, tune in enumerate(tunes):
            path = os.path.join(place.make(f"tune{index}"), name)
            save_file(plain(tune), path) if name.endswith("safetensors") else torch.save(tune.state_dict(), path)
        return same(place.added("base.pt", ["tune0", "tune1"]), expected(base, tunes))


for _name in ("consolidated.safetensors", "weights.safetensors", "open_clip_pytorch_model.bin", "best.pth.tar"):
    consolidated(_name)


@case("names out of paths: runs/cars/last.pt, runs/mnist/epoch_3.pt, runs/svhn/best/whole.pt", "torch.save", "tasks are called cars, mnist, svhn")
def _(place):
    three(place)
    paths = ["runs/cars/last.pt", "runs/mnist/epoch_3.pt", "runs/svhn/best/whole.pt"]
    for seed, path in enumerate(paths, 1):
        place.make(os.path.dirname(path))
        torch.save(tuned(small_net(), seed).state_dict(), place(path))
    import json

    run = place.ok("compress", "--base", "base.pt", *paths, "-o", "basis", "--json")
    names = [task["name"] for task in json.loads(run.out)["tasks"]]
    if names != ["cars", "mnist", "svhn"]:
        raise Wrong(f"called {names}")
    return "called cars, mnist, svhn"
