"""The report of a search: a page without other files, of what was searched, what was found and what it is worth."""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..cost import BudgetReport
from ..data import chroma_source, coloured_pixels, luma_of
from ..data.embedded_images import figure, jpeg_address
from ..data.images import Pixels, with_8_bits
from ..deploy import Fuser, load_network
from ..genotypes import Genotype, in_words
from ..objectives.trivial_fusion import TRIVIAL
from ..operators import load_network_folder
from ..runtime.config import config_to_yaml
from ..runtime.device import select_device
from ..runtime.distribution import open_ranks
from ..runtime.errors import UserError
from ..runtime.files import read_text, write_atomically
from ..runtime.html_text import escaped, filled
from ..runtime.run_files import PICTURES_FOLDER, REPORT_FILE, VERIFICATION_FILE, VERIFICATION_FOLDER
from ..runtime.run_folder import open_run
from .cost_by_part import Part, cost_by_part
from .search_config import HARMLESS_OF_SEEDS, VERIFY_KEYS, SearchConfig

_TEMPLATE = Path(__file__).with_name("report.html")
_HEIGHT, _WIDTH = 480, 640  # of the images for which operations count, as in provenances
_EXAMPLES = 3  # pairs
_LONGEST = 800  # pixels of an example


def write_report(config: SearchConfig) -> None:
    """Write the page `report.html` into the run folder of a search that has ended.

    Args:
        config: The config of the search, with one seed or several, verified or not.

    Raises:
        UserError: If the run cannot be read, or the page cannot be written.
    """
    with open_ranks() as ranks, ExitStack() as stack:
        if ranks.leads:
            yaml, harmless = config_to_yaml(config), (*HARMLESS_OF_SEEDS, *VERIFY_KEYS)
            stack.enter_context(open_run(config.run, config_yaml=yaml, resume=True, overwrite=False, harmless=harmless))
        ranks.from_leader(lambda: write_atomically(config.run / REPORT_FILE, report_page(config)))


def report_page(config: SearchConfig) -> str:
    """Make the page of a search that has ended.

    The page contains its images and loads nothing.

    Raises:
        UserError: If the run cannot be read.
    """
    genotype, network = load_network_folder(config.run)
    parts = cost_by_part(genotype, network, _HEIGHT, _WIDTH)
    pictures = config.run / PICTURES_FOLDER
    verified: Any = genotype.provenance.get("verification")
    losses = {} if verified is None else verified["losses"]
    sections = {
        "What was searched": _facts(config, genotype),
        "The network": _picture(pictures / "network.png"),
        "Probabilities of the operators": _picture(pictures / "probabilities.png"),
        "Cost by part": _costs(parts, bool(config.space.search_space.width_options)),
        **({} if verified is None else {"Verification": _verification(config.run, verified)}),
        "Fused validation pairs": _examples(config, genotype, losses),
    }
    return filled(
        _TEMPLATE,
        {
            "name": escaped(genotype.name),
            "found": _found(genotype, parts),
            "sections": "\n".join(
                f"<section><h2>{title}</h2>\n{content}\n</section>" for title, content in sections.items()
            ),
        },
    )


def _found(genotype: Genotype, parts: Sequence[Part]) -> str:
    """Write the widths and operators of the network and its costs in one line."""
    latency: Any = genotype.provenance["latency"]
    operators = in_words(genotype)
    costs = (
        f"{_gflops(sum(part.flops for part in parts))} GFLOPs at {_WIDTH}x{_HEIGHT}",
        f"{sum(part.parameters for part in parts):,} parameters",
        f"{latency['milliseconds']:.2f} ms at {latency['width']}x{latency['height']} on {latency['device']}",
    )
    return f"<code>{escaped(operators)}</code><br>{escaped(', '.join(costs))}"


def _facts(config: SearchConfig, genotype: Genotype) -> str:
    provenance: Any = genotype.provenance
    data, settings, budget = provenance["data"], config.search, BudgetReport.of(genotype)
    roots = [data["root"]] if isinstance(data["root"], str) else data["root"]
    uses = {"training": "train the weights", "architecture": "score the architecture", "validation": "validate"}
    counts = (f"{data.get(f'{part}_pairs', 0)} {use}" for part, use in uses.items())
    scored = "the fusion loss" if config.downstream is None else f"{config.downstream.kind} on the fused images"
    facts = {
        "Task": [f"{genotype.task}: {' and '.join(genotype.source_words)}"],
        "Data": [*roots, f"of the pairs {', '.join(counts)}"],
        **({} if config.first_stage is None else {"First stage": [f"{config.first_stage}; costs are without it"]}),
        "Steps": [f"{settings.steps:,}, of which the first {settings.warmup:,} train the weights alone"],
        "Estimator": [f"{settings.estimator}; {scored} scores the architecture"],
        "Seeds": [_seeds(config, provenance.get("seeds"))],
        "Budget": ["none" if budget is None else f"{budget}; it is {'met' if budget.met else 'exceeded'}"],
        "Choice": [provenance["reason"]["rule"]],
        "Warnings": provenance["warnings"] or ["none"],
    }
    rows = (f"<dt>{name}</dt><dd>{'<br>'.join(map(escaped, lines))}</dd>" for name, lines in facts.items())
    return f'<dl class="card">{"".join(rows)}</dl>'


def _seeds(config: SearchConfig, comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return str(config.seed)
    losses = ", ".join(f"{loss:.4f}" for loss in comparison["outer_loss"]["each"])
    last = config.seed + config.seeds - 1
    return f"{config.seed} to {last}, with outer losses {losses}; that of seed {comparison['picked']} is kept"


def _picture(path: Path) -> str:
    return figure(path) if path.is_file() else _note(f"{path.name} is not in the run folder.")


def _costs(parts: Sequence[Part], widths: bool) -> str:
    """Write a table with a row for each part, and how much of the whole the search decided.

    Args:
        widths: Whether the search chose the widths, too.
    """
    decided = [part for part in parts if part.operator is not None]
    whole, own = (Part("the network", *_sums(each)) for each in (parts, decided))
    rows = [
        [
            escaped(part.name),
            _gflops(part.flops),
            f'<span class="bar" style="width:{_percent(part.flops, whole.flops)}"></span>',
            f"{part.parameters:,}",
            "" if part.operator is None else f"<code>{escaped(part.operator)}</code>",
        ]
        for part in parts
    ]
    rows.append([f"<b>{whole.name}</b>", _gflops(whole.flops), "", f"{whole.parameters:,}", ""])
    heading = ("part", "GFLOPs", "share", "parameters", "decided by the search")
    text = (
        f"For a pair of {_WIDTH}x{_HEIGHT} pixels. All of it is decided by the search, which chose the feature maps of"
        " each level, besides the operators."
        if widths
        else f"For a pair of {_WIDTH}x{_HEIGHT} pixels. The operators that the search chose make up"
        f" {_percent(own.flops, whole.flops)} of the operations and {_percent(own.parameters, whole.parameters)} of the"
        " parameters; the rest is the same in all networks of the space."
    )
    return f"<p>{escaped(text)}</p>{_table(heading, rows, texts=(2, 4))}"


def _sums(parts: Sequence[Part]) -> tuple[int, int]:
    return sum(part.flops for part in parts), sum(part.parameters for part in parts)


def _gflops(flops: int) -> str:
    return f"{flops / 1e9:.4f}"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "0.0%"


def _verification(run: Path, verified: Mapping[str, Any]) -> str:
    """Compare the best proposed network with the best random one, and write the table of all."""
    found = verified["network"]
    heading, *rows = csv.reader(read_text(run / VERIFICATION_FILE).splitlines())
    cells = []
    for name, operators, *numbers in rows:
        origin, result = name.partition("-")[0], " result" if name == found else ""
        marked = f'<span class="{escaped(origin)}{result}">{escaped(name)}</span>'
        cells.append([marked, *map(escaped, numbers), f"<code>{escaped(operators)}</code>"])
    network, operators, *numbers = map(escaped, heading)
    table = _table([network, *numbers, operators], cells, texts=(len(heading) - 1,))
    return f"<p>{escaped(_comparison(found, verified['losses'], verified['rank_among_random']))}</p>{table}"


def _comparison(found: str, losses: Mapping[str, Sequence[float]], rank: int) -> str:
    """Compare the best of each origin, and say how the best proposed network ranks among the random ones."""
    ours, other = _best("proposed", losses), _best("random", losses)
    plain = _best("plain", losses)
    kept = "" if plain is None else f" The plain network has {losses[plain][-1]:.4f}."
    kept += "" if ours == found else f" The result is {found}."
    if other is None or math.isinf(losses[other][-1]):
        return f"There is no random network of the same cost to compare {ours} with.{kept}"
    mine, its = losses[str(ours)][-1], losses[other][-1]
    count = sum(name.startswith("random") for name in losses)
    lead = "level" if mine == its else f"{'ahead' if mine < its else 'behind'} by {abs(its - mine):.4f}"
    return (
        f"The best proposed network, {ours}, ends with the loss {mine:.4f} and the best random one, {other}, with"
        f" {its:.4f}: the search is {lead}, and beside the {count} random networks of the same cost {ours} has"
        f" rank {rank} of {count + 1}.{kept}"
    )


def _best(origin: str, losses: Mapping[str, Sequence[float]]) -> str | None:
    """Name the best network of an origin: of those that were trained longest, that of the least loss."""
    names = [name for name in losses if name.startswith(origin)]
    return min(names, key=lambda name: (-len(losses[name]), losses[name][-1]), default=None)


def _examples(config: SearchConfig, genotype: Genotype, losses: Mapping[str, Sequence[float]]) -> str:
    """Show some validation pairs as fused without a network, by the found network and by the best random one."""
    try:
        device = select_device(config.device)
        methods: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            **{name: TRIVIAL[name] for name in ("average", "maximum")},
            "found network": Fuser(load_network(config.run), device),
        }
        other = _best("random", losses)
        if other is not None and not math.isinf(losses[other][-1]):
            folder = config.run / VERIFICATION_FOLDER / f"round-{len(losses[other])}" / other
            methods[f"best random network, {other}"] = Fuser(load_network(folder), device)
        rows = []
        for name, first, second in _validation_pairs(config):
            images = dict(zip(genotype.source_words, (first, second), strict=True))
            chroma, lumas = chroma_source(genotype.colour_source, first, second), (luma_of(first), luma_of(second))
            for label, fuse in methods.items():
                images[label] = coloured_pixels(fuse(*lumas), first, second, chroma, np.uint8)
            shown = "".join(_example(label, image) for label, image in images.items())
            rows.append(f'<h3>{escaped(name)}</h3><div class="row">{shown}</div>')
    except UserError as error:  # the search has ended well, whatever has become of its pairs
        return _note(f"There are none: {error}.")
    weights = "were trained in the verification" if losses else "are inherited from the supernet, not trained alone"
    return _note(f"The weights of the found network {weights}.") + "".join(rows)


def _validation_pairs(config: SearchConfig) -> Iterator[tuple[str, Pixels, Pixels]]:
    """Yield name, first and second source of whole validation pairs of the search."""
    data, downstream = config.data, config.downstream
    pairs = data.open_pairs(
        config.task,
        config.sources,
        data.seed_of(config.seed),
        labels=None if downstream is None else downstream.labels,
        architecture=data.architecture,
        validation_pairs=_EXAMPLES,
    )
    for place, each in enumerate(pairs.sets):
        for index in each.split.validation[: len(range(place, _EXAMPLES, len(pairs.sets)))]:
            yield f"{each.name}/{each.source.names[index]}", *each.source.read(index)


def _example(label: str, image: Pixels) -> str:
    address = jpeg_address(with_8_bits(image), _LONGEST)
    return f'<figure><img src="{address}" alt="{escaped(label)}"><figcaption>{escaped(label)}</figcaption></figure>'


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[int]) -> str:
    """Write a table of elements; the first column and those of `texts` are aligned to the left."""

    def row(cells: Sequence[str]) -> str:
        first, *others = cells
        columns = (
            f'<td class="text">{cell}</td>' if index in texts else f"<td>{cell}</td>"
            for index, cell in enumerate(others, start=1)
        )
        return f'<tr><th scope="row">{first}</th>{"".join(columns)}</tr>'

    titles = "".join(
        f'<th scope="col" class="text">{title}</th>' if index in texts else f'<th scope="col">{title}</th>'
        for index, title in enumerate(heading)
    )
    body = "".join(map(row, rows))
    return f'<div class="card scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _note(text: str) -> str:
    return f'<p class="quiet">{escaped(text)}</p>'
