"""The commands that use networks: fuse, app, align, evaluate, compare, export, push, import and scenes."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option, echo

from ..runtime.errors import UserError
from ..runtime.run_files import WEIGHTS_FILE
from .flags import FLAGS, takes

if TYPE_CHECKING:
    from ..data import Pair, Stack
    from ..deploy import Fuser

Images = Annotated[list[str], Option("--fused", metavar="[NAME=]DIR", help="A method's images; more DIRs may follow.")]
More = Annotated[list[str] | None, Argument(metavar="[NAME=]DIR", help="The other methods.", show_default=False)]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace fused images and labels.")]
Skip = Annotated[bool, Option("--resume", help="Skip the pairs that are fused already.")]


def _find_pairs(
    data: Path | None,
    task: str | None,
    sources: list[str] | None,
    split: str | None,
    first: str | None,
    second: str | None,
    stretch: bool | None,
    usual_task: str = "infrared-visible",
    usual_sources: tuple[str, str] | None = None,
) -> "list[Pair] | list[Stack]":
    """Find the pairs or stacks of --data, of --sources, or of --first and --second.

    Without --task they are of the usual task.
    """
    from ..data import find_pairs, find_stacks, match_pairs, match_stacks

    options = {"stretch": bool(stretch)}
    if sources and len(sources) < 2:
        raise UserError(f"--sources names {sources[0]} alone; name two or more sources")
    if data and not (first or second):
        known = usual_sources if task in (None, usual_task) else None
        folders, task = sources or known, task or usual_task
        if sources and len(sources) > 2:
            return find_stacks(data.expanduser(), task, split, folders=sources, **options)
        pair = (folders[0], folders[1]) if folders else None
        return find_pairs(data.expanduser(), task, split, folders=pair, **options)
    paths = sources or [path for path in (first, second) if path]
    if data or split or (sources and (first or second)) or len(paths) < 2:
        raise UserError(
            "name the images by --data (with --sources, --split), by --sources, or else by --first and --second"
        )
    return match_stacks(paths, **options) if len(paths) > 2 else match_pairs(paths[0], paths[1], **options)


def _two_sources(find_pairs: "partial[list[Pair]]", command: str) -> None:
    """Refuse more than two sources."""
    count = len(find_pairs.keywords["sources"] or ())
    if count > 2:
        raise UserError(f"{command} takes two sources, not {count}; name two with --sources")


def _in_usual_order(found: "list[Pair]", task: str, words: tuple[str, str]) -> "list[Pair]":
    """Swap the sources of pairs where all folders are called like the other source, and say so."""
    from ..data.layouts import are_swapped

    if not all(len(each.files) == 2 and are_swapped(task, *each.files) for each in found):
        return found
    pairs = [pair.swapped() for pair in found]
    folders = [path.parent.name for path in pairs[0].files]
    echo(f"note: by the names of the folders, {folders[0]} is taken as {words[0]} and {folders[1]} as {words[1]}")
    return pairs


def _judged_pairs(find_pairs: "partial[list[Pair]]") -> "tuple[list[Pair], str]":
    """Find the pairs to judge fused images by, and their task."""
    from ..genotypes import TASKS
    from ..genotypes.choices import check_choice

    data, task = find_pairs.keywords["data"], find_pairs.keywords["task"]
    if data is None and task is not None:
        check_choice("--task", task, TASKS)
    if task is None and len(find_pairs.keywords["sources"] or ()) > 2:
        raise UserError("say by --task what the stacks are, multi-exposure or multi-focus; it decides the ruler")
    return find_pairs(), task or "infrared-visible"


_takes_pairs = takes(
    {
        "data": Annotated[Path, Option(metavar="DIR", help="Folder of pairs, as `timfuse train` reads it.")],
        "task": Annotated[str, Option("--task", "-t", metavar="TASK", help="What is in --data, like mri-ct.")],
        "sources": Annotated[
            list[str], Option(metavar="DIR DIR ...", help="Its folders, if unusual; without --data: two or more paths.")
        ],
        "split": Annotated[str, Option(metavar="train|val", help="The part of it to take.")],
        "first": Annotated[str, Option(metavar="PATH", help="In place of --data: folder, file or glob pattern.")],
        "second": Annotated[str, Option(metavar="PATH", help="The second sources.")],
        "stretch": FLAGS["stretch"],
    },
    partial(partial, _find_pairs),
)


@_takes_pairs
def fuse(
    find_pairs: "partial[list[Pair]]",
    output: Annotated[Path, Option("--output", "-o", metavar="PATH", help="Folder; for one pair also a file.")],
    network: Annotated[
        str | None,
        Option("--network", "-n", help="Name, like ivif-fast or ivif-nano, run or hub:user/name; default: by task."),
    ] = None,
    resume: Skip = False,
    overwrite: Overwrite = False,
    resize: Annotated[str | None, Option(metavar="second", help="Resample second images to the size of first.")] = None,
    align: Annotated[
        str | None, Option(metavar="auto|FILE", help="Warp by the transform of the rig, or one of `timfuse align`.")
    ] = None,
    colour: Annotated[str | None, Option(metavar="first|second|both", help="Whose colour to keep, if unusual.")] = None,
    labels: Annotated[Path | None, Option(metavar="DIR", help="Gets the task network's detections or masks.")] = None,
    device: Annotated[str, Option(help="auto, cpu, cuda, cuda:1, ... or mps.")] = "auto",
) -> None:
    """Fuse pairs of images, or more exposures or focal planes.

    Images of any size, grey or in colour, have 8 or 16 bits; the fused ones keep depth and colour. Each task has a
    network: infrared-visible, the usual task, ivif; mri-ct, mri-pet, mri-spect, multi-exposure and multi-focus those of
    their names.

    Two videos, cameras (by number, like 0) or streams (by URL) become one video.

    First and second are infrared and visible, MRI and CT, PET or SPECT, under- and over-exposed, near and far focus.
    """
    from ..data.video import is_video
    from ..deploy import fuse_files, load, load_labeller
    from ..deploy.align_files import find_rig_alignment, load_rig_alignment
    from ..operators.network_folders import shipped_for

    if align or resize:
        _two_sources(find_pairs, "--align" if align else "--resize")
    if align and resize:
        raise UserError("--align and --resize exclude each other; aligned images have one size")
    task = find_pairs.keywords["task"]
    network = network or shipped_for(task or "infrared-visible")
    fuser = load(network, device, colour)
    genotype = fuser.network.genotype
    if task not in (None, genotype.task):
        echo(f"note: {fuser.name} is a network for {genotype.task}; without --network, that for {task} is taken")
    words = find_pairs.keywords
    paths = () if words["data"] else words["sources"] or ()  # beside --data, --sources are folders in it
    if any(map(is_video, (words["first"] or "", words["second"] or "", *paths))):
        if labels:
            raise UserError("--labels is for images, not for videos")
        _fuse_video(find_pairs, fuser, output, align, resume=resume, overwrite=overwrite, resize=resize)
        return
    pairs = find_pairs(usual_task=genotype.task, usual_sources=genotype.sources)
    fuser.check_count(len(pairs[0].files))
    pairs = _in_usual_order(pairs, genotype.task, genotype.source_words)
    labeller = load_labeller(network, labels, fuser.device) if labels else None
    alignment = None
    if align == "auto":
        alignment = find_rig_alignment(pairs)
        echo(f"aligned by one {alignment.model}, with confidence {alignment.confidence:.2f}")
    elif align is not None:
        alignment = load_rig_alignment(Path(align), pairs)
    files = fuse_files(
        fuser, pairs, output, resume=resume, overwrite=overwrite, resize=resize, alignment=alignment, labels=labeller
    )
    speed = f", {files.rate:.3g} images per second" if files.fused else ""
    if files.milliseconds:
        speed += ", {:.3g} ms (p50) to {:.3g} ms (p99) in the network".format(*files.milliseconds)
    skipped = f"; {files.skipped} were there already" if files.skipped else ""
    echo(f"{files.fused} fused with {fuser.name} into {output}{speed}{skipped}")
    for place, limits in enumerate(pairs[0].stretches, 1):
        if limits:
            source = {1: "first images", 2: "second images"}.get(place, f"images of source {place}")
            echo(f"the {source} were stretched: {limits.low:.6g} is black, {limits.high:.6g} white")
    for hint in files.hints:
        echo(f"note: {hint}")
    if labels:
        echo(f"detections or masks of {network} are in {labels}")
    for line in files.failed:
        echo(f"error: {line}", err=True)
    if files.failed:
        raise Exit(1)


def _fuse_video(
    find_pairs: "partial[list[Pair]]", fuser: "Fuser", output: Path, align: str | None, **options: Any
) -> None:
    """Fuse the videos or cameras that --sources, or else --first and --second, name."""
    from ..data import load_alignment
    from ..data.video import Video, is_video
    from ..deploy.fuse_video import find_video_alignment, fuse_video

    given = {name: value for name, value in find_pairs.keywords.items() if value and name != "task"}
    names = [given.pop("first", ""), given.pop("second", "")]
    if not any(names):
        _two_sources(find_pairs, "a video")
        names = [*given.pop("sources"), ""][:2]
    if "sources" in given:
        raise UserError("name the videos by --sources, or else by --first and --second")
    if given:
        raise UserError(f"--{next(iter(given))} is for images, not for videos")
    for name in names:
        if not is_video(name):
            raise UserError(f"{name or 'one source'} is no video; name two videos or cameras by --first and --second")
    first, second = (Video(name) for name in names)
    alignment = None
    if align == "auto":
        alignment = find_video_alignment(first, second)
        echo(f"aligned by one {alignment.model}, with confidence {alignment.confidence:.2f}")
    elif align is not None:
        alignment = load_alignment(Path(align))
        try:
            alignment.check_sizes(first.size[::-1], second.size[::-1])
        except UserError as error:
            raise UserError(f"{align}: {error}") from None
    done = fuse_video(fuser, first, second, output, alignment=alignment, **options)
    if done is None:
        echo(f"{output} is there already")
        return
    speed = f", {done.rate:.3g} frames per second" if done.fused else ""
    before = f"; {done.before} were fused before" if done.before else ""
    echo(f"{done.fused} frames fused with {fuser.name} into {output}{speed}{before}")


def app_(
    runs: Annotated[
        list[str] | None, Argument(metavar="[RUN]", help="Runs to offer beside the shipped networks.")
    ] = None,
    port: Annotated[int, Option(min=0, max=65535, help="Of the page, on this machine alone.")] = 7860,
) -> None:
    """Open a page to try networks on images that you drop."""
    import contextlib

    from ..deploy.app import App

    with App(runs or [], port) as server:
        echo(f"open {server.address} in a browser; Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


@_takes_pairs
def align(
    find_pairs: "partial[list[Pair]]",
    output: Annotated[Path, Option("--output", "-o", metavar="DIR", help="For images, transform.yaml, alignment.png.")],
    model: Annotated[
        str, Option(metavar="MODEL", help="translation, similarity, affine or homography.")
    ] = "homography",
    each: Annotated[
        bool, Option("--each", help="One transform for each pair; default: one for all, of a rig.")
    ] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an earlier alignment.")] = False,
) -> None:
    """Align pairs of two cameras by their edges.

    The images of a pair may differ in size and in field of view, by a factor of up to 2; the aligned ones show the
    common part with the pixels of the finer image. If no transform lets the edges agree much better than others do,
    nothing is written.
    """
    from ..data.layouts import LAYOUTS
    from ..deploy import align_files
    from ..deploy.align_files import PICTURE_FILE

    _two_sources(find_pairs, "align")
    task = find_pairs.keywords["task"] or "infrared-visible"
    layouts = LAYOUTS.get(task)
    first, second = (path.split("/")[0] for path in layouts[0]) if layouts else ("first", "second")
    pairs = _in_usual_order(find_pairs(), task, (first, second))
    done = align_files(pairs, output, (first, second), model=model, each=each, overwrite=overwrite)
    transforms = done.aligned if each else {"all pairs": next(iter(done.aligned.values()))}
    for name, transform in transforms.items():
        echo(f"{name}: {transform.model} with confidence {transform.confidence:.2f}")
    echo(f"{len(done.aligned)} pairs are in {output / first} and {output / second}, some in {output / PICTURE_FILE}")
    for line in done.failed:
        echo(f"error: {line}", err=True)
    if done.failed:
        raise Exit(1)


@_takes_pairs
def evaluate(
    find_pairs: "partial[list[Pair]]",
    fused: Images,
    more: More = None,
    output: Annotated[Path | None, Option("--output", "-o", metavar="DIR", help="Folder for tables.")] = None,
    metrics: Annotated[
        str | None, Option(help="Names joined by commas; default: ruler and field's. table.md of -o defines each.")
    ] = None,
    trivial: Annotated[bool, Option(help="Score average, maximum and copies of the sources too.")] = True,
) -> None:
    """Score fused images, and rank methods by the ruler of the task.

    The ruler is VIF, Qabf, SCD, SSIM, MEF-SSIM and smear (less is better); for multi-exposure it has no SSIM, for
    multi-focus neither SCD nor smear. EN, SD, SF, AG, MI, CC and PSNR stand in the table without a say in the rank.
    Stacks are scored by Qabf, MEF-SSIM, smear, EN, SD, SF and AG, which are defined for them.
    """
    from ..deploy import evaluate as run_evaluation
    from ..deploy import find_methods, print_evaluation, write_tables
    from ..runtime.files import make_folder
    from ..runtime.progress import Progress

    pairs, task = _judged_pairs(find_pairs)
    methods = find_methods([*fused, *(more or [])], pairs)
    if output:
        make_folder(output)
    names = [name.strip() for name in metrics.split(",")] if metrics else None
    with Progress(len(pairs), "scoring", unit="pairs") as progress:
        evaluation = run_evaluation(pairs, methods, names, task=task, trivial=trivial, progress=progress)
    print_evaluation(evaluation)
    for file in write_tables(evaluation, output) if output else []:
        echo(str(file))


@_takes_pairs
def compare(
    find_pairs: "partial[list[Pair]]",
    fused: Images,
    output: Annotated[Path, Option("--output", "-o", metavar="PATH", help="A .png or .html, or a folder for both.")],
    more: More = None,
    names: Annotated[str | None, Option(help="The pairs to show, joined by commas.")] = None,
    limit: Annotated[int, Option(min=1, help="Without names: so many pairs, spread evenly.")] = 6,
    zoom: Annotated[list[str] | None, Option(metavar="X,Y,WIDTH,HEIGHT", help="Region to enlarge.")] = None,
    picture: Annotated[list[Path] | None, Option(metavar="FILE", help="Image for the end of the page.")] = None,
) -> None:
    """Show sources and fused images side by side, on a sheet and a page."""
    from ..deploy import choose_pairs, find_methods, write_comparison
    from ..deploy.zoom_regions import parse_region

    _two_sources(find_pairs, "compare")
    found, task = _judged_pairs(find_pairs)
    pairs = choose_pairs(found, names.split(",") if names else None, limit=limit)
    methods = find_methods([*fused, *(more or [])], pairs)
    regions = [parse_region(text) for text in zoom or []]
    for file in write_comparison(pairs, methods, output, zoom=regions, pictures=picture or [], task=task):
        echo(str(file))


def export(
    run: Annotated[str, Argument(help="Name of a shipped network or a run folder.")],
    output: Annotated[Path, Option("--output", "-o", metavar="FILE", help="The file, like model.onnx.")],
    int8: Annotated[bool, Option("--int8", help="Compute with integers, faster and a little less exact.")] = False,
    data: Annotated[Path | None, Option(metavar="DIR", help="For --int8: pairs to calibrate the integers on.")] = None,
) -> None:
    """Write a trained network as ONNX, checked against PyTorch."""
    import torch

    from ..data import find_pairs
    from ..deploy import export_onnx, load_network
    from ..runtime.device import device_name

    if int8 != (data is not None):
        raise UserError("--int8 and --data go together: name pairs like those that will be fused")
    genotype = load_network(run).genotype
    pairs = find_pairs(data.expanduser(), genotype.task, folders=genotype.sources) if data else ()
    done = export_onnx(run, output, pairs)
    onnxruntime, pytorch = (f"{1e3 * seconds:.1f} ms" for seconds in (done.onnxruntime_seconds, done.pytorch_seconds))
    echo(f"{output}: {done.size:,} bytes, opset {done.opset}, at most {done.difference:.0e} from PyTorch")
    if done.psnr is not None:
        echo(f"with integers {done.psnr:.1f} dB from PyTorch, on the pairs of the calibration")
    echo(f"640x480 pair: {onnxruntime} in onnxruntime, {pytorch} in PyTorch ({device_name(torch.device('cpu'))})")


def push(
    run: Annotated[str, Argument(help="Run folder.")],
    name: Annotated[str, Argument(metavar="USER/NAME", help="Its place on the Hugging Face Hub.")],
    licence: Annotated[str | None, Option(metavar="NAME", help="Licence of the weights, like apache-2.0.")] = None,
) -> None:
    """Publish a trained network on the hub, with a card.

    Weights, genotype and card are sent, and no path of this machine. Log in before with `hf auth login`.
    """
    from ..deploy import push_network

    echo(f"published; load it by {push_network(run, name, licence)}")


def import_(
    state_dict: Annotated[Path, Argument(help="The authors' weights, a state dict saved by torch.")],
    genotype: Annotated[str, Option("--genotype", "-g", help="Genotype file or name in the zoo.")],
    output: Annotated[Path, Option("--output", "-o", metavar="DIR", help="For weights.safetensors and genotype.yaml.")],
) -> None:
    """Convert the published weights of TIM's authors."""
    from ..genotypes import load_genotype
    from ..operators import build_network, count_parameters, save_network_folder
    from ..operators.released import convert_released, read_released

    loaded = load_genotype(genotype)
    network = build_network(loaded)
    released = read_released(state_dict)
    try:
        network.load_state_dict(convert_released(network, released))
    except UserError as error:
        raise UserError(f"{state_dict}: {error}") from None
    save_network_folder(output, loaded, network)
    echo(f"{count_parameters(network):,} parameters in {output / WEIGHTS_FILE}")


def scenes(
    output: Annotated[Path, Option("--output", "-o", metavar="DIR", help="Gets folders, such as ir/ and vis/.")],
    task: Annotated[str, Option("--task", "-t", help="What the pairs are, like mri-ct.")] = "infrared-visible",
    kind: Annotated[str, Option(metavar="street|marked", help="What infrared-visible pairs show.")] = "street",
    count: Annotated[int, Option(min=1, help="Number of pairs.")] = 6,
    size: Annotated[str, Option(metavar="WIDTHxHEIGHT", help="In pixels.")] = "640x480",
    seed: Annotated[int, Option(min=0, help="Chooses the scenes.")] = 0,
    stack: Annotated[bool, Option("--stack", help="Third images in mid/, for multi-exposure and multi-focus.")] = False,
) -> None:
    """Render synthetic pairs of a task, to try things without data.

    Infrared-visible pairs come with boxes and masks. With --kind marked neither source shows the objects alone:
    infrared shows where they are, visible light of which class.
    """
    from ..data import write_scenes

    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 32):
        raise UserError(f"--size must be WIDTHxHEIGHT from 32x32 on, like 640x480, not {size!r}")
    first, *others = write_scenes(
        output, count, task=task, kind=kind, stack=stack, height=int(height), width=int(width), seed=seed
    )
    labels = f", with labels in {output / 'boxes'} and {output / 'label'}" if task == "infrared-visible" else ""
    echo(f"{count} {'stacks' if stack else 'pairs'} in {first} and {' and '.join(map(str, others))}{labels}")
