import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator

from timfuse.runtime import config as config_module
from timfuse.runtime.config import (
    Section,
    config_hash,
    config_to_yaml,
    dotted_items,
    load_config,
    resolve_config_path,
)
from timfuse.runtime.errors import UserError


class Neumann(Section):
    kind: Literal["neumann"] = "neumann"
    terms: int = Field(5, ge=1, description="Terms of the series.")


class FirstOrder(Section):
    kind: Literal["first_order"] = "first_order"


class Search(Section):
    steps: int = Field(100, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    estimator: Annotated[Neumann | FirstOrder, Field(discriminator="kind")] = FirstOrder()
    budget: float | Literal["auto"] | None = None


class Training(Section):
    scaled_by_steps: ClassVar[tuple[str, ...]] = ("pretrain", "warmup", "validate_every")

    steps: int = Field(1000, ge=1)
    pretrain: int = Field(300, ge=0)
    warmup: int = Field(50, ge=0)
    validate_every: int = Field(200, ge=1)
    checkpoint_every: int = 100


class Cell(Section):
    kind: Literal["successive", "multi_scale"]
    operators: tuple[str, ...] = ()


class Data(Section):
    folder: Path | None = None
    crop: tuple[int, int] = (64, 64)
    shuffle: bool = True
    batch_size: int = 4


class Config(Section):
    name: str = "run"
    seed: int = 0
    search: Search = Search()
    data: Data = Data()
    train: Training = Training()
    cells: tuple[Cell, ...] = ()

    @field_validator("name")
    @classmethod
    def _no_slash(cls, name: str) -> str:
        if "/" in name:
            raise ValueError("must not hold a slash")
        return name


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def message(*overrides: str, path: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_config(Config, path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_file_and_settings_the_defaults():
    assert load_config(Config, None) == Config()


def test_settings_go_over_the_file_and_the_last_wins(tmp_path):
    path = write(tmp_path / "c.yaml", "name: x\nsearch:\n  steps: 7\n  learning_rate: 1e-4\n")
    overrides = [
        "search.steps=8",
        "search.steps=9",
        "data.folder=pairs",
        "data.crop=[32, 48]",
        "search.budget=null",
    ]
    read = load_config(Config, path, overrides)
    assert read.search == Search(steps=9, learning_rate=1e-4)
    assert read.data == Data(folder=Path("pairs"), crop=(32, 48))
    assert read.name == "x"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("search.learning_rate=1e-3", 1e-3),
        ("search.learning_rate=1", 1.0),
        ("search.budget=2.5", 2.5),
        ("search.budget=auto", "auto"),
    ],
)
def test_values_of_settings_are_yaml(override, value):
    key = override.partition("=")[0].partition(".")[2]
    assert getattr(load_config(Config, None, [override]).search, key) == value


def test_a_config_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Config().seed = 1


def test_extends_merges_mappings_and_replaces_lists(tmp_path):
    (tmp_path / "shared").mkdir()
    write(
        tmp_path / "shared" / "root.yaml",
        "seed: 3\nsearch: {steps: 5, learning_rate: 0.5}\ndata: {crop: [8, 8]}\n",
    )
    write(
        tmp_path / "shared" / "middle.yaml",
        "extends: root.yaml\nsearch: {steps: 6}\ncells: [{kind: successive}]\n",
    )
    leaf = write(
        tmp_path / "leaf.yaml",
        "extends: shared/middle.yaml\ndata: {shuffle: false}\ncells: [{kind: multi_scale}]\n",
    )
    assert load_config(Config, leaf) == Config(
        seed=3,
        search=Search(steps=6, learning_rate=0.5),
        data=Data(crop=(8, 8), shuffle=False),
        cells=(Cell(kind="multi_scale"),),
    )


def test_a_cycle_of_extends_is_named(tmp_path):
    a = write(tmp_path / "a.yaml", "extends: b.yaml\n")
    write(tmp_path / "b.yaml", "extends: ./a.yaml\n")
    assert "a.yaml -> b.yaml -> a.yaml" in message(path=a)


def test_a_missing_base_is_named_with_the_file_that_wants_it(tmp_path):
    a = write(tmp_path / "a.yaml", "extends: no.yaml\n")
    assert message(path=a).startswith(f"{a}: extends = no.yaml: no config file {tmp_path / 'no.yaml'}")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.steps=20"], (20, 6, 1, 10)),
        (["train.steps=2"], (2, 1, 0, 2)),
        (["train.steps=1"], (1, 1, 0, 1)),
        (["train.steps=2000"], (2000, 600, 100, 400)),
        (["train.steps=20", "train.warmup=7"], (20, 6, 7, 10)),
        (["train={steps: 20, validate_every: 9}"], (20, 6, 1, 9)),
        (["train.steps=5", "train.steps=20"], (20, 6, 1, 10)),
        (["train.pretrain=20"], (1000, 20, 50, 200)),
        (["search.steps=20"], (1000, 300, 50, 200)),
    ],
)
def test_what_follows_the_steps_is_scaled_with_them(overrides, expected):
    train = load_config(Config, None, overrides).train
    assert (train.steps, train.pretrain, train.warmup, train.validate_every) == expected
    assert train.checkpoint_every == 100


def test_steps_of_a_file_scale_nothing_and_its_values_are_scaled(tmp_path):
    path = write(tmp_path / "c.yaml", "train: {steps: 40, warmup: 10, pretrain: 0}\n")
    assert load_config(Config, path).train == Training(steps=40, warmup=10, pretrain=0)
    halved = Training(steps=20, warmup=5, pretrain=0, validate_every=100)
    assert load_config(Config, path, ["train.steps=20"]).train == halved


def test_a_mistake_in_the_steps_is_told_and_nothing_else(tmp_path):
    assert message("train.steps=many") == 'train.steps = "many" must be an integer (--set train.steps=many)'
    assert message("train.steps=0").startswith("train.steps = 0 must be greater than or equal to 1")
    path = write(tmp_path / "c.yaml", "train: {steps: many, warmup: x}\n")
    assert message("train.steps=2", path=path).startswith('train.warmup = "x" must be an integer')


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("search.stepz=3", "unknown key search.stepz (--set search.stepz=3); did you mean search.steps?"),
        ("steps=3", "unknown key steps (--set steps=3); did you mean search.steps or train.steps?"),
        ("data.terms=3", "unknown key data.terms (--set data.terms=3); did you mean search.estimator.terms?"),
        (
            "search.qqq=3",
            "unknown key search.qqq (--set search.qqq=3); known keys here: steps, learning_rate, estimator, budget",
        ),
        (
            "search.estimator={kind: neumann, term: 3}",
            "unknown key search.estimator.term (--set search.estimator={kind: neumann, term: 3}); "
            "did you mean search.estimator.terms?",
        ),
        ("search.steps='3'", "search.steps = \"3\" must be an integer (--set search.steps='3')"),
        ("search.steps=true", "search.steps = true must be an integer (--set search.steps=true)"),
        ("search.steps=2.5", "search.steps = 2.5 must be an integer (--set search.steps=2.5)"),
        ("search.steps=0", "search.steps = 0 must be greater than or equal to 1 (--set search.steps=0)"),
        (
            "search.learning_rate=0",
            "search.learning_rate = 0 must be greater than 0 (--set search.learning_rate=0)",
        ),
        (
            "search.learning_rate=fast",
            'search.learning_rate = "fast" must be a number (--set search.learning_rate=fast)',
        ),
        ("data.shuffle=yes", 'data.shuffle = "yes" must be a boolean (--set data.shuffle=yes)'),
        ("name=3", "name = 3 must be a string (--set name=3)"),
        ("name=a/b", 'name = "a/b" must not hold a slash (--set name=a/b)'),
        (
            "search.budget=[]",
            "search.budget = [] must be a number or must be 'auto' (--set search.budget=[])",
        ),
        ("cells=[{}]", "cells.0.kind is missing (--set cells=[{}]); add it"),
        (
            "cells=[{kind: x}]",
            "cells.0.kind = \"x\" must be 'successive' or 'multi_scale' (--set cells=[{kind: x}])",
        ),
        ("search=3", "search = 3 must be a mapping of keys to values (--set search=3)"),
        ("data.crop=3", "data.crop = 3 must be a list (--set data.crop=3)"),
        ("search.steps", "--set search.steps: write it as key=value, for example search.steps=200"),
        ("search..steps=3", "--set search..steps=3: write it as key=value, for example search.steps=200"),
    ],
)
def test_the_line_for_each_mistake(override, expected):
    assert message(override) == expected


def test_an_unknown_member_of_a_union_lists_the_known_ones():
    line = message("search.estimator.kind=newton")
    assert line.startswith("search.estimator")
    assert "'neumann', 'first_order'" in line


def test_only_the_first_problem_is_told_and_the_others_are_counted():
    assert message("search.steps=0", "data.batch_size=x", "sead=1").endswith("(and 2 more)")


def test_a_problem_is_put_down_to_the_file_it_stands_in(tmp_path):
    base = write(tmp_path / "base.yaml", "search: {steps: 0}\n")
    leaf = write(tmp_path / "leaf.yaml", "extends: base.yaml\nsearch: {learning_rate: 0.1}\n")
    assert message("seed=3", path=leaf).endswith(f"({base})")
    assert "unknown key data.sise" in message(path=write(tmp_path / "x.yaml", "data: {sise: 3}\n"))


@pytest.mark.parametrize("text", ["- 1\n", "text\n", "3\n"])
def test_a_file_that_is_no_mapping(tmp_path, text):
    assert "a config is a mapping" in message(path=write(tmp_path / "c.yaml", text))


def test_an_empty_file_is_the_defaults(tmp_path):
    assert load_config(Config, write(tmp_path / "c.yaml", "# nothing\n")) == Config()


def test_unreadable_files(tmp_path):
    binary = tmp_path / "c.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in message(path=binary)
    assert message(path=write(tmp_path / "d.yaml", "a: [1\n")).startswith(f"{tmp_path / 'd.yaml'}:2: not valid YAML")


@pytest.mark.parametrize("name", ["demo", "demo.yaml", "configs/demo.yaml", "configs/demo"])
def test_shipped_configs_are_found_by_name(tmp_path, monkeypatch, name):
    (tmp_path / "shipped").mkdir()
    shipped = write(tmp_path / "shipped" / "demo.yaml", "seed: 5\n")
    monkeypatch.setattr(config_module, "SHIPPED_CONFIGS", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    assert resolve_config_path(name) == shipped
    own = write(tmp_path / "own.yaml", f"extends: {name}\n")
    assert load_config(Config, own).seed == 5
    with pytest.raises(UserError, match=r"a shipped config: demo$"):
        resolve_config_path("elsewhere/demo")
    if name.startswith("configs/") and name.endswith(".yaml"):
        (tmp_path / "configs").mkdir()
        write(tmp_path / name, "seed: 6\n")
        assert resolve_config_path(name) == Path(name)


configs = st.builds(
    Config,
    name=st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"])),
    seed=st.integers(),
    search=st.builds(
        Search,
        steps=st.integers(1),
        learning_rate=st.floats(0, exclude_min=True, allow_infinity=False),
        estimator=st.builds(Neumann, terms=st.integers(1)) | st.builds(FirstOrder),
        budget=st.none() | st.just("auto") | st.floats(allow_nan=False),
    ),
    cells=st.lists(
        st.builds(
            Cell,
            kind=st.sampled_from(["successive", "multi_scale"]),
            operators=st.lists(st.text()).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
)


@given(config=configs)
def test_the_resolved_config_reads_back_the_same(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(config_to_yaml(config), encoding="utf-8")
    read = load_config(Config, path)
    assert read == config
    assert config_hash(read) == config_hash(config)
    assert config_to_yaml(read) == config_to_yaml(config)


def test_the_resolved_config_has_the_order_of_the_model():
    text = config_to_yaml(Config())
    assert [line.partition(":")[0] for line in text.splitlines() if line[0] != " "] == [*Config.model_fields]
    assert "crop: [64, 64]" in text


def test_the_hash_differs_for_different_configs_and_not_between_processes():
    digest = config_hash(Config())
    assert len(digest) == 12
    assert int(digest, 16) >= 0
    assert config_hash(Config(seed=1)) != digest
    program = (
        "from timfuse.runtime.config import Section, config_hash\n"
        "class A(Section):\n    x: dict[str, float] = {'b': 0.1, 'a': 1e-9}\n"
        "class B(Section):\n    x: dict[str, float] = {'a': 1e-9, 'b': 0.1}\n"
        "print(config_hash(A()), config_hash(B()))"
    )
    seen = {
        word
        for seed in ("1", "2")
        for word in subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
    }
    assert len(seen) == 1


keys = st.sampled_from("abc")
trees = st.recursive(
    st.integers() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(keys, trees, max_size=3)


@given(below=mappings, above=mappings)
def test_merging_keeps_all_of_the_upper_and_what_it_does_not_touch_of_the_lower(below, above):
    before = copy.deepcopy((below, above))
    merged = config_module._merge(below, above)
    assert (below, above) == before
    assert config_module._merge(merged, above) == merged
    assert config_module._merge({}, above) == above
    assert config_module._merge(below, {}) == below
    leaves = dict(dotted_items(merged))
    for key, value in dotted_items(above):
        # An empty mapping changes nothing below it.
        if value != {}:
            assert leaves[key] == value
    touched = [key for key, _ in dotted_items(above)]
    for key, value in dotted_items(below):
        if not any(key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.") for other in touched):
            assert key == "" or leaves[key] == value


@given(
    path=st.lists(keys, min_size=1, max_size=4),
    value=st.integers() | st.booleans() | st.floats(allow_nan=False),
)
def test_a_setting_is_the_mapping_with_one_leaf(path, value):
    layer = config_module._override_layer(f"{'.'.join(path)}={json.dumps(value).replace('Infinity', '.inf')}")
    assert dict(dotted_items(layer.content)) == {".".join(path): value}
