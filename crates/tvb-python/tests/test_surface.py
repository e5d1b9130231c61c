"""Everything that is public has a docstring with an example, and types."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import pathlib
import typing
from collections.abc import Iterator
from typing import Any

import pytest
import tvb
from tvb import _tvb

PACKAGE = pathlib.Path(tvb.__file__).parent


def public() -> Iterator[tuple[str, Any]]:
    """Every public name of the package, and of its classes."""
    for name in tvb.__all__:
        value = getattr(tvb, name)
        if name == "__version__":
            continue
        yield name, value
        if inspect.isclass(value):
            for member, inner in vars(value).items():
                if not member.startswith("_") and not inspect.isdatadescriptor(inner) or isinstance(inner, property):
                    if callable(inner) or isinstance(inner, property) or hasattr(inner, "func"):
                        yield f"{name}.{member}", inner


@pytest.mark.parametrize(("name", "value"), list(public()), ids=[name for name, _ in public()])
def test_every_public_name_says_what_it_is_with_an_example(name: str, value: Any) -> None:
    doc = inspect.getdoc(value)
    assert doc and ">>>" in doc, name
    call = value.fget if isinstance(value, property) else getattr(value, "func", value)
    if inspect.isclass(value):
        return
    signature = inspect.signature(call)
    assert signature.return_annotation is not inspect.Signature.empty, name
    arguments = [argument for argument in signature.parameters if argument != "self"]
    for argument in arguments:
        assert signature.parameters[argument].annotation is not inspect.Parameter.empty, (name, argument)
    typing.get_type_hints(call)
    if "Args:" in doc:
        missing = [argument for argument in arguments if f"    {argument}: " not in doc]
        as_of = "The other arguments are those of" in doc
        assert as_of or not missing, (name, missing)


@pytest.mark.parametrize("module", ["torch", "ray"])
def test_the_modules_beside_say_what_they_are_too(module: str) -> None:
    pytest.importorskip(module)
    found = importlib.import_module(f"tvb.{module}")
    assert found.__doc__ and found.__all__
    for name in found.__all__:
        value = getattr(found, name)
        own = [value, *(inner for member, inner in vars(value).items() if not member.startswith("_"))] if inspect.isclass(value) else [value]
        for one in own:
            if callable(one) or isinstance(one, property):
                doc = inspect.getdoc(one)
                assert (doc and ">>>" in doc) or one.__name__ == "extra_repr", (name, one)


def test_the_stub_is_the_extension() -> None:
    tree = ast.parse((PACKAGE / "_tvb.pyi").read_text())
    stated: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            stated.add(node.name)
            arguments = [argument.arg for argument in node.args.args]
            assert arguments == list(inspect.signature(getattr(_tvb, node.name)).parameters), node.name
        elif isinstance(node, ast.ClassDef):
            stated.add(node.name)
            stated_methods = {method.name for method in node.body if isinstance(method, ast.FunctionDef)}
            methods = {name for name in vars(getattr(_tvb, node.name)) if not name.startswith("_")}
            assert stated_methods == methods, node.name
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    found = inspect.signature(getattr(getattr(_tvb, node.name), method.name))
                    assert [argument.arg for argument in method.args.args] == list(found.parameters), method.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            stated.add(node.target.id)
    there = {name for name in dir(_tvb) if not name.startswith("_")}
    assert stated == there
    assert (PACKAGE / "py.typed").exists()


def test_the_version_is_the_crate_s() -> None:
    try:
        assert importlib.metadata.version("tvb") == tvb.__version__
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed")


def test_importing_needs_numpy_alone() -> None:
    import subprocess
    import sys

    code = (
        "import sys; import tvb; "
        "bad = {'torch', 'pandas', 'ray', 'tqdm'} & set(sys.modules); "
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
