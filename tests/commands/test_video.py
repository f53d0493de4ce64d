"""`timfuse fuse` with videos and cameras: whole runs, a kill, and requests that cannot be met."""

import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from timfuse.data import Alignment, make_scene, save_alignment
from timfuse.data.video import Video

from ..videos import Camera, plain_frames, read_levels, write_video
from .conftest import write_image, write_network, write_pairs

WORDS = ["fuse", "--first", "ir.mp4", "--second", "vis.mp4", "--network", "net", "-o", "fused.mp4"]


@pytest.fixture(autouse=True)
def _network():
    write_network(Path("net"))


def write_videos(count=20, **options):
    for name in ("ir.mp4", "vis.mp4"):
        write_video(name, plain_frames(count, **options))


def add_sound(name):
    """Copy a video with a second of silence."""
    with av.open(name) as source, av.open("sound.mp4", "w") as target:
        video = source.streams.video[0]
        copied = target.add_stream_from_template(video)
        sound = target.add_stream("aac", rate=8000)
        for packet in source.demux(video):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
        for index in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 1024 * index
            target.mux(sound.encode(frame))
        target.mux(sound.encode())
    return "sound.mp4"


def test_fusing_two_videos(run, refused):
    write_video("ir.mp4", plain_frames(20), rate=10)
    write_video("vis.mp4", plain_frames(25, tint=(1, 0.5, 0.2)), rate=25)
    code, output, errors = run(*WORDS[:2], add_sound("ir.mp4"), *WORDS[3:])
    assert code == 0, errors
    assert output.startswith("10 frames fused with mine into fused.mp4, ")
    assert output.endswith(" frames per second\n")
    notes = [line for line in errors.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: the sound is left out",
        "note: sound.mp4 takes 2.00 s, vis.mp4 takes 1.00 s; their common part is fused",
        "note: sound.mp4 has 10, vis.mp4 has 25 frames per second; the fused video has those of the slower one",
    ]
    assert errors.splitlines()[-1].startswith("fusing: 10/10, ")
    assert "frames/s" in errors
    assert len(read_levels("fused.mp4")[0]) == 10
    assert "fused.mp4 is there already; go on with --resume" in refused(*WORDS)
    assert run(*WORDS, "--resume")[:2] == (0, "fused.mp4 is there already\n")
    assert run(*WORDS, "--overwrite")[1].startswith("10 frames fused")


def test_swapped_videos_are_told(run):
    write_video("vis.mp4", plain_frames(3, step=40))
    write_video("ir.mp4", plain_frames(3, step=40, tint=(1, 0.5, 0.2)))
    assert "note: ir.mp4 has colour and vis.mp4 is grey: if they are swapped" in run(*WORDS)[2]


@pytest.mark.slow
def test_a_kill_and_resuming(run, refused):
    write_videos(450, step=0.5, size=(32, 24))
    parts = Path("fused.mp4.parts")
    process = subprocess.Popen([sys.executable, "-m", "timfuse", *WORDS], stderr=subprocess.DEVNULL)
    try:
        while not list(parts.glob("*.nut")) and process.poll() is None:
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert not Path("fused.mp4").exists()
    before = 250 * len(list(parts.glob("*.nut")))
    assert before == 250
    assert "fused.mp4.parts is there already; go on with --resume" in refused(*WORDS)
    output = run(*WORDS, "--resume")[1]
    assert output.startswith("200 frames fused with mine into fused.mp4, ")
    assert output.endswith("; 250 were fused before\n")
    assert not parts.exists()
    assert read_levels("fused.mp4")[0] == pytest.approx([index / 25 for index in range(450)])


def test_two_cameras_until_one_ends(run):
    with Camera(plain_frames(100, step=2), 25) as first, Camera(plain_frames(80, step=3), 25) as second:
        words = ["--first", first.url, "--second", second.url, "-n", "net", "-o", "fused.mov"]
        code, output, errors = run("fuse", *words)
    assert code == 0, errors
    count = int(output.split()[0])
    assert "fusing: 1, " in errors  # without a total
    times, _ = read_levels("fused.mov")
    assert len(times) == count > 0
    assert times == sorted(set(times))


@pytest.mark.parametrize("align", ["auto", "transform.yaml"])
def test_aligning(run, align):
    scenes = [make_scene(seed, height=128, width=160) for seed in range(2)]
    write_video("ir.mp4", [coloured(scene.first[:, 6:]) for scene in scenes])
    write_video("vis.mp4", [coloured(scene.second[:, :-6]) for scene in scenes])
    matrix = ((1, 0, 6), (0, 1, 0), (0, 0, 1))
    save_alignment(Alignment("translation", (154, 128), (154, 128), matrix, 0.9), Path("transform.yaml"))
    code, output, errors = run(*WORDS, "--align", align)
    assert code == 0, errors
    assert ("aligned by one homography, with confidence 0." in output) == (align == "auto")
    assert 144 <= Video("fused.mp4").size[0] <= 148
    assert "warning: " not in errors


def test_a_transform_for_other_sizes(refused):
    write_videos(2)
    save_alignment(Alignment("translation", (9, 9), (9, 9), ((1, 0, 1), (0, 1, 0), (0, 0, 1)), 0.9), Path("a.yaml"))
    assert "a.yaml: the transform is for images of 9x9 and 9x9, not of 64x48" in refused(*WORDS, "--align", "a.yaml")


def coloured(image):
    """An image with three channels."""
    return np.repeat(image[..., None], 3, -1) if image.ndim == 2 else image


def test_a_shift_is_told(run):
    for name, image in (("ir.mp4", "first"), ("vis.mp4", "second")):
        frames = [getattr(make_scene(seed, height=120, width=160), image) for seed in range(3)]
        shifted = [frame[:, 7:159] if name == "ir.mp4" else frame[:, :152] for frame in frames]
        write_video(name, [coloured(frame) for frame in shifted])
    assert "shift of 7 px (in 3 pairs looked at); align the videos with --align auto" in run(*WORDS)[2]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--first", "none.mp4"], "cannot open none.mp4: No such file or directory"),
        (["--first", "99"], "cannot open /dev/video99: No such file or directory"),
        (["--first", "rtsp://127.0.0.1:9/a"], "cannot open rtsp://127.0.0.1:9/a: Connection refused"),
        (["--first", "text.mp4"], "cannot open text.mp4: Invalid data found when processing input"),
        (["--first", "a.png"], "a.png is no video; name two videos or cameras by --first and --second"),
        (["--first", "small.mp4"], "two sizes: small.mp4 is 48x32, vis.mp4 is 64x48; if both show the same section"),
        (["--resize", "first"], "--resize must be"),
        (["--resize", "second", "--align", "auto"], "--align and --resize exclude each other"),
        (["--align", "none.yaml"], "cannot read none.yaml"),
        (["--labels", "labels"], "--labels is for images, not for videos"),
        (["--stretch"], "--stretch is for images, not for videos"),
        (["--data", "pairs"], "--data is for images, not for videos"),
        (["-o", "fused"], "fused is not named like a video; choose a file that ends in .mp4 or .mov"),
        (["-o", "vis.mp4"], "vis.mp4 is a source, and would be replaced"),
        (["-o", "text.mp4/fused.mp4"], "a part of this path is a file"),
    ],
)
def test_what_cannot_be_fused(refused, words, line):
    write_videos(2)
    write_video("small.mp4", plain_frames(2, size=(48, 32)))
    Path("text.mp4").write_text("no video\n" * 100)
    write_image(Path("a.png"))
    write_pairs(Path("pairs"))
    assert line in refused(*WORDS, *words)
    assert not Path("fused.mp4").exists()


def test_naming_videos_by_sources(run, refused):
    write_videos(3)
    rest = ["-n", "net", "-o", "fused.mp4"]
    assert run("fuse", "--sources", "ir.mp4", "vis.mp4", *rest)[1].startswith("3 frames fused with mine into fused.mp4")
    assert len(read_levels("fused.mp4")[0]) == 3
    for words, line in (
        (["--sources", "ir.mp4", "vis.mp4", "ir.mp4"], "a video takes two sources, not 3; name two with --sources"),
        (["--sources", "ir.mp4", "images"], "images is no video; name two videos"),
        (["--sources", "images", "ir.mp4"], "images is no video; name two videos"),
        (["--sources", "ir.mp4"], "one source is no video; name two videos"),
        (["--sources", "a", "b", "--first", "ir.mp4"], "name the videos by --sources, or else by --first and --second"),
        (["--sources", "ir.mp4", "vis.mp4", "--stretch"], "--stretch is for images, not for videos"),
    ):
        assert line in refused("fuse", *words, "-n", "net", "-o", "new.mp4")
    assert not list(Path().glob("new.mp4*"))


def test_going_on_with_another_video_is_refused(run, refused):
    write_videos(3)
    Path("fused.mp4.parts").mkdir()
    write_video(Path("fused.mp4.parts", "000000000000000.nut"), plain_frames(1))
    assert "cannot read fused.mp4.parts/origin.yaml: No such file" in refused(*WORDS, "--resume")
    Path("fused.mp4.parts", "origin.yaml").write_text("first: other.mp4, 9 bytes\n")
    line = "fused.mp4.parts was begun with first: other.mp4, 9 bytes, not ir.mp4, "
    assert line in refused(*WORDS, "--resume")
    assert run(*WORDS, "--overwrite")[1].startswith("3 frames fused")


def test_one_video_alone(refused):
    assert "one source is no video; name two videos" in refused("fuse", "--first", "a.mp4", "-n", "net", "-o", "b.mp4")


def test_frames_look_like_fused_images(run):
    """A frame of the video is, but for the encoder, what `fuse` makes of the two images."""
    scene = make_scene(3, height=96, width=128)
    for name, image in (("ir", scene.first), ("vis", scene.second)):
        write_video(f"{name}.mp4", [coloured(image)] * 2, options={"crf": "0"})
        Image.fromarray(image).save(f"{name}.png")
    run(*WORDS[:5], "-n", "ivif-nano", "-o", "fused.mp4", "--second", "vis.mp4")
    run("fuse", "--first", "ir.png", "--second", "vis.png", "-n", "ivif-nano", "-o", "fused.png")
    with av.open("fused.mp4") as container:
        frame = next(container.decode(video=0)).to_ndarray(format="gray")
    assert np.abs(frame.astype(float) - np.asarray(Image.open("fused.png").convert("L"))).mean() < 4
