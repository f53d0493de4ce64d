import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from timfuse.runtime.errors import UserError
from timfuse.runtime.yaml_text import dump_yaml, parse_yaml

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["1e-3", "no", "yes", "1:30", "2020-01-01", "0x1f", "010", "1_000", ".5", "<<", "=", "~", ""])
)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@example({"\x85": ["a\u2028b", "\x85", "\r", "\u2029"]})
@given(PLAIN)
def test_what_is_written_is_read_back_with_the_same_types(content):
    read = parse_yaml(dump_yaml(content), "test")
    assert read == content
    assert repr(read) == repr(content)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2e+3", -2e3),
        ("1.", 1.0),
        (".5", 0.5),
        ("+.5e1", 5.0),
        ("1_000", 1000),
        ("0", 0),
        ("-7", -7),
        (".inf", float("inf")),
        ("null", None),
        ("", None),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("2020-01-01", "2020-01-01"),
        ("e3", "e3"),
        ("1e", "1e"),
        ("1.5.2", "1.5.2"),
        ("_1", "_1"),
        ("'1'", "1"),
    ],
)
def test_scalars(text, value):
    read = parse_yaml(text, "test")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [1, 2\n", 3, "expected"),
        ("a: 1\n\tb: 2\n", 2, "cannot start any token"),
        ("a: 1\nb: 2\na: 3\n", 3, "the key a occurs twice"),
        ("a:\n  3: x\n", 2, "a key must be text"),
        ("a: &x 1\nb: *x\n", 1, "anchors"),
        ("x: 1\na: !!python/object/apply:os.system ['false']\n", 2, "tags"),
        ("a: 1\n---\nb: 1\n", 2, "expected a single document"),
        ("a: 1\nb: " + "[" * 60 + "]" * 60, 2, "nested too deeply; write it flatter"),
        ("a: 1\nb: " + "9" * 5000, 2, "a number must have at most 308 digits"),
        ("a: 1\nb: 0x" + "f" * 5000, 2, "a number must have at most 308 digits"),
        ('a: 1\nb: "\\udcff"', 2, "must be in UTF-8"),
    ],
)
def test_errors_name_the_file_and_the_line(text, line, words):
    with pytest.raises(UserError, match=words) as caught:
        parse_yaml(text, "some.yaml")
    assert str(caught.value).startswith(f"some.yaml:{line}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: \x00", "[" * 5000, "- " * 20000 + "x"])
def test_other_broken_text_is_a_user_error(text):
    with pytest.raises(UserError, match=r"some\.yaml"):
        parse_yaml(text, "some.yaml")


def test_lists_of_plain_values_take_one_line():
    assert dump_yaml({"kernels": [3, 5], "cells": [{"kind": "x"}]}) == "kernels: [3, 5]\ncells:\n- kind: x\n"


def test_whole_numbers_are_keys_where_they_are_wanted():
    assert parse_yaml("names: {0: a, '1': b}", "t", numbered=True) == {"names": {0: "a", "1": "b"}}
    for text in ("{0: a, 0: b}", "{1.5: a}", "{true: a}", "{null: a}"):
        with pytest.raises(UserError):
            parse_yaml(text, "t", numbered=True)
    with pytest.raises(UserError, match="a key must be text"):
        parse_yaml("{0: a}", "t")


def test_honest_nesting_and_numbers_are_read():
    assert parse_yaml("[" * 50 + "]" * 50, "x") is not None
    assert parse_yaml("9" * 308, "x") == 10**308 - 1
