"""`timfuse fuse`: pairs in every layout, labels, and requests that cannot be met."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timfuse.deploy import shipped_names
from timfuse.downstream import CompactDetector, keep_task_network

from ..radiometric import radiometric_jpeg
from .conftest import damaged, empty, nothing, two_sizes, unpaired, write_image, write_network, write_pairs


def fusing(*options, output="out"):
    return ["fuse", "--first", "pairs/ir", "--second", "pairs/vis", "--network", "net", "-o", output, *options]


def written(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_fusing_two_folders(run, refused):
    write_network(Path("net"))
    write_pairs(Path("pairs"))
    code, output, errors = run(*fusing())
    assert code == 0
    assert output.startswith("4 fused with mine into out, ")
    assert output.endswith(" images per second\n")
    assert errors.splitlines()[-1].startswith("fusing: 4/4, ")
    assert written("out") == ["a.png", "b.png", "c.png", "d.png"]
    assert Image.open("out/a.png").size == (24, 20)
    assert "out holds 4 of 4 fused images already; go on with --resume" in refused(*fusing())
    assert run(*fusing("--resume"))[:2] == (0, "0 fused with mine into out; 4 were there already\n")
    assert run(*fusing("--overwrite"))[1].startswith("4 fused")
    single = ["--first", "pairs/ir/a.png", "--second", "pairs/vis/b.png", "-n", "net"]
    assert run("fuse", *single, "-o", "one.tif")[0] == 0
    assert Image.open("one.tif").size == (24, 20)


@pytest.mark.parametrize(
    ("task", "first", "second", "names"),
    [
        ("infrared-visible", "ir/NAME.png", "vis/NAME.bmp", "ab"),
        ("infrared-visible", "NAME/ir_frame.png", "NAME/vis_frame.png", "ab"),  # TNO: a folder for each scene
        ("infrared-visible", "train/ir/NAME.png", "train/vi/NAME.png", "ab"),  # divided
        ("multi-focus", "NAME-a.png", "NAME-b.png", "ab"),  # Lytro: one folder
        ("multi-exposure", "NAME/NAME_a.png", "NAME/NAME_b.png", "ab"),  # MEFB
        ("mri-pet", "mri-pet/mri/NAME.png", "mri-pet/pet/NAME.png", "ab"),
    ],
)
def test_data_in_the_layouts_of_its_task(run, refused, task, first, second, names):
    for name in names:
        write_image(Path("set") / first.replace("NAME", name))
        write_image(Path("set") / second.replace("NAME", name), seed=1)
    write_network(Path("net"), task=task)
    assert run("fuse", "-n", "net", "--data", "set", "-o", "by-network")[0] == 0
    assert written("by-network") == [f"{name}.png" for name in names]
    write_network(Path("other"), task="mri-ct")
    assert "set holds no mri-ct pairs" in refused("fuse", "-n", "other", "--data", "set", "-o", "out")
    assert run("fuse", "-n", "other", "--data", "set", "--task", task, "-o", "by-task")[0] == 0
    assert written("by-task") == written("by-network")


def test_sources_in_the_other_order_are_taken_by_the_names_of_their_folders(run):
    write_network(Path("net"), task="mri-pet")
    write_image(Path("mri/a.png"))
    write_image(Path("pet/a.png"), seed=1)
    order = ["--first", "mri", "--second", "pet"], ["--first", "pet", "--second", "mri"]
    printed = [run("fuse", "-n", "net", *words, "-o", str(place))[1] for place, words in enumerate(order)]
    note = "note: by the names of the folders, mri is taken as MRI and pet as PET\n"
    assert (note in printed[0], note in printed[1]) == (False, True)
    assert Path("0/a.png").read_bytes() == Path("1/a.png").read_bytes()


def test_a_network_for_another_task_is_told(run):
    write_network(Path("net"), task="mri-pet")
    write_pairs(Path("pairs"))
    note = "note: mine is a network for mri-pet; without --network, that for infrared-visible is taken"
    _, printed, _ = run("fuse", "-n", "net", "--task", "infrared-visible", "--data", "pairs", "-o", "out")
    assert printed.splitlines()[0] == note


def test_folders_of_other_names_and_tasks_of_ones_own(run):
    for folder in ("thermal", "rgb"):
        write_image(Path("set") / folder / "a.png")
    write_network(Path("net"))
    assert run("fuse", "-n", "net", "--data", "set", "--sources", "thermal", "rgb", "-o", "out")[0] == 0
    assert written("out") == ["a.png"]
    write_network(Path("own"), task="thermal-rgb", sources=("thermal", "rgb"))
    assert run("fuse", "-n", "own", "--data", "set", "-o", "own-out")[0] == 0
    assert written("own-out") == ["a.png"]


def test_a_part_of_a_divided_set(run, refused):
    write_network(Path("net"))
    shutil.move(write_pairs(Path("train"), 2), "set/train")
    shutil.move(write_pairs(Path("val"), 3), "set/val")
    for split, count in (("train", 2), ("val", 3)):
        assert run("fuse", "-n", "net", "--data", "set", "--split", split, "-o", split)[1].startswith(f"{count} fused")
    line = refused("fuse", "-n", "net", "--data", "set", "--split", "test", "-o", "out")
    assert line.startswith("set holds no infrared-visible pairs; looked for test/ir/NAME + test/vis/NAME")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--first", "pairs/ir"],
        ["--second", "pairs/vis"],
        ["--data", "pairs", "--first", "pairs/ir", "--second", "pairs/vis"],
        ["--sources", "ir", "vis", "--first", "pairs/ir", "--second", "pairs/vis"],
        ["--split", "val", "--first", "pairs/ir", "--second", "pairs/vis"],
    ],
)
def test_pairs_are_named_in_one_way(refused, words):
    write_network(Path("net"))
    write_pairs(Path("pairs"))
    line = "name the images by --data (with --sources, --split), by --sources, or else by --first and --second"
    assert refused("fuse", "-n", "net", "-o", "out", *words) == line
    assert refused("evaluate", "--fused", "pairs/ir", *words) == line
    assert refused("compare", "--fused", "pairs/ir", "-o", "out", *words) == line


def test_fusing_with_the_labels_that_are_found(run, refused):
    write_network(Path("net"))
    write_pairs(Path("pairs"))
    labels = ["--labels", "found"]
    hint = "has no task network: name the folder of a `timfuse finetune` run"
    assert refused(*fusing(*labels)) == f"net {hint}"
    assert refused(*fusing(*labels, "--network", "ivif")) == f"ivif {hint}"
    keep_task_network(CompactDetector(("person", "car"), 8), Path("net"))
    Path("loop").symlink_to("loop")
    assert "loop" in refused(*fusing("--labels", "loop/x"))
    assert not Path("out").exists()
    code, output, _ = run(*fusing(*labels))
    assert code == 0
    assert output.splitlines()[1:] == ["detections or masks of net are in found"]
    assert Path("found/classes.txt").read_text() == "person\ncar\n"
    for folder, suffix in (("out", "png"), ("found/boxes", "txt"), ("found/pictures", "png")):
        assert written(folder) == [f"{name}.{suffix}" for name in "abcd"]
    assert "out holds 4 of 4 fused images already" in refused(*fusing(*labels))
    Path("found/boxes/c.txt").unlink()
    assert run(*fusing(*labels, "--resume"))[1].startswith("1 fused with mine into out")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (unpaired, ["do not pair by name", "pairs/vis has 1 without a partner (b.png)"]),
        (empty, ["pairs/ir holds no image"]),
        (nothing, ["pairs/ir"]),
    ],
)
def test_bad_pairs_to_fuse(refused, damage, words):
    write_network(Path("net"))
    damage(write_pairs(Path("pairs")))
    line = refused(*fusing())
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damaged, ["the pair c: cannot read the image pairs/vis/c.png", "replace or remove it"]),
        (two_sizes, ["the pair d: two sizes", "pairs/vis/d.png is 24x21", "--resize second"]),
    ],
)
def test_a_bad_pair_among_others(run, damage, words):
    write_network(Path("net"))
    damage(write_pairs(Path("pairs")))
    code, output, errors = run(*fusing())
    assert code == 1
    assert output.partition(" fused")[0] == str(len(list(Path("out").iterdir())))
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert all(word in line for word in words), line


def test_bad_requests_to_fuse(refused, run):
    write_network(Path("net"))
    write_pairs(Path("pairs"))
    assert "no network 'nets': give the folder of a run" in refused(*fusing("--network", "nets"))
    assert "unknown device abacus" in refused(*fusing("--device", "abacus"))
    assert "--resize must be one of second" in refused(*fusing("--resize", "both"))
    assert "tiny.yaml: a part of this path is a file" in refused(*fusing(output="tiny.yaml"))
    code, output, _ = run("fuse", "--help")
    assert code == 0
    text = "".join(output.split())  # lines break within names
    assert all(name in text for name in shipped_names())


def write_stacks(names="abc", size=(24, 20)):
    """Write exposures of several scenes to under/, mid/ and over/."""
    write_network(Path("net"), task="multi-exposure")
    for index, name in enumerate(names):
        for place, folder in enumerate(("under", "mid", "over")):
            write_image(Path("set", folder, f"{name}.png"), size, seed=3 * index + place)


FOLDERS = ["set/under/", "set/mid/", "set/over/"]


def test_fusing_stacks(run, refused):
    write_stacks()
    network = ["fuse", "--task", "multi-exposure"]
    words = [*network, "--sources", *FOLDERS, "-o", "out"]
    code, output, _ = run(*words)
    assert code == 0
    assert output.startswith("3 fused with multi-exposure into out, ")
    assert written("out") == ["a.png", "b.png", "c.png"]
    assert "out holds 3 of 3 fused images already; go on with --resume" in refused(*words)
    Path("out/b.png").unlink()
    assert run(*words, "--resume")[1].startswith("1 fused with multi-exposure into out")
    assert run(*network, "-o", "named", "--data", "set", "--sources", "over", "under", "mid")[0] == 0
    files = [f"set/{name}/b.png" for name in ("mid", "over", "under")]
    assert run(*network, "--sources", *files, "-o", "b.png")[0] == 0
    assert run(*network, f"--sources={files[0]}", *files[1:], "-o", "equals.png")[0] == 0
    assert refused(*network, "--sources", "-o", "c.png") == "--sources names nothing; name two or more sources"
    assert Path("b.png").read_bytes() == Path("named/b.png").read_bytes() == Path("out/b.png").read_bytes()
    assert run(*network, "--sources", *FOLDERS[:2], "-o", "two")[0] == 0
    assert run(*network, "--first", FOLDERS[0], "--second", FOLDERS[1], "-o", "pairs")[0] == 0
    assert Path("two/a.png").read_bytes() == Path("pairs/a.png").read_bytes() != Path("out/a.png").read_bytes()


def test_a_bad_stack_among_others(run):
    write_stacks()
    write_image(Path("set/over/b.png"), (24, 21))
    Path("set/mid/c.png").write_bytes(Path("set/mid/c.png").read_bytes()[:60])
    code, output, errors = run("fuse", "-n", "net", "--sources", *FOLDERS, "-o", "out")
    assert (code, output.partition(" fused")[0], written("out")) == (1, "1", ["a.png"])
    first, second = (line for line in errors.splitlines() if line.startswith("error: "))
    assert first == (
        "error: the stack b: two sizes: set/under/b.png is 24x20, set/over/b.png is 24x21; bring all images to one size"
    )
    assert second.startswith("error: the stack c: cannot read the image set/mid/c.png")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--sources", "set/under"], "--sources names set/under alone; name two or more sources"),
        (["--sources", *FOLDERS, "--first", "set/mid"], "name the images by --data (with --sources, --split), by "),
        (["--sources", *FOLDERS, "--split", "val"], "name the images by --data (with --sources, --split), by "),
        (["--sources", *FOLDERS, "--resize", "second"], "--resize takes two sources, not 3; name two with --sources"),
        (["--sources", *FOLDERS, "--align", "auto"], "--align takes two sources, not 3; name two with --sources"),
        (["--sources", *FOLDERS[:2], "none"], "set/under/ and none: there is no image none; check the path"),
        (["--sources", *FOLDERS[:2], "set/mid"], "two sources of a are the file set/mid/a.png; name different ones"),
        (["--sources", *FOLDERS, "-n", "ivif"], "ivif fuses two sources, infrared and visible, not 3; networks for "),
        (["--sources", "part", *FOLDERS], "part and set/under/: the images do not pair by name: set/under has 1 "),
        (["--data", "set", "--sources", "mid", "under", "no"], "mid and no: the folder set/no does not exist; check "),
    ],
)
def test_bad_requests_to_fuse_stacks(refused, words, line):
    write_stacks("ab")
    write_image(Path("part/a.png"))
    assert refused("fuse", "-n", "net", "-o", "out", *words).startswith(line)
    assert not Path("out").exists()


def test_temperatures_of_radiometric_images(run, refused):
    pytest.importorskip("flyr")
    write_network(Path("net"))
    for name, low in (("a", 9000), ("b", 10000)):
        counts = np.linspace(low, 15000, 24 * 32).reshape(24, 32).astype(np.uint16)
        Path("flir").mkdir(exist_ok=True)
        Path("flir", f"{name}.jpg").write_bytes(radiometric_jpeg(counts, np.full((24, 32, 3), 90, np.uint8)))
        write_image(Path("vis", f"{name}.png"), (32, 24))
    words = ["fuse", "-n", "net", "--device", "cpu"]
    code, output, errors = run(*words, "--first", "flir:thermal", "--second", "vis", "-o", "out")
    assert code == 0, errors
    assert "the first images were stretched: -" in output
    assert Image.open("out/a.png").size == (32, 24)
    # The temperatures and the picture of one file are two sources.
    assert run(*words, "--first", "flir:thermal", "--second", "flir", "-o", "both")[0] == 0
    shutil.copytree("vis", "plain")
    line = refused(*words, "--first", "plain/a.png:thermal", "--second", "vis/b.png", "-o", "c.png")
    assert "a.png holds no temperatures; leave out ':thermal'" in line
