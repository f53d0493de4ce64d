"""Videos: frames in their order and colours, from any time on, and paired by time."""

from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from timfuse.data.video import Video, frame_pixels, is_video, pair_by_time, pair_latest, sample_pairs
from timfuse.runtime.errors import UserError

from ..videos import Camera, plain_frames, write_video


def number(pixels, step=4):
    """Which of the plain frames this is."""
    return round(float(pixels.mean()) / step) - 1


def numbers(pairs, steps=(4, 4)):
    return [tuple(number(pixels, step) for pixels, step in zip(pair[1:], steps, strict=True)) for pair in pairs]


@pytest.fixture
def video(tmp_path):
    """A function that writes a video of so many plain frames and opens it."""

    def make(name, count, rate=25, **options):
        write_video(tmp_path / name, plain_frames(count, **options), rate)
        return Video(str(tmp_path / name))

    return make


@pytest.mark.parametrize("name", ["a.MP4", "b/c.mkv", "0", "12", "/dev/video1", "rtsp://host:554/a", "udp://@:1234"])
def test_what_is_a_video(name):
    assert is_video(name)


@pytest.mark.parametrize("name", ["a.png", "images", "*.png", "C:/a", "dir.mp4", "3"])
def test_what_is_not(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("dir.mp4", "3"):
        Path(folder).mkdir()
    assert not is_video(name)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_frames_of_a_file(video, suffix):
    opened = video(f"a.{suffix}", 40)
    assert (opened.size, opened.live, opened.has_sound) == ((64, 48), False, False)
    assert opened.rate == 25
    frames = list(opened.frames())
    assert [number(frame_pixels(frame)) for frame in frames] == list(range(40))
    assert [float(frame.time) for frame in frames] == pytest.approx([index / 25 for index in range(40)], abs=1e-3)
    later = list(opened.frames(frames[17].time))
    assert [number(frame_pixels(frame)) for frame in later] == list(range(17, 40))


def test_frames_are_paired_with_the_nearest_in_time(video):
    slow, fast = video("slow.mp4", 10, rate=10), video("fast.mp4", 60, rate=30)
    pairs = list(pair_by_time(slow, fast))
    assert numbers(pairs) == [(index, 3 * index) for index in range(10)]
    assert [pair.time for pair in pairs] == [Fraction(index, 10) for index in range(10)]
    assert numbers(pair_by_time(fast, slow)) == [(3 * index, index) for index in range(10)]
    uneven = video("uneven.mp4", 40, rate=24)
    nearest = [(index, round(2.4 * index)) for index in range(10)]
    assert numbers(pair_by_time(slow, uneven)) == nearest
    assert numbers(pair_by_time(slow, uneven, Fraction(6, 10))) == nearest[6:]


def test_the_common_part_is_paired(video):
    short, long = video("short.mp4", 9), video("long.mp4", 20)
    assert numbers(pair_by_time(short, long)) == [(index, index) for index in range(9)]
    assert numbers(pair_by_time(long, short)) == [(index, index) for index in range(9)]
    brief, fast = video("brief.mp4", 5, rate=10), video("fast.mp4", 12, rate=30)
    assert len(list(pair_by_time(brief, fast))) == 4


def test_samples_are_spread(video):
    first, second = video("first.mp4", 40), video("second.mp4", 48)
    assert numbers(sample_pairs(first, second, 4)) == [(index, index) for index in (0, 10, 20, 30)]
    assert len(sample_pairs(first, second, 100)) == 40


def test_another_size(video):
    first, second = video("first.mp4", 2), video("second.mp4", 2, step=20, size=(96, 80))
    pair = next(pair_by_time(first, second, size=first.size))
    assert pair.first.shape == pair.second.shape == (48, 64, 3)
    assert number(pair.second, 20) == 0


def test_a_telephone_held_upright(tmp_path):
    image = np.full((48, 64, 3), 20, np.uint8)
    image[:, :32] = 200
    write_video(tmp_path / "flat.mp4", [image])
    content = bytearray((tmp_path / "flat.mp4").read_bytes())
    at = content.index(b"tkhd") + 44  # the matrix, by which a player turns the frames a quarter to the right
    content[at : at + 36] = np.array([0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30], ">i4").tobytes()
    (tmp_path / "upright.mp4").write_bytes(content)
    upright = Video(str(tmp_path / "upright.mp4"))
    assert upright.size == (48, 64)
    pixels = frame_pixels(next(upright.frames()))
    assert pixels.shape == (64, 48, 3)
    assert pixels[:28].mean() == pytest.approx(200, abs=3)
    assert pixels[36:].mean() == pytest.approx(20, abs=3)
    assert frame_pixels(next(upright.frames()), (24, 32)).shape == (32, 24, 3)


@pytest.mark.parametrize("colours", [(1, 1), (5, 1), (5, 2), (1, 2)])
def test_colours_by_the_standard_that_the_file_names(tmp_path, colours):
    wanted = np.array([200, 40, 90])
    write_video(tmp_path / "a.mp4", [np.full((48, 64, 3), wanted, np.uint8)], colours=colours)
    pixels = frame_pixels(next(Video(str(tmp_path / "a.mp4")).frames()))
    np.testing.assert_allclose(pixels.mean((0, 1)), wanted, atol=4)


def test_damaged_frames_are_left_out(tmp_path):
    write_video(tmp_path / "a.ts", plain_frames(40))
    content = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "late.ts").write_bytes(content[188 * 20 :])  # as from a stream that was joined late
    assert 5 < len(list(Video(str(tmp_path / "late.ts")).frames())) < 40


def test_frames_that_cannot_be_decoded_are_counted(video, tmp_path):
    whole = video("a.mp4", 40)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    with av.open(whole.name) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for packet in packets[15:22]:
        content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    (tmp_path / "bad.mp4").write_bytes(content)
    bad = Video(str(tmp_path / "bad.mp4"))
    assert (len(list(whole.frames())), whole.damaged) == (40, 0)
    assert (len(list(bad.frames())), bad.damaged) == (33, 7)


def test_where_the_frames_end(video, tmp_path):
    whole = video("a.mkv", 40)
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) * 2 // 3])
    cut = Video(str(tmp_path / "cut.mkv"))
    for each in (whole, cut):
        next(each.frames())
        assert each.end is None
    count = len(list(cut.frames()))
    list(whole.frames())
    assert (whole.duration, whole.end) == (Fraction(40, 25), Fraction(40, 25))
    assert cut.duration == whole.duration
    assert float(cut.end) == pytest.approx(count / 25, abs=1e-3)
    assert 5 < count < 38


def test_the_latest_frames_of_two_cameras():
    with Camera(plain_frames(210, step=1), 75) as fast, Camera(plain_frames(70, step=3), 25) as slow:
        first, second = Video(fast.url), Video(slow.url)
        assert first.live
        assert first.duration is None
        samples = sample_pairs(first, second, 2)
        pairs = list(pair_latest(first, second))
    found = numbers([*samples, *pairs], (1, 3))
    assert 6 < len(found) <= 70  # a busy machine loses some
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(found))
    assert found[-1][0] > 2 * found[-1][1] - 20
    times = [pair.time for pair in pairs]
    assert times[0] == 0
    assert times == sorted(set(times))


def sound_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (sound_only, "a.mp4 holds no video"),
        (lambda path: path.write_bytes(b"\0" * 1000), "cannot open .*a.mp4: Invalid data"),
        (lambda path: None, "cannot open .*a.mp4: No such file"),
    ],
)
def test_files_that_hold_no_video(tmp_path, write, reason):
    write(tmp_path / "a.mp4")
    with pytest.raises(UserError, match=reason):
        Video(str(tmp_path / "a.mp4"))


@pytest.mark.parametrize("name", ["99", "/dev/video99", "tcp://127.0.0.1:9", "nonsense://a"])
def test_cameras_that_do_not_open(name):
    with pytest.raises(UserError, match=r"cannot open .*(No such file|refused|Protocol not found)"):
        Video(name)


def test_times_that_go_back_end_no_video(tmp_path):
    for name, count in (("a.ts", 10), ("b.ts", 30)):
        write_video(tmp_path / name, plain_frames(count))
    (tmp_path / "c.ts").write_bytes(b"".join((tmp_path / name).read_bytes() for name in ("a.ts", "b.ts")))
    times = [frame.time for frame in islice(Video(str(tmp_path / "c.ts")).frames(), 100)]
    assert times == sorted(set(times))
