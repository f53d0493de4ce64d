"""Fusing videos: which frames are written with which times and colours, and what a stop leaves."""

import os
import signal
from pathlib import Path

import av
import numpy as np
import pytest

from timfuse.data import Alignment, make_scene
from timfuse.data.video import Video, frame_pixels
from timfuse.deploy import load
from timfuse.deploy.fuse_video import fuse_video
from timfuse.runtime.errors import UserError

from ..videos import Camera, plain_frames, read_levels, write_video


class Choice:
    """Stands for a network: the fused image is the second source, or the first."""

    name, colour = "choice", "second"

    def __init__(self, index=1):
        self.index, self.seen = index, []

    def __call__(self, first, second):
        self.seen.append((first.shape, second.shape))
        return (first, second)[self.index]


class Stopped(Choice):
    """The user presses Ctrl-C while one of the frames is fused."""

    def __init__(self, frame):
        super().__init__()
        self.frame = frame

    def __call__(self, first, second):
        if len(self.seen) == self.frame:
            os.kill(os.getpid(), signal.SIGINT)
        return super().__call__(first, second)


class Refusing(Choice):
    """A network that refuses a frame."""

    def __init__(self, frame):
        super().__init__()
        self.frame = frame

    def __call__(self, first, second):
        if len(self.seen) == self.frame:
            raise UserError("too large")
        return super().__call__(first, second)


@pytest.fixture
def video(tmp_path):
    """A function that writes a video of plain frames and opens it."""

    def make(name, count, rate=25, colours=None, **options):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_video(tmp_path / name, plain_frames(count, **options), rate, colours=colours)
        return Video(str(tmp_path / name))

    return make


@pytest.fixture
def output(tmp_path):
    return tmp_path / "new" / "fused.mp4"


def test_a_fused_video_has_the_frames_of_the_slower_one(video, output):
    done = fuse_video(Choice(), video("ir.mp4", 30, rate=10), video("vis.mp4", 90, rate=30, step=2), output)
    assert done[:2] == (30, 0)
    times, levels = read_levels(output)
    assert times == pytest.approx([index / 10 for index in range(30)])
    np.testing.assert_allclose(levels[:, 0], 2 + 6 * np.arange(30), atol=2)
    assert [path.name for path in output.parent.iterdir()] == ["fused.mp4"]


@pytest.mark.parametrize("colours", [None, (1, 1), (5, 2)])
def test_colour_is_kept(video, output, colours):
    first, second = video("ir.mp4", 5, step=40), video("vis.mp4", 5, step=40, tint=(1, 0.5, 0.2), colours=colours)
    fuser = Choice()
    fuse_video(fuser, first, second, output)
    assert fuser.seen[0] == ((48, 64), (48, 64, 3))
    np.testing.assert_allclose(read_levels(output)[1][3], (160, 80, 32), atol=4)
    fuse_video(Choice(0), first, second, output, overwrite=True)
    np.testing.assert_allclose(read_levels(output)[1][3], (160, 160, 160), atol=2)


def test_sizes(video, output):
    first, second = video("ir.mp4", 3, step=40, size=(66, 50)), video("vis.mp4", 3, step=40, size=(34, 26))
    with pytest.raises(UserError, match=r"two sizes: .*ir.mp4 is 66x50, .*vis.mp4 is 34x26; .*--resize second"):
        fuse_video(Choice(), first, second, output)
    fuse_video(Choice(), first, second, output, resize="second")
    assert Video(str(output)).size == (66, 50)
    shift = Alignment("translation", (66, 50), (66, 50), ((1, 0, 5), (0, 1, 2), (0, 0, 1)), 0.9)
    with pytest.raises(UserError, match="the transform is for images of 66x50 and 66x50, not of 66x50 and 34x26"):
        fuse_video(Choice(), first, second, output, overwrite=True, alignment=shift)
    fuse_video(Choice(), first, first, output, overwrite=True, alignment=shift)
    assert Video(str(output)).size == (60, 48)  # of 61x48, since columns come in twos
    narrow, thin = output.with_name("narrow.mp4"), ((1, 0, 65), (0, 1, 0), (0, 0, 1))
    with pytest.raises(UserError, match="frames of 1x50 are too small for a video"):
        fuse_video(Choice(), first, first, narrow, alignment=Alignment("translation", (66, 50), (66, 50), thin, 0.9))
    assert [path.name for path in output.parent.iterdir()] == ["fused.mp4"]


def test_ctrl_c_and_resuming(video, output, tmp_path):
    sources = video("ir.mp4", 300, step=0.8), video("vis.mp4", 300, step=0.8)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(UserError, match="stopped after 261 frames; go on with --resume"):
            fuse_video(Stopped(260), *sources, output)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [path.name for path in output.parent.iterdir()] == ["fused.mp4.parts"]
    with pytest.raises(UserError, match=r"fused.mp4.parts is there already; go on with --resume"):
        fuse_video(Choice(), *sources, output)
    assert fuse_video(Choice(), *sources, output, resume=True)[:2] == (39, 261)
    whole = tmp_path / "whole.mp4"
    fuse_video(Choice(), *sources, whole)
    (times, levels), (whole_times, whole_levels) = read_levels(output), read_levels(whole)
    assert times == whole_times
    assert len(times) == 300
    np.testing.assert_allclose(levels, whole_levels, atol=1)
    assert fuse_video(Choice(), *sources, output, resume=True) is None
    assert [path.name for path in output.parent.iterdir()] == ["fused.mp4"]


def test_an_error_keeps_what_was_fused(video, output):
    sources = video("ir.mp4", 30), video("vis.mp4", 30)
    with pytest.raises(UserError, match="too large"):
        fuse_video(Refusing(20), *sources, output)
    assert fuse_video(Choice(), *sources, output, resume=True)[:2] == (10, 20)
    with pytest.raises(UserError, match="too large"):
        fuse_video(Refusing(0), *sources, output, overwrite=True)
    assert [path.name for path in output.parent.iterdir()] == ["fused.mp4"]


def test_parts_of_another_size_or_damaged_ones_are_refused(video, output):
    sources = video("ir.mp4", 4), video("vis.mp4", 4)
    with pytest.raises(UserError, match="too large"):
        fuse_video(Refusing(2), *sources, output)
    part = Path(f"{output}.parts", "000000000000000.nut")
    part.write_bytes(b"no part")
    with pytest.raises(UserError, match=r"0.nut is damaged; start again with --overwrite"):
        fuse_video(Choice(), *sources, output, resume=True)
    write_video(part, plain_frames(4, size=(32, 32)))
    with pytest.raises(UserError, match=r"0.nut has another size than the frames now"):
        fuse_video(Choice(), *sources, output, resume=True)
    part.with_name("origin.yaml").unlink()
    with pytest.raises(UserError, match=r"cannot read .*origin.yaml: .*; start again with --overwrite"):
        fuse_video(Choice(), *sources, output, resume=True)
    assert fuse_video(Choice(), *sources, output, overwrite=True)[:2] == (4, 0)


def test_resuming_from_other_videos_or_in_another_way_is_refused(video, output):
    first, second, other = video("ir.mp4", 4), video("vis.mp4", 4), video("other.mp4", 4)
    longer = video("new/vis.mp4", 5)
    with pytest.raises(UserError, match="too large"):
        fuse_video(Refusing(2), first, second, output)
    another, shift = Choice(0), Alignment("translation", (64, 48), (64, 48), ((1, 0, 0), (0, 1, 0), (0, 0, 1)), 0.9)
    another.name = "another"
    for fuser, sources, options, line in (
        (Choice(), (other, second), {}, r"begun with first: ir.mp4, \d+ bytes, not other.mp4, \d+ bytes; go on as"),
        (Choice(), (first, longer), {}, r"begun with second: vis.mp4, (\d+) bytes, not vis.mp4, (?!\1)\d+ bytes;"),
        (another, (first, second), {}, "begun with network: choice, not another;"),
        (Choice(), (first, second), {"resize": "second"}, "begun with resize: none, not second;"),
        (Choice(), (first, second), {"alignment": shift}, "begun with alignment: none, not 1 0 0 0 1 0 0 0 1;"),
    ):
        with pytest.raises(UserError, match=line):
            fuse_video(fuser, *sources, output, resume=True, **options)
    assert fuse_video(Choice(), first, second, output, resume=True)[:2] == (2, 2)


def test_a_folder_of_somebody_else_is_kept(video, output):
    sources = video("ir.mp4", 2), video("vis.mp4", 2)
    strange = Path(f"{output}.parts", "spare.nut")
    strange.parent.mkdir(parents=True)
    strange.write_text("spare")
    for options in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(UserError, match=r"fused.mp4.parts holds spare.nut, which is no part of a video"):
            fuse_video(Choice(), *sources, output, **options)
    assert strange.read_text() == "spare"


def test_a_file_that_is_cut_off_or_damaged_is_told(video, output, tmp_path, capsys):
    first = video("ir.mkv", 40)
    fuse_video(Choice(), first, first, output)
    assert "cut off" not in capsys.readouterr().err
    content = Path(first.name).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) * 2 // 3])
    cut = Video(str(tmp_path / "cut.mkv"))
    for order in ((cut, first), (first, cut)):
        done = fuse_video(Choice(), *order, output, overwrite=True)
        notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
        assert len(notes) == 1
        end = f"its frames end at {done.fused / 25:.2f} s; it may be cut off"
        assert notes[0].endswith(f"cut.mkv takes 1.60 s by its header, but {end}")
    content = bytearray(content)
    with av.open(first.name) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    at = content.index(bytes(packets[15]))
    content[at : at + packets[15].size] = bytes(packets[15].size)
    (tmp_path / "bad.mkv").write_bytes(content)
    fuse_video(Choice(), first, Video(str(tmp_path / "bad.mkv")), output, overwrite=True)
    assert "bad.mkv is damaged; 1 of its frames could not be decoded, or not wholly" in capsys.readouterr().err


def test_outputs_that_cannot_be(video, output):
    first, second = video("ir.mp4", 2), video("vis.mp4", 2)
    for name in ("fused", "fused.png", "fused.avi"):
        with pytest.raises(UserError, match=f"{name} is not named like a video; choose a file that ends in .mp4"):
            fuse_video(Choice(), first, second, Path(name))
    for source in (second, Video(f"file://{second.name}")):
        with pytest.raises(UserError, match=r"vis.mp4 is a source, and would be replaced"):
            fuse_video(Choice(), first, source, Path(second.name), overwrite=True)
    fuse_video(Choice(), first, second, output)
    with pytest.raises(UserError, match=r"fused.mp4 is there already"):
        fuse_video(Choice(), first, second, output)
    with pytest.raises(UserError, match="--resume and --overwrite exclude each other"):
        fuse_video(Choice(), first, second, output, resume=True, overwrite=True)


def test_live_until_ctrl_c(output, video):
    with Camera(plain_frames(80, step=3), 25) as one, Camera(plain_frames(80, step=3), 25) as other:
        first, second = Video(one.url), Video(other.url)
        with pytest.raises(UserError, match="--resume cannot go on"):
            fuse_video(Choice(), first, second, output, resume=True)
        with pytest.raises(UserError, match=r"is live and .*ir.mp4 is not"):
            fuse_video(Choice(), first, video("ir.mp4", 2), output)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            done = fuse_video(Stopped(5), first, second, output)
        finally:
            signal.signal(signal.SIGINT, before)
    assert done.fused == 6
    times, levels = read_levels(output)
    assert len(times) == 6
    assert times == sorted(set(times))
    assert (np.diff(levels[:, 0]) > 0).all()


@pytest.mark.parametrize("network", ["ivif", "ivif-fast", "ivif-nano"])
def test_a_scene_that_stands_still_flickers_no_more_than_its_sources(tmp_path, output, network):
    scene, generator = make_scene(0, height=120, width=160), np.random.default_rng(0)
    changes = []
    for name, image in (("ir.mp4", scene.first), ("vis.mp4", scene.second)):
        noisy = [np.clip(image + generator.normal(0, 4, image.shape), 0, 255).astype(np.uint8) for _ in range(10)]
        write_video(tmp_path / name, [np.repeat(frame[..., None], 3, -1) for frame in noisy], options={"crf": "18"})
        changes.append(flicker(tmp_path / name))
    fuse_video(load(network, "cpu"), Video(str(tmp_path / "ir.mp4")), Video(str(tmp_path / "vis.mp4")), output)
    assert flicker(output) <= 1.1 * max(changes)


def flicker(path):
    """Mean absolute change from frame to frame."""
    frames = np.stack([frame_pixels(frame)[..., 1].astype(float) for frame in Video(str(path)).frames()])
    return np.abs(np.diff(frames, axis=0)).mean()
