"""The card of a network, the README.md beside it: how it was made, and its scores."""

import math
import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from ..genotypes import Genotype
from ..operators import build_network, count_parameters
from ..runtime.yaml_text import dump_yaml

_COUNTS = {"training_pairs": "training pairs", "validation_pairs": "validation pairs"}  # keys of the provenance
_PART = "not used for the choice"  # marks rows about some of the pairs of the row above


def read_scores(card: str) -> dict[str, float]:
    r"""Read the scores from the table that follows the heading "Metrics" of a card.

    Returns:
        The mean of each metric over the data sets, which weigh the same, without the metrics that have something else
        than a number; nothing if there is no such table.

    Example:
        >>> read_scores("## Metrics\n\n| set | VIF |\n|---|---|\n| TNO (5) | 0.5 |\n| MSRS (15) | 0.75 |\n")
        {'VIF': 0.625}
    """
    found = re.search(r"^## Metrics\n(?:[^|#\n].*\n|\n)*((?:\|.*\|\n)+)", card, re.MULTILINE)
    if found is None:
        return {}
    (_, *names), *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in found[1].splitlines())
    columns = zip_longest(*(cells for place, *cells in rows[1:] if _PART not in place))
    means = {name: sum(map(as_number, cells)) / len(cells) for name, cells in zip(names, columns, strict=False)}
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}


def as_number(value: Any) -> float:
    """Return what a file has in the place of a number, NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def make_card(genotype: Genotype, name: str, *, size: int, loss: object = None, licence: str | None = None) -> str:
    """Describe a network by its provenance, in Markdown.

    Args:
        name: Name on the hub, like user/name.
        size: Bytes of the file of weights.
        loss: The key `loss` of the config of the training; None for the loss of the task.
        licence: Short name of the licence of the weights, like apache-2.0; None if none is granted.
    """
    origin: Any = genotype.provenance
    first, second = genotype.source_words
    parameters = count_parameters(build_network(genotype))
    tags = ["image-fusion", genotype.task]
    head = {"library_name": "timfuse", "pipeline_tag": "image-to-image", "tags": tags}
    head |= {} if licence is None else {"license": licence}
    return f"""---
{dump_yaml(head)}---

# {name.partition("/")[2]}

Fuses two images, {first} (first) and {second} (second). A {genotype.network} network of {parameters:,} parameters,
{size / 1e3:,.0f} kB. Input: luma in [0, 1], any size; colour is handled by `timfuse`.

```bash
timfuse fuse --network hub:{name} --data DIR -o fused
```

## Data

{_data(origin.get("data", {}))}

## Training

{_training(origin, loss)}

## Metrics

{_metrics(origin.get("metrics", {}).get("best", {}))}

## Limits

Aligned pairs only, of the kind that it was trained on. Medical images fused with it are not for diagnosis.

## Terms

The weights: {licence or "no licence is granted here; ask whoever published them"}. The data sets that they were trained
on have terms of their own. Check these before any use.
"""


def _data(data: Mapping[str, Any]) -> str:
    roots = data.get("root", [])
    names = roots if isinstance(roots, str) else ", ".join(roots)
    counts = [f"{data[key]} {words}" for key, words in _COUNTS.items() if key in data]
    return f"{names or 'Not recorded'}: {', '.join(counts)}." if counts else f"{names or 'Not recorded'}."


def _training(origin: Mapping[str, Any], loss: object) -> str:
    if isinstance(loss, Mapping):
        weights = ", ".join(f"{name} {weight:g}" for name, weight in loss.items() if weight)
        terms = f"the loss with the weights {weights}"
    else:
        terms = "the loss of the task"
    facts = [f"`timfuse {origin['stage']}`, version {origin['timfuse']}"] if "stage" in origin else []
    facts += [f"{origin['steps']:,} steps" if "steps" in origin else "", terms]
    facts += [f"seed {origin['seed']}" if "seed" in origin else ""]
    facts += [f"weights of step {origin['best_step'] + 1:,}, the best on validation" if "best_step" in origin else ""]
    return f"{', '.join(filter(None, facts))}."


def _metrics(scores: Mapping[str, Mapping[str, float | None]]) -> str:
    names = [name for name in scores.get("mean", {}) if all(row.get(name) is not None for row in scores.values())]
    if not names:
        return "Not recorded."
    parts = {name: row for name, row in scores.items() if name != "mean"} or {"validation": scores["mean"]}
    lines = [["set", *names], ["---"] * (len(names) + 1)]
    lines += [[part, *(f"{row[name]:.3f}" for name in names)] for part, row in parts.items()]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"Means over the validation pairs, by which the weights were chosen.\n\n{table}"
