"""Task networks by name, in run folders, and as the start of others; and the one line where something is wrong."""

import pytest
import torch

from timfuse.downstream import (
    CompactDetector,
    build_task_network,
    keep_task_network,
    load_task_network,
    load_task_weights,
    shipped_detectors,
    start_from,
    task_network_folder,
)
from timfuse.runtime.errors import UserError
from timfuse.runtime.weights import load_weights, save_weights

CLASSES = ("person", "bicycle", "car")


def make(classes=CLASSES, width=4, seed=0):
    """A detector of which no number is that of a fresh one."""
    torch.manual_seed(seed)
    detector = CompactDetector(classes, width)
    for value in detector.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
        else:
            value.fill_(seed + 7)
    return detector


def same(one, other):
    """Whether two state dicts are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def copied(detector):
    return {name: value.clone() for name, value in detector.state_dict().items()}


@pytest.fixture
def kept(tmp_path):
    """A run folder with a detector, and the detector."""
    detector = make()
    keep_task_network(detector, tmp_path / "run")
    return tmp_path / "run", detector


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch):
    """Where the detectors that come with timfuse would lie: none, so far."""
    folder = tmp_path / "shipped"
    monkeypatch.setattr(task_network_folder, "SHIPPED", folder)
    return folder


def test_what_was_kept_is_loaded_to_the_bit(kept):
    run, detector = kept
    loaded = load_task_network(run)
    assert isinstance(loaded, CompactDetector)
    assert not loaded.training
    assert loaded.specification() == detector.specification()
    assert same(loaded.state_dict(), detector.state_dict())
    images = torch.rand(1, 1, 37, 51, generator=torch.Generator().manual_seed(0))
    for one, other in zip(loaded.predict(images)[0], detector.eval().predict(images)[0], strict=True):
        assert torch.equal(one, other)


def test_keeping_changes_nothing_and_replaces_what_was_there(kept):
    run, detector = kept
    detector.train()
    before = copied(detector)
    keep_task_network(detector, run)
    assert detector.training
    assert same(before, detector.state_dict())
    other = make(("car",), 6, seed=1)
    keep_task_network(other, run)
    assert same(load_task_network(run).state_dict(), other.state_dict())
    assert sorted(path.name for path in (run / "task").iterdir()) == ["specification.yaml", "weights.safetensors"]


def test_odd_class_names_come_back(tmp_path):
    classes = ("no", "1", "1:30", "Fußgänger", "a: b", "~", "1e-3")
    keep_task_network(make(classes), tmp_path)
    assert load_task_network(tmp_path).classes == classes


def test_weights_alone_are_loaded_strictly(kept):
    run, detector = kept
    other = make(seed=1)
    load_task_weights(other, run)
    assert same(other.state_dict(), detector.state_dict())
    for stranger in (make(width=6), make(("person", "car"))):
        before = copied(stranger)
        with pytest.raises(UserError, match=r"weights\.safetensors: these weights belong to another architecture"):
            load_task_weights(stranger, run)
        assert same(before, stranger.state_dict())


def break_weights(run, change):
    """Replace the weights in a run folder by changed ones."""
    path = run / "task" / "weights.safetensors"
    weights = load_weights(path)
    change(weights)
    save_weights(path, weights, {})


def forget_specification(run):
    (run / "task" / "specification.yaml").unlink()


def forget_weights(run):
    (run / "task" / "weights.safetensors").unlink()


def damage_weights(run):
    path = run / "task" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def drop_a_weight(run):
    break_weights(run, lambda weights: weights.pop("stages.0.0.0.weight"))


def add_a_weight(run):
    break_weights(run, lambda weights: weights.update(extra=torch.zeros(2)))


def drop_the_heads(run):
    break_weights(run, lambda weights: weights.pop("heat.1.weight"))


def drop_a_head(run):
    break_weights(run, lambda weights: weights.update({"heat.1.bias": weights["heat.1.bias"][:1]}))


def specify(text):
    """A fault: another specification."""

    def fault(run):
        path = run / "task" / "specification.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return fault


FAULTS = [
    (
        forget_specification,
        r"no task network: .*specification\.yaml is missing; give the folder of a `timfuse finetune`",
    ),
    (forget_weights, r"no weights file .*weights\.safetensors; check the path"),
    (damage_weights, r"weights\.safetensors is damaged or not a safetensors file"),
    (drop_a_weight, r"another architecture: 1 missing \(first: stages\.0\.0\.0\.weight\)"),
    (add_a_weight, r"another architecture: 1 unexpected \(first: extra\)"),
    (drop_the_heads, r"another architecture: 1 missing \(first: heat\.1\.weight\)"),
    (drop_a_head, r"another architecture: 1 of another shape \(first: heat\.1\.bias is \(1,\) in the file, \(3,\) in"),
    (specify("kind: [\n"), r"specification\.yaml:2: not valid YAML"),
    (specify("kind: compact-detector\nkind: x\n"), r"specification\.yaml:2: not valid YAML"),
    (specify(b"kind: \xff\xfe\n"), r"specification\.yaml: not a text file in UTF-8; get it again"),
    (specify(""), r"specification\.yaml: does not describe a network; get it again"),
    (specify("- compact-detector\n"), r"specification\.yaml: does not describe a network; get it again"),
    (
        specify("kind: compact-detector\nwidth: 4\n"),
        r"specification\.yaml: classes must be a list of names, like \[person, car\], not None",
    ),
    (
        specify("kind: compact-detector\nclasses: person\nwidth: 4\n"),
        r"specification\.yaml: classes must be a list of names, like \[person, car\], not 'person'",
    ),
    (
        specify("kind: compact-detector\nclasses: [person, bicycle, car]\nwidth: 4.0\n"),
        r"specification\.yaml: width must be a whole number from 2 on, like 32, not 4\.0",
    ),
    (
        specify("kind: compact-detector\nclasses: [person, bicycle, car]\n"),
        r"specification\.yaml: width must be a whole number from 2 on, like 32, not None",
    ),
    (
        specify("kind: compact-detector\nclasses: [person, car]\nwidth: 4\n"),
        r"another architecture: 2 of another shape \(first: heat\.1\.weight",
    ),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_what_is_not_whole_is_one_line(kept, fault, message):
    run, _ = kept
    fault(run)
    network = make(seed=1)
    before = copied(network)
    for attempt in (lambda: load_task_network(run), lambda: start_from(network, str(run))):
        with pytest.raises(UserError, match=message) as error:
            attempt()
        assert "\n" not in str(error.value)
    assert same(before, network.state_dict())


@pytest.mark.parametrize("kind", ["guiding-detectors", "compact", "null"])
def test_another_kind(kept, kind):
    run, _ = kept
    specify(f"kind: {kind}\nclasses: [person, bicycle, car]\nwidth: 4\n")(run)
    with pytest.raises(UserError, match=r"specification\.yaml: no task network of the kind"):
        load_task_network(run)
    with pytest.raises(UserError, match=r"run holds another task network; leave out downstream\.init, or name "):
        start_from(make(), str(run))


def test_a_start_with_the_same_classes_is_the_same_detector(kept):
    run, detector = kept
    network = make(seed=1).train()
    start_from(network, str(run))
    assert same(network.state_dict(), detector.state_dict())
    assert network.training
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in network.parameters())


@pytest.mark.parametrize(
    ("classes", "rows"),
    [
        (("car", "person", "bicycle"), (2, 0, 1)),
        (("dog", "car"), (None, 2)),
        (("bicycle", "dog", "person", "bus", "car"), (1, None, 0, None, 2)),
        (("dog",), (None,)),
        (("Person", "car "), (None, None)),  # names are compared letter by letter
    ],
)
def test_a_start_keeps_the_heads_of_classes_by_name_and_all_the_rest(kept, classes, rows):
    run, detector = kept
    network = make(classes, seed=1)
    fresh, theirs = copied(network), detector.state_dict()
    start_from(network, str(run))
    for name, value in network.state_dict().items():
        if name in ("heat.1.weight", "heat.1.bias"):
            expected = [fresh[name][own] if row is None else theirs[name][row] for own, row in enumerate(rows)]
            assert torch.equal(value, torch.stack(expected)), name
        else:
            assert torch.equal(value, theirs[name]), name
    assert network.classes == classes


def test_the_names_of_the_heads_are_all_that_depend_on_the_classes():
    few, many = (CompactDetector(("a",) * count, 4).state_dict() for count in (1, 5))
    assert tuple(name for name in few if few[name].shape != many[name].shape) == CompactDetector.class_weights


def test_a_start_from_another_width(kept):
    run, _ = kept
    network = make(width=6)
    before = copied(network)
    with pytest.raises(UserError) as error:
        start_from(network, str(run))
    assert str(error.value) == (
        f"{run} holds a compact detector of width 4, not 6; set downstream.width to 4, or leave out downstream.init"
    )
    assert same(before, network.state_dict())


def test_shipped_detectors_are_folders_that_hold_one(weights):
    assert shipped_detectors() == ()
    for name in ("street", "harbour"):
        keep_task_network(make(seed=len(name)), weights / name)
    (weights / "empty").mkdir()
    (weights / "README.md").write_text("")
    assert shipped_detectors() == ("harbour", "street")
    network = make(seed=1)
    start_from(network, "street")
    assert same(network.state_dict(), make(seed=len("street")).state_dict())


def test_a_shipped_name_goes_before_a_folder_and_a_path_leads_to_the_folder(kept, weights, monkeypatch):
    run, detector = kept
    monkeypatch.chdir(run.parent)
    network = make(seed=1)
    start_from(network, "run")
    assert same(network.state_dict(), detector.state_dict())
    shipped = make(seed=2)
    keep_task_network(shipped, weights / "run")
    start_from(network, "run")
    assert same(network.state_dict(), shipped.state_dict())
    start_from(network, "./run")
    assert same(network.state_dict(), detector.state_dict())


def test_a_name_that_nobody_knows(tmp_path, weights):
    (tmp_path / "file").touch()
    for name in (str(tmp_path / "nowhere"), str(tmp_path / "file")):
        with pytest.raises(UserError) as error:
            start_from(make(), name)
        assert str(error.value) == f"no task network {name!r}: give the folder of a `timfuse finetune` run"
    for name in ("street", "harbour"):
        keep_task_network(make(), weights / name)
    with pytest.raises(UserError) as error:
        start_from(make(), "streat")
    assert str(error.value) == (
        "no task network 'streat' (did you mean 'street'?): give the folder of a `timfuse finetune` run, or one of"
        " harbour, street"
    )


def test_the_networks_that_need_no_file():
    detector = build_task_network("detection", "compact", list(CLASSES), 6)
    assert isinstance(detector, CompactDetector)
    assert (detector.classes, detector.width) == (CLASSES, 6)
    pytest.importorskip("transformers")
    segmenter = build_task_network("segmentation", "segformer-tiny", ["background", *CLASSES], 6)
    assert (segmenter.task, segmenter.classes) == ("segmentation", ("background", *CLASSES))


@pytest.mark.parametrize(
    ("kind", "name", "own"), [("segmentation", "compact", "segformer-tiny"), ("detection", "segformer-tiny", "compact")]
)
def test_a_network_of_another_task(kind, name, own):
    with pytest.raises(UserError) as error:
        build_task_network(kind, name, CLASSES, 6)
    start = f"downstream.network = {name} is not for {kind}; choose {own}, or"
    assert str(error.value) == f"{start} a network of transformers"


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_a_network_of_transformers_that_is_not_there(kind, tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(UserError) as error:
        build_task_network(kind, str(tmp_path / "nowhere"), CLASSES, 6)
    assert "nowhere" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_network_of_transformers_starts_from_the_same_one_only(tmp_path, kept):
    pytest.importorskip("transformers")
    first, second = (build_task_network("segmentation", "segformer-tiny", ["background", "car"], 4) for _ in "ab")
    assert not same(first.state_dict(), second.state_dict())
    keep_task_network(first, tmp_path / "segmenter")
    assert same(load_task_network(tmp_path / "segmenter").state_dict(), first.state_dict())
    start_from(second, str(tmp_path / "segmenter"))
    assert same(second.state_dict(), first.state_dict())
    other = build_task_network("segmentation", "segformer-tiny", ["background", "person"], 4)
    for network, folder in ((other, "segmenter"), (other, "run")):
        with pytest.raises(UserError) as error:
            start_from(network, str(tmp_path / folder))
        assert str(error.value) == (
            f"{tmp_path / folder} holds another task network; leave out downstream.init, or name that network"
        )
    with pytest.raises(UserError, match=r"segmenter holds another task network; "):
        start_from(make(), str(tmp_path / "segmenter"))
