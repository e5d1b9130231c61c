"""`tvb.torch.Coefficients`: the edit it forms, its gradients, what it leaves alone, what it refuses."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import tvb  # noqa: E402
import tvb.torch  # noqa: E402
from torch import nn  # noqa: E402

EXAMPLE = Path(__file__).parent.parent / "examples" / "few_shot.py"


class Net(nn.Module):
    """Tied ends, a layer norm, a batch norm with its buffers, an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(4))
        self.bn = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 16, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("ids", torch.arange(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(self.ids[x])
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return self.head(self.bn(hidden))


X = torch.arange(12)


def tuned(base: nn.Module, seed: int) -> nn.Module:
    model = copy.deepcopy(base)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), model.bn.running_mean]:
            tensor += 0.1 * torch.randn(tensor.shape, generator=random)
    return model


def saved(model: nn.Module, path: Path) -> Path:
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def base() -> nn.Module:
    torch.manual_seed(1)
    return Net().eval()


@pytest.fixture(scope="module")
def basis(base: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> tvb.Basis:
    top = tmp_path_factory.mktemp("torch")
    tasks = {name: saved(tuned(base, seed), top / f"{name}.pt") for seed, name in enumerate("abc")}
    return tvb.compress(saved(base, top / "base.pt"), tasks, top / "basis", bits=8)


def test_a_few_examples_fit_a_new_task(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("few_shot", EXAMPLE)
    few_shot = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(few_shot)
    found = few_shot.run(tmp_path, n_steps=80)
    assert found["fitted"] < 0.9 * found["zero-shot"], found
    assert found["fitted by block"] < 0.9 * found["zero-shot"], found
    assert found["fitted"] < found["sum"], found


def test_the_edit_is_that_of_apply(base: nn.Module, basis: tvb.Basis) -> None:
    weights = {"a": 0.7, "c": -0.4}
    fitted = tvb.torch.Coefficients(base, basis, init=weights)
    assert fitted.weights() == pytest.approx({"a": 0.7, "b": 0.0, "c": -0.4})
    applied = copy.deepcopy(base)
    basis.apply(applied, weights)
    merged = fitted.merged()
    assert merged.keys() == applied.state_dict().keys()
    for name, tensor in applied.state_dict().items():
        torch.testing.assert_close(merged[name], tensor, atol=1e-5, rtol=0)
    torch.testing.assert_close(fitted.eval()(X), applied(X), atol=1e-5, rtol=0)
    assert (fitted(X) - base(X)).abs().max() > 1e-2
    # One memory under both names, and none of the model's.
    assert merged["head.weight"].data_ptr() == merged["embed.weight"].data_ptr() != base.embed.weight.data_ptr()


def test_an_edit_in_half_precision_is_rounded_once(base: nn.Module, basis: tvb.Basis) -> None:
    half = copy.deepcopy(base).bfloat16()
    fitted = tvb.torch.Coefficients(half, basis, init="sum")
    exact = half.embed.weight.float() + sum(basis.task(name, as_torch=True)["embed.weight"] for name in basis.tasks)
    assert torch.equal(fitted.merged()["embed.weight"], exact.bfloat16())


@pytest.mark.parametrize("blocks", [None, 2, [r"layers\.[01]", ""]])
def test_gradients_are_those_of_differences(base: nn.Module, basis: tvb.Basis, blocks: object) -> None:
    fitted = tvb.torch.Coefficients(copy.deepcopy(base), basis, blocks=blocks, init=0.3)
    # A buffer that the basis edits carries no gradient, so differences must not see it move.
    fitted._vectors.pop("bn.running_mean")
    fitted.double().eval()
    assert fitted.values.dtype == torch.float64

    def of(values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(fitted, {"values": values}, (X,)).square().sum()

    assert torch.autograd.gradcheck(of, (fitted.values.detach().clone().requires_grad_(),))


def test_the_model_is_left_alone(base: nn.Module, basis: tvb.Basis) -> None:
    model = copy.deepcopy(base)
    before = copy.deepcopy(model.state_dict())
    fitted = tvb.torch.Coefficients(model, basis, init=0.1)
    assert list(fitted.state_dict()) == ["values"] and [name for name, _ in fitted.named_parameters()] == ["values"]
    optimizer = torch.optim.Adam(fitted.parameters(), lr=0.1)
    fitted.train()
    for _ in range(3):
        optimizer.zero_grad()
        fitted(X).square().mean().backward()
        optimizer.step()
    assert (fitted.values.detach() - 0.1).abs().min() > 0.05
    assert model.training and not fitted.eval().model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(its.requires_grad and its.grad is None for its in model.parameters())


def test_backward_keeps_no_copy_for_a_task(base: nn.Module, basis: tvb.Basis) -> None:
    def kept(tasks: list[str]) -> int:
        fitted = tvb.torch.Coefficients(base, basis, tasks=tasks, init=0.1).eval()
        storages: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storages[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            fitted(X).sum().backward()
        return sum(storages.values())

    assert kept(["a"]) == kept(["a", "b", "c"]) > 0


def test_tasks_and_formats(base: nn.Module, basis: tvb.Basis) -> None:
    one = tvb.torch.Coefficients(base, basis, tasks=["b"])
    three = tvb.torch.Coefficients(base, basis, dtype="bfloat16")
    # Tied tensors are one, under two names.
    vectors = {id(vector): vector for vector in basis.task("b", as_torch=True).values()}
    n = sum(vector.numel() for vector in vectors.values() if vector.any())
    assert one.n_bytes == 4 * n and three.n_bytes == 2 * 3 * n
    assert one.tasks == ["b"] and one.values.shape == (1,)
    moved = tvb.torch.Coefficients(copy.deepcopy(base), basis).to(torch.bfloat16)
    assert moved.values.dtype == torch.float32 and moved.model.embed.weight.dtype == torch.bfloat16
    assert moved(X).dtype == torch.bfloat16
    away = tvb.torch.Coefficients(copy.deepcopy(base), basis).to("meta")
    held = [vector for row in away._vectors.values() for vector in row if vector is not None]
    assert {its.device.type for its in [away.values, *held, *away.model.parameters(), *away.model.buffers()]} == {"meta"}
    copied = copy.deepcopy(one)
    assert copied.model is not one.model and torch.equal(copied(X), one(X))


def test_blocks(base: nn.Module, basis: tvb.Basis) -> None:
    of = tvb.torch.Coefficients
    two = of(base, basis, blocks=2, init={"b": 0.5})
    assert two.values.shape == (2, 3) and two.weights() == {f"block{n}": {"a": 0.0, "b": 0.5, "c": 0.0} for n in (0, 1)}
    assert "embed.weight" in two.blocks["block0"] and "layers.1.0.weight" in two.blocks["block0"]
    assert "layers.2.0.weight" in two.blocks["block1"] and "bn.weight" in two.blocks["block1"]
    named = of(base, basis, blocks=lambda name: name.split(".")[0])
    assert list(named.blocks) == ["embed", "layers", "bn"]
    with torch.no_grad():
        two.values[1] = 0.0
    merged = two.merged()
    assert torch.equal(merged["layers.3.0.weight"], base.layers[3][0].weight)
    assert not torch.equal(merged["layers.0.0.weight"], base.layers[0][0].weight)
    for blocks, words in [
        (0, "1 to 4"),
        (5, "1 to 4"),
        (True, "found bool"),
        ("x", "found str"),
        (["layers"], "no pattern matches embed.weight"),
        (["", "layers"], "takes no tensor"),
        (["(", ""], "is no pattern"),
        (["", ""], "twice"),
    ]:
        with pytest.raises(tvb.UsageError, match=words):
            of(base, basis, blocks=blocks)


def test_what_makes_no_sense_is_refused(base: nn.Module, basis: tvb.Basis) -> None:
    for options, words in [
        ({"tasks": ["a", "x"]}, "unknown task: x"),
        ({"tasks": ["a", "a"]}, "twice"),
        ({"tasks": []}, "no task"),
        ({"tasks": "a"}, "list of names"),
        ({"init": "mean"}, "'sum'"),
        ({"init": {"x": 1.0}}, "unknown task: x"),
        ({"init": float("nan")}, "finite"),
        ({"dtype": "int8"}, "dtype"),
    ]:
        with pytest.raises(tvb.UsageError, match=words):
            tvb.torch.Coefficients(base, basis, **options)


def test_another_model_is_refused_with_all_that_does_not_fit(base: nn.Module, basis: tvb.Basis) -> None:
    model = copy.deepcopy(base)
    model.layers[0][0] = nn.Linear(8, 9)
    model.bn = nn.Identity()
    with pytest.raises(tvb.InputError) as caught:
        tvb.torch.Coefficients(model, basis)
    text = caught.value.message
    assert "layers.0.0.weight: expected [8, 8] as in the basis, found [9, 8]" in text
    assert "tensor bn.weight: the basis has it, the model does not" in text
    assert str(basis.path) in text and caught.value.hint


def test_wrapped_models_are_seen_through(base: nn.Module, basis: tvb.Basis, caplog: pytest.LogCaptureFixture) -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = copy.deepcopy(base)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = copy.deepcopy(base)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.module(x)

    expected = tvb.torch.Coefficients(base, basis, init="sum").eval()(X)
    caplog.set_level("INFO", "tvb")
    for model in (Around(), Parallel()):
        assert torch.equal(tvb.torch.Coefficients(model, basis, init="sum").eval()(X), expected)
    # What was guessed is said; what DDP and others always write is not.
    assert ["'body.' is put before" in line for line in caplog.messages] == [True]


def test_saved_and_loaded(base: nn.Module, basis: tvb.Basis, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    fitted = tvb.torch.Coefficients(base, basis, blocks=2, init=0.25)
    fitted.save(path)
    record = json.loads(path.read_text())
    assert record["format"] == "tvb-coefficients" and record["version"] == 1 and record["tasks"] == ["a", "b", "c"]
    assert record["values"] == [[0.25] * 3] * 2 and record["blocks"][0]["name"] == "block0"
    assert tvb.torch.Coefficients(base, basis, blocks=2).load(path).weights() == fitted.weights()
    assert [its.name for its in tmp_path.iterdir()] == ["c.json"]
    other = tvb.torch.Coefficients(base, basis)
    with pytest.raises(tvb.InputError, match="blocks"):
        other.load(path)
    # Another program may know the tensors in another order.
    turned = [{**block, "tensors": block["tensors"][::-1]} for block in record["blocks"][::-1]]
    path.write_text(json.dumps({**record, "blocks": turned, "values": [[1.0] * 3, [2.0] * 3]}))
    loaded = tvb.torch.Coefficients(base, basis, blocks=2).load(path)
    assert loaded.values.tolist() == [[2.0] * 3, [1.0] * 3]
    atoms = {**{key: value for key, value in record.items() if key != "tasks"}, "atoms": ["atom-00"]}
    path.write_text(json.dumps(atoms))
    with pytest.raises(tvb.InputError, match="found atoms"):
        fitted.load(path)
    for change, words in [
        ({"tasks": ["a", "b"]}, "expected the tasks"),
        ({"version": 2}, "version"),
        ({"format": "x"}, "other JSON"),
        ({"values": [[1.0]]}, "values"),
        ({"values": [[float("inf")] * 3] * 2}, "values"),
        ({"values": "x"}, "values"),
    ]:
        path.write_text(json.dumps({**record, **change}))
        with pytest.raises(tvb.InputError, match=words):
            fitted.load(path)
    for text in ("", "[" * 100_000, "[1]"):
        path.write_text(text)
        with pytest.raises(tvb.InputError):
            fitted.load(path)
    with torch.no_grad():
        fitted.values[0, 0] = float("nan")
    with pytest.raises(tvb.InputError, match="finite"):
        fitted.save(path)
    assert [its.name for its in tmp_path.iterdir()] == ["c.json"]
