"""Mutations are made from their seed alone, and those that keep a format keep it."""

import io
import json
from random import Random

import pytest
import torch
from PIL import Image

from timfuse.runtime.weights import save_weights

from .mutations import MUTATIONS, change_chunks, change_header, change_saved


def example(suffix, folder):
    path = folder / f"file{suffix}"
    if suffix in Image.registered_extensions():
        Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(path)
    elif suffix == ".safetensors":
        save_weights(path, {"a": torch.ones(2, 3), "b": torch.tensor(1.0)}, {})
    elif suffix == ".pt":
        torch.save({"state": {"step": 3, "weights": [torch.ones(2, 3)]}}, path)
    else:
        path.write_text('{"step": 1, "loss": {"a": 0.5}}\n' if "json" in suffix else "a: 1\nb: [x, 2.5]\n")
    return path.read_bytes()


@pytest.mark.parametrize("suffix", MUTATIONS)
def test_a_seed_makes_one_mutation(suffix, tmp_path):
    content = example(suffix, tmp_path)
    for mutation in MUTATIONS[suffix]:
        made = [mutation(Random(seed), content) for seed in range(40)]
        assert made == [mutation(Random(seed), content) for seed in range(40)]
        assert len({*made, content}) > 20, mutation.__name__


def test_changed_chunks_are_not_refused_by_their_checksums(tmp_path):
    content = example(".png", tmp_path)
    errors = []
    for seed in range(100):
        try:
            Image.open(io.BytesIO(change_chunks(Random(seed), content))).load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            errors.append(str(error))
    assert 5 < len(errors) < 95
    assert not any("checksum" in error for error in errors)


def test_a_changed_header_has_its_right_length_and_a_changed_checkpoint_can_be_read(tmp_path):
    content = example(".safetensors", tmp_path)
    for seed in range(40):
        changed = change_header(Random(seed), content)
        length = int.from_bytes(changed[:8], "little")
        json.loads(changed[8 : 8 + length])
        assert changed[8 + length :] == content[8 + int.from_bytes(content[:8], "little") :]
    for seed in range(40):
        torch.load(io.BytesIO(change_saved(Random(seed), example(".pt", tmp_path))))
