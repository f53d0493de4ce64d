import ast
import importlib
import importlib.metadata
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import timfuse

ROOT = Path(timfuse.__file__).parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(ROOT)], "timfuse.")
    if not module.name.endswith("__main__") and not module.name.startswith(("timfuse.tests", "timfuse.benchmarks"))
)
FLOORS = {
    "runtime": 1,
    "bilevel": 2,
    "genotypes": 2,
    "operators": 3,
    "objectives": 3,
    "data": 3,
    "drawing": 4,
    "downstream": 4,
    "cost": 4,
    "training": 5,
    "meta_init": 6,
    "finetune": 5,
    "deploy": 5,
    "search": 6,
    "tuning": 7,
    "commands": 8,
    "cli": 9,
    "__main__": 10,
}


@pytest.fixture(scope="module")
def distribution():
    """What pip installed, where it was a wheel; a development environment has the source instead."""
    try:
        distribution = importlib.metadata.distribution("timfuse")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("timfuse is not installed: the source is tested")
    if json.loads(distribution.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"):
        pytest.skip("timfuse is installed for development: the source is tested")
    return distribution


def test_the_installed_package_is_the_one_under_test(distribution):
    assert distribution.locate_file("timfuse/__init__.py") == Path(timfuse.__file__)
    assert ROOT.parent.name == "site-packages"
    assert distribution.version == timfuse.__version__


def test_the_wheel_holds_the_package_and_nothing_else(distribution):
    files = [Path(str(file)) for file in distribution.files]
    assert {file.parts[0] for file in files if "__pycache__" not in file.parts and ".." not in file.parts} == {
        "timfuse",
        f"timfuse-{timfuse.__version__}.dist-info",
    }
    assert not {"tests", "benchmarks", "build", "runs"} & {file.parts[1] for file in files}


def test_the_wheel_holds_all_of_the_source(distribution):
    source = Path(__file__).resolve().parents[1]
    folders = [entry for entry in source.iterdir() if entry.is_dir() and entry.name in FLOORS]
    wanted = [*source.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    wanted += [source / "py.typed", *source.glob("configs/*.yaml"), *source.glob("genotypes/zoo/*.yaml")]
    wanted += [
        source / "deploy" / "app.html",
        source / "deploy" / "page.html",
        source / "search" / "report.html",
        source / "search" / "benchmark.csv",
        *source.glob("operators/weights/*/*"),
    ]
    wanted += [path for path in (source / "downstream" / "weights").rglob("*") if path.is_file()]
    held = {Path(str(file)) for file in distribution.files}
    assert [path for path in wanted if "timfuse" / path.relative_to(source) not in held] == []


def test_importing_the_package_is_light():
    program = "import sys, timfuse; print([name for name in ('torch', 'numpy', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_loading_a_network_imports_nothing_slow():
    program = (
        "import sys, torch; before = set(sys.modules); import timfuse; timfuse.load('ivif', 'cpu');"
        "print(*sorted({name for name in set(sys.modules) - before if name.count('.') < 2}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "timfuse.deploy" in loaded
    slow = {"torch._dynamo", "torch._inductor", "torch.onnx", "sympy", "scipy", "pandas", "pydantic", "rich"}
    slow |= {"matplotlib", "networkx", "optuna", "sqlalchemy", "transformers", "torchmetrics", "higher"}
    assert loaded & slow == set()


@pytest.mark.parametrize("name", [name for name in MODULES if name.count(".") == 1 and name != "timfuse.cli"])
def test_public_names_exist_and_are_listed_once(name):
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        assert len(set(module.__all__)) == len(module.__all__)
        assert all(hasattr(module, public) for public in module.__all__)


def test_every_folder_has_its_floor():
    assert {name.split(".")[1] for name in MODULES} <= set(FLOORS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_downwards_only(name):
    path = Path(importlib.import_module(name).__file__)
    parts = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(alias.name.partition(".")[0] == "timfuse" for alias in node.names), "import relatively"
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.partition(".")[0] != "timfuse", "import relatively"
        if isinstance(node, ast.ImportFrom) and node.level == len(parts):
            for target in [node.module.partition(".")[0]] if node.module else [alias.name for alias in node.names]:
                if target in FLOORS and target != parts[0]:
                    assert FLOORS[target] < FLOORS[parts[0]], f"line {node.lineno}: {parts[0]} imports {target}"
