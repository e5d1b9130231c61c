"""torch tensors and modules: the same memory, no second copy; what is not for us is refused by name."""

from __future__ import annotations

import copy
import pathlib
import warnings
from typing import Any

import numpy as np
import pytest
import tvb
from conftest import files
from test_memory import load

torch = pytest.importorskip("torch")


def tensors(path: pathlib.Path) -> dict[str, Any]:
    """A safetensors file as torch tensors."""
    return {name: torch.from_numpy(values) for name, values in load(path).items()}


class Model(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Small, with a head tied to the embedding and a buffer."""

    def __init__(self, dtype: Any = torch.float32, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.emb = torch.nn.Embedding(40, 24, dtype=dtype)
        self.norm = torch.nn.BatchNorm1d(24, dtype=dtype)
        self.head = torch.nn.Linear(24, 40, bias=False, dtype=dtype)
        self.head.weight = self.emb.weight

    def moved(self, by: float, seed: int) -> Model:
        """A fine-tune of it."""
        tuned = Model(self.emb.weight.dtype)
        tuned.load_state_dict(self.state_dict())
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in tuned.parameters():
                parameter += by * torch.randn_like(parameter)
        return tuned


def test_torch_and_numpy_make_one_basis(base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    tvb.compress(tensors(base), {name: tensors(path) for name, path in tasks.items()}, tmp_path / "torch")
    tvb.compress(load(base), {name: load(path) for name, path in tasks.items()}, tmp_path / "numpy")
    assert files(tmp_path / "torch") == files(tmp_path / "numpy")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_module_is_compressed_and_edited_in_place(tmp_path: pathlib.Path, dtype: Any) -> None:
    model = Model(dtype)
    b = tvb.compress(model, {"a": model.moved(0.1, 1), "b": model.moved(0.1, 2)}, tmp_path / "b", bits=8)
    delta = b.edit("a - b", as_torch=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    places = {name: value.data_ptr() for name, value in model.state_dict().items()}
    versions = {name: parameter._version for name, parameter in model.named_parameters()}
    n_tensors = b.apply(model, "a - b", scale=0.5)
    assert n_tensors == 3, "emb and head are one"
    assert model.head.weight is model.emb.weight
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    for name, value in model.state_dict().items():
        expected = before[name].double() + 0.5 * delta[name].double() if name in delta else before[name].double()
        assert torch.allclose(value.double(), expected, rtol=tolerance, atol=tolerance), name
        assert value.data_ptr() == places[name]
    assert set(delta) == {"emb.weight", "head.weight", "norm.weight", "norm.bias"}
    assert delta["head.weight"] is delta["emb.weight"]
    for name, parameter in model.named_parameters():
        assert parameter._version > versions[name], "autograd is told"


def test_autograd_refuses_to_go_back_through_what_was_edited(tmp_path: pathlib.Path) -> None:
    model = Model()
    b = tvb.compress(model, {"a": model.moved(0.1, 1)}, tmp_path / "b")
    x = torch.nn.functional.normalize(model.emb(torch.arange(8)))
    loss = model.head(x).square().sum()
    b.apply(model, "a")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    model.head(model.emb(torch.arange(8))).sum().backward()
    assert model.emb.weight.grad is not None


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_edits_as_torch_are_those_of_numpy(
    base: pathlib.Path, tasks: dict[str, pathlib.Path], tmp_path: pathlib.Path, dtype: str
) -> None:
    b = tvb.compress(base, tasks, tmp_path / "b")
    found = b.task("digits", as_torch=True, dtype=dtype)
    exact = b.task("digits")
    for name, value in found.items():
        assert isinstance(value, torch.Tensor) and value.dtype == getattr(torch, dtype)
        expected = torch.from_numpy(exact[name]).to(value.dtype)
        assert torch.equal(value, expected), name
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
        as_numpy = b.task("digits", dtype=dtype)
        for name, value in as_numpy.items():
            np.testing.assert_array_equal(value.astype(np.float32), found[name].float().numpy())


def test_tensors_that_are_not_for_us_are_refused_by_name(tmp_path: pathlib.Path) -> None:
    plain = {"w": torch.ones(8, 4)}
    b = tvb.compress(plain, {"a": {"w": torch.full((8, 4), 2.0)}}, tmp_path / "b", method="identity")
    quantised = torch.quantize_per_tensor(torch.ones(8, 4), 0.1, 0, torch.qint8)
    cases: list[tuple[Any, str]] = [
        (torch.ones(8, 4, device="meta"), "device meta"),
        (torch.ones(8, 4).to_sparse(), "sparse"),
        (quantised, "quantised"),
        (torch.ones(8, 4, dtype=torch.complex128), "torch.complex128 found"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
        (torch.ones(4, 8), "[4, 8]"),
    ]
    for wrong, message in cases:
        with pytest.raises(tvb.InputError) as raised, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tvb.compress(plain, {"a": {"w": wrong}}, tmp_path / "x")
        assert message in raised.value.message and "w" in raised.value.message, raised.value.message
    strided = torch.ones(4, 8).T
    for wrong, message in [*cases, (strided, "rows without gaps expected"), (torch.ones(1, 4).expand(8, 4), "rows")]:
        with pytest.raises(tvb.InputError) as raised, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            b.apply({"w": wrong}, "a")
        assert message in raised.value.message, raised.value.message
    assert torch.equal(strided, torch.ones(8, 4))
    assert not (tmp_path / "x").exists()


def test_strides_and_gradients_do_not_matter_where_tensors_are_read(tmp_path: pathlib.Path) -> None:
    torch.manual_seed(0)
    values, tuned = torch.randn(48, 32), torch.randn(48, 32)
    tvb.compress({"w": values}, {"a": {"w": tuned}}, tmp_path / "plain")
    tvb.compress({"w": values.T.contiguous().T}, {"a": {"w": torch.nn.Parameter(tuned.clone())}}, tmp_path / "strided")
    tvb.compress({"w": values.numpy()}, {"a": {"w": torch.cat([tuned, tuned])[:48]}}, tmp_path / "mixed")
    assert files(tmp_path / "plain") == files(tmp_path / "strided") == files(tmp_path / "mixed")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tensors_of_a_card_are_read_through_the_cpu(tmp_path: pathlib.Path) -> None:
    model = Model()
    tuned = model.moved(0.1, 1)
    tvb.compress(model, {"a": tuned}, tmp_path / "cpu")
    with pytest.warns(UserWarning, match="are on cuda:0 and read through the CPU"):
        b = tvb.compress(model.cuda(), {"a": tuned.cuda()}, tmp_path / "cuda")
    assert files(tmp_path / "cpu") == files(tmp_path / "cuda")
    edited = copy.deepcopy(model).cpu()
    b.apply(edited, "a")
    with pytest.warns(UserWarning, match="are on cuda:0 and edited through copies"):
        b.apply(model, "a")
    assert same(model.cpu(), edited)


def test_tensors_that_are_elsewhere_are_edited_through_copies(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    b = tvb.compress(model, {"a": model.moved(0.1, 1)}, tmp_path / "b")
    near, far = copy.deepcopy(model), copy.deepcopy(model)
    n_edited = b.apply(near, "a")
    # As if they were on a card: nothing is written but by bringing copies back.
    monkeypatch.setattr("tvb._arrays.is_far", lambda tensor: True)
    with pytest.warns(UserWarning, match="on cpu and edited through copies on the CPU"):
        assert b.apply(far, "a") == n_edited
    assert same(near, far) and not same(near, model)
    before = copy.deepcopy(far)
    with pytest.raises(tvb.InputError), pytest.warns(UserWarning):
        b.apply(far, "b")
    assert same(far, before)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    others = b.state_dict()
    return all(torch.equal(tensor, others[name]) for name, tensor in a.state_dict().items())


def test_a_transformer_as_users_hold_it(tmp_path: pathlib.Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=96, n_positions=32, bos_token_id=0, eos_token_id=0)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()
    tuned = transformers.GPT2LMHeadModel(config).eval()
    tuned.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    b = tvb.compress(model, {"a": tuned}, tmp_path / "b", bits=8)
    model.save_pretrained(tmp_path / "saved")
    before = model.lm_head.weight.clone()
    b.apply(model, "a")
    assert model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr()
    assert not torch.equal(model.lm_head.weight, before)
    ids = torch.arange(16)[None]
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, tuned(ids).logits, atol=0.05)
    # The same basis edits the model that was saved, too.
    b.save_edit("a", tmp_path / "saved", tmp_path / "edited")
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "edited")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
