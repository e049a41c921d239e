"""Every conformance vector, one test each: tests/vectors, or the folder in VECTORS (same files, other cases)."""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
VECTORS = Path(os.environ.get("VECTORS") or HERE / "vectors")
DATA = {"template_context", "cache_key_base"}  # what vectors refer to, no vectors themselves

Check = Callable[[dict[str, Any], dict[str, Any], Path], None]


def _adapter(name: str) -> Check:
    path = HERE / "adapters" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"adapters.{name}", path)
    assert path.exists(), f"{path} is missing: every file of vectors needs an adapter"
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    check: Check = module.check
    return check


def _cases() -> Iterator[Any]:
    for file in sorted(VECTORS.glob("*.json")):
        if file.stem not in DATA:
            for vector in json.loads(file.read_text()):
                yield pytest.param(file.stem, vector, id=vector["id"])


@pytest.mark.vectors
@pytest.mark.parametrize(("name", "vector"), tuple(_cases()))
def test_vector(name: str, vector: dict[str, Any]) -> None:
    """The expectation follows upstream, or our decision where we decided otherwise."""
    _adapter(name)(vector["input"], vector["expect"], VECTORS)


def test_there_are_vectors() -> None:
    assert len(list(_cases())) > 100
