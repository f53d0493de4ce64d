"""Fusing files: what is written where, what is skipped, and that a stop leaves whole images only."""

import errno
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
import tifffile
from PIL import Image

from timfuse.data import match_pairs, read_pixels
from timfuse.deploy import fuse_files, load
from timfuse.deploy.fuse_files import _ahead, _resampled
from timfuse.runtime.errors import UserError


@pytest.fixture
def fuser(network_folder):
    return load(network_folder, "cpu")


@pytest.fixture
def fuse(folders, fuser):
    """A function that fuses the three pairs."""

    def call(output=folders / "out", first=folders / "ir", second=folders / "vis", fuser=fuser, **options):
        return fuse_files(fuser, match_pairs(first, second), output, **options)

    return call


def written(folder):
    return sorted(path.name for path in folder.iterdir())


NAMES = ["scene_0.png", "scene_1.png", "scene_2.png"]


def test_folders(fuse, folders, fuser, capsys):
    files = fuse()
    assert (files.fused, files.skipped) == (3, 0)
    assert files.rate > 0
    assert written(folders / "out") == NAMES
    for name in NAMES:
        sources = read_pixels(folders / "ir" / name), read_pixels(folders / "vis" / name)
        np.testing.assert_array_equal(read_pixels(folders / "out" / name), fuser(*sources))
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("fusing: 3/3, ")
    assert "images/s" in last


def test_a_glob_and_a_single_pair(fuse, folders):
    assert fuse(first=folders / "ir" / "scene_[12].png", second=folders / "vis" / "scene_[12].*").fused == 2
    assert written(folders / "out") == NAMES[1:]
    one, other = folders / "ir" / "scene_0.png", folders / "thermal.png"
    shutil.move(folders / "vis" / "scene_0.png", other)
    assert fuse(first=one, second=other, output=folders / "new" / "fused.jpg").fused == 1
    assert Image.open(folders / "new" / "fused.jpg").format == "JPEG"
    assert fuse(first=one, second=other, output=folders / "new").fused == 1
    assert written(folders / "new") == ["fused.jpg", "scene_0.png"]


def deepen(folder, colour):
    for path in list(folder.iterdir()):
        pixels = np.asarray(Image.open(path)).astype(np.uint16) * 257
        path.unlink()
        if colour:
            tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="rgb")
        else:
            Image.fromarray(pixels).save(path)


def test_sixteen_bits(fuse, folders):
    deepen(folders / "ir", colour=False)
    assert fuse().fused == 3
    assert read_pixels(folders / "out" / NAMES[0]).dtype == np.uint8
    deepen(folders / "vis", colour=True)
    deep = folders / "deep"
    assert fuse(output=deep).fused == 3
    assert written(deep) == ["scene_0.tif", "scene_1.tif", "scene_2.tif"]
    assert read_pixels(deep / "scene_0.tif").dtype == np.uint16
    assert fuse(output=deep, resume=True) == (0, 3, 0.0, None, (), ())
    shutil.copytree(folders / "ir", folders / "second")
    assert fuse(output=folders / "grey", second=folders / "second").fused == 3
    assert read_pixels(folders / "grey" / NAMES[0]).dtype == np.uint16


def test_colours_that_the_task_does_not_expect_are_told(fuse, folders):
    assert fuse(output=folders / "usual").hints == ()
    swapped = fuse(output=folders / "swapped", first=folders / "vis", second=folders / "ir")
    assert swapped.hints == (
        "3 first images (infrared) have colour and the other sources (visible) are grey: if they are swapped, exchange "
        "--first and --second; --colour first keeps their colour",
    )
    assert read_pixels(folders / "swapped" / NAMES[0]).ndim == 2
    fuser = load("ivif-fast", "cpu", colour="first")
    kept = fuse(fuser=fuser, output=folders / "kept", first=folders / "vis", second=folders / "ir")
    assert kept.hints == ()
    assert read_pixels(folders / "kept" / NAMES[0]).ndim == 3
    shutil.copytree(folders / "vis", folders / "exposures")
    both = fuse(output=folders / "both", first=folders / "exposures")
    assert both.hints[0].startswith("3 infrared images have colour, which is not kept; if these pairs are exposures")


def test_grey_saved_in_colour_is_written_grey(fuse, folders):
    for path in (folders / "vis").iterdir():
        Image.open(path).convert("L").convert("RGB").save(path)
    fuse()
    assert read_pixels(folders / "out" / NAMES[0]).ndim == 2


def test_what_is_there_is_kept_unless_asked(fuse, folders):
    fuse()
    for name in NAMES[:2]:
        (folders / "out" / name).write_text("old")
    (folders / "out" / NAMES[2]).unlink()
    with pytest.raises(UserError, match="out holds 2 of 3 fused images already; go on with --resume, replace them"):
        fuse()
    with pytest.raises(UserError, match="exclude each other"):
        fuse(resume=True, overwrite=True)
    assert not (folders / "out" / NAMES[2]).exists()
    assert fuse(resume=True)[:2] == (1, 2)
    assert (folders / "out" / NAMES[0]).read_text() == "old"
    assert fuse(overwrite=True)[:2] == (3, 0)
    assert read_pixels(folders / "out" / NAMES[0]).ndim == 3


def test_times_of_images_are_told_where_there_are_enough(folders, fuser):
    pair = match_pairs(folders / "ir", folders / "vis")[0]
    pairs = [pair._replace(name=f"pair_{index}") for index in range(20)]
    assert fuse_files(fuser, pairs[:19], folders / "few").milliseconds is None
    calls = iter(range(20))
    fuser.network.register_forward_hook(lambda *_: time.sleep(0.5 if next(calls) == 7 else 0))
    median, high = fuse_files(fuser, pairs, folders / "many").milliseconds
    assert 0 < median < 200 < high < 5000


def test_two_sizes(fuse, folders):
    path = folders / "vis" / NAMES[1]
    image = Image.open(path)
    image.resize((25, 35)).save(path)
    (line,) = fuse().failed
    words = ["the pair scene_1: two sizes", f"ir/{NAMES[1]} is 50x70", f"vis/{NAMES[1]} is 25x35", "--resize second"]
    assert all(word in line for word in words)
    assert written(folders / "out") == [NAMES[0], NAMES[2]]
    assert fuse(resume=True, resize="second")[:2] == (1, 2)
    assert Image.open(folders / "out" / NAMES[1]).size == (50, 70)
    with pytest.raises(UserError, match="--resize must be one of second, not 'first'"):
        fuse(resize="first")


@pytest.mark.parametrize("shape", [(40, 30), (11, 64), (40, 30, 3)])
def test_resampling_keeps_flat_images_and_their_depth(shape):
    flat = np.full(shape, 40_000, np.uint16)
    resampled = _resampled(flat, 20, 33)
    assert (resampled.shape, resampled.dtype) == ((20, 33, *shape[2:]), np.uint16)
    assert np.abs(resampled.astype(int) - 40_000).max() <= 1


def test_sources_are_never_replaced(fuse, folders):
    before = {path: path.read_bytes() for path in folders.rglob("*.png")}
    (folders / "way").symlink_to(folders / "vis")
    for folder in ("ir", "vis", "way", "vis/../ir"):
        with pytest.raises(UserError, match=rf"{folder} holds the sources, where fused images would pass for them"):
            fuse(output=folders / folder, overwrite=True)
    with pytest.raises(UserError, match=r"out\.png is one file for 3 pairs; name a folder"):
        fuse(output=folders / "out.png")
    with pytest.raises(UserError, match=r"scene_1\.png is a source"):
        fuse(folders / "ir" / NAMES[1], folders / "ir" / NAMES[0], folders / "ir" / NAMES[1], overwrite=True)
    assert {path: path.read_bytes() for path in folders.rglob("*.png")} == before


def test_a_damaged_image_does_not_stop_the_others(fuse, folders):
    path = folders / "vis" / NAMES[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    for left in (2, 0):
        files = fuse(resume=True)
        assert files[:2] == (left, 2 - left)
        (line,) = files.failed
        assert line.startswith(f"the pair scene_1: cannot read the image {path} (")
        assert written(folders / "out") == [NAMES[0], NAMES[2]]
    with pytest.raises(UserError, match="the pair scene_1: cannot read the image"):
        fuse(folders / "one.png", folders / "ir" / NAMES[1], path)
    path.write_bytes(whole)
    assert fuse(resume=True) == (1, 2, ANY, None, (), ())


def test_a_folder_that_cannot_be_written(fuse, folders):
    (folders / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file: a part of this path is a file, not a folder"):
        fuse(output=folders / "file")
    if os.geteuid():
        (folders / "locked").mkdir(mode=0o500)
        with pytest.raises(UserError, match="permission denied"):
            fuse(output=folders / "locked")


def test_a_disk_that_fills_up(fuse, folders, monkeypatch):
    rename = os.replace

    def full(source, target):
        if Path(target).name == NAMES[1]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"scene_1\.png: the disk is full"):
        fuse()
    assert written(folders / "out") == NAMES[:1]
    monkeypatch.undo()
    assert fuse(resume=True)[:2] == (2, 1)


def test_ctrl_c_ends_after_the_pair_at_hand(fuse, folders, fuser):
    def interrupted(first, second):
        os.kill(os.getpid(), signal.SIGINT)
        return fuser(first, second)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(UserError, match="stopped after 1 of 3 pairs; go on with --resume"):
            fuse(fuser=interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
    assert written(folders / "out") == NAMES[:1]
    assert fuse(resume=True)[:2] == (2, 1)


def test_an_error_of_the_network_names_the_pair(fuse, folders):
    def refusing(first, second):
        raise UserError("too large")

    assert fuse(fuser=refusing).failed == tuple(f"the pair scene_{index}: too large" for index in range(3))


def test_reading_is_one_ahead():
    done = []
    second_started = threading.Event()

    def read(item):
        if item == 1:
            second_started.set()
        done.append(item)
        return item * item

    results = _ahead(read, [0, 1, 2, 3])
    assert next(results) == 0
    assert second_started.wait(10)
    assert 3 not in done
    assert list(results) == [1, 4, 9]
    assert done == [0, 1, 2, 3]
    assert list(_ahead(read, [])) == []
