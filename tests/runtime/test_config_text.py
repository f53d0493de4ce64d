from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field

from timfuse.runtime.config import Fraction, Positive, Section, load_config
from timfuse.runtime.config_text import attribute_meanings, commented_yaml, describe_values


class Loss(Section):
    """A loss.

    Attributes:
        weight: Weight of the loss.
    """

    weight: Positive = 1.0


class Data(Section):
    """The pairs.

    Attributes:
        root: Folder of the pairs, which is explained in words that do not fit into one line of the docstring, so that
            they go on in the next one: it is still one text.
        crop: Height and width.
    """

    root: Path | None = None
    crop: Annotated[int, Field(ge=16, multiple_of=2)] = 64


class Base(Section):
    """What all configs have.

    Attributes:
        run: The run folder.
    """

    run: Path = Path("runs")


class Config(Base):
    """One run of the tests.

    A paragraph that is no title.

    Attributes:
        data: The pairs.
        loss: The loss.
        guide: Another loss; null for none.
        losses: Losses by name.
    """

    data: Data = Data()
    loss: Loss = Loss()
    guide: Loss | None = None
    kind: Literal["first", "second"] = "first"
    losses: dict[str, Loss | None] = Field(default_factory=dict)
    shares: Annotated[tuple[Fraction, ...], Field(min_length=2)] | None = None


EXPECTED = """\
# One run of the tests.

# The run folder. (path)
run: runs

# The pairs.
data:
  # Folder of the pairs, which is explained in words that do not fit into one line of the docstring, so
  # that they go on in the next one: it is still one text. (path; or null)
  root: null
  # Height and width. (whole number, at least 16, a multiple of 2; default 64)
  crop: 32

# The loss.
loss:
  # Weight of the loss. (number, above 0)
  weight: 1.0

# Another loss; null for none. (mapping; or null)
guide: null

# (first, second; default "first")
kind: second

# Losses by name.
losses:
  edges:
    weight: 2.0
  none: null

# (list of number, above 0, below 1, at least 2; or null)
shares: null
"""


def test_the_text_of_a_config(tmp_path):
    config = Config(data=Data(crop=32), kind="second", losses={"edges": Loss(weight=2.0), "none": None})
    text = commented_yaml(config)
    assert text == EXPECTED
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_config(Config, path) == config


def test_the_keys_of_a_section_that_is_null_follow_as_a_comment(tmp_path):
    class Guided(Section):
        """A config."""

        guide: Loss | None = None
        seed: int = 0

    text = commented_yaml(Guided())
    hidden = "# guide:\n#   # Weight of the loss. (number, above 0)\n#   weight: 1.0\n"
    assert f"guide: null\n{hidden}\n# (whole number)\nseed: 0\n" in text
    opened = text.replace("guide: null\n", "").replace(hidden, hidden.replace("# ", "", 1).replace("#   ", "  "))
    assert yaml.safe_load(opened) == {"guide": {"weight": 1.0}, "seed": 0}


def test_meanings_come_from_the_class_and_its_bases():
    meanings = attribute_meanings(Config)
    assert list(meanings)[-5:] == ["run", "data", "loss", "guide", "losses"]
    assert meanings["run"] == "The run folder."
    assert attribute_meanings(Data)["root"].endswith("so that they go on in the next one: it is still one text.")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "boolean"}, "true or false"),
        ({"type": "number", "exclusiveMinimum": 0.0, "exclusiveMaximum": 1.0}, "number, above 0, below 1"),
        ({"type": "integer", "minimum": 1, "maximum": 2000}, "whole number, at least 1, at most 2000"),
        ({"anyOf": [{"type": "string", "format": "path"}, {"type": "null"}]}, "path; or null"),
        ({"type": "array", "prefixItems": [{"type": "number"}] * 2, "minItems": 2}, "list of 2: number"),
        ({"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1}, "list of a, b, at least 1"),
        ({"const": "train"}, "train"),
        ({"$ref": "#/$defs/Loss"}, "mapping"),
        ({"type": "string", "minLength": 1, "maxLength": 9}, "text, 1 or more characters, 9 or fewer characters"),
        ({}, "any value"),
    ],
)
def test_values_in_words(schema, words):
    assert describe_values(schema) == words
