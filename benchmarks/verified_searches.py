"""Whether what searches return beats random networks and the plain one, once their verifications have trained them all.

    python -m benchmarks.verified_searches RUN --data DIR [--data DIR …] [--seeds 0 1 2 3 4]

DIR holds infrared-visible pairs with train.txt and val.txt. Each seed searches on the training pairs alone, for 1
GFLOPs, and verifies: four networks that it proposes, four random ones of the same cost and the plain one are trained
for 400 steps, the better half of each kind for 800 steps, and the best of each kind for 1,600 steps. Which are better
is told by pairs of the training that the search holds out. The last ones, with the weights that they have then, are
scored here on the validation pairs, which no search has seen, and timed side by side, with one thread; run nothing else
then. Rows:

- found, random search, plain: the last network of each kind; without a search, random search takes less than half the
  time;
- returned: the fastest of those that are as good as the best, which the search keeps;
- untrained: the network found, with fresh weights; and methods without a network.

Finished searches and trainings are not repeated. The rows, pair by pair, are in
benchmarks/results/verified-searches.csv; verified-searches.md compares them. A call without RUN writes it anew.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.search_quality import (
    RESULTS,
    TARGET,
    UNTRAINED,
    Fuse,
    Row,
    link_training_pairs,
    read,
    report,
    scored,
    search_config,
    write,
)
from benchmarks.tabular import recipe
from timfuse.deploy import load_network
from timfuse.genotypes import in_words, load_genotype
from timfuse.objectives.trivial_fusion import TRIVIAL
from timfuse.operators import build_network, count_flops, count_parameters, receptive_field
from timfuse.runtime.files import write_atomically
from timfuse.runtime.run_files import GENOTYPE_FILE, VERIFICATION_FOLDER
from timfuse.runtime.seeds import seed_everything
from timfuse.search import SearchConfig, search, verify
from timfuse.training.train_setup import TrainParts

TABLE = RESULTS / "verified-searches.csv"
BUDGET = "1GFLOPs"
KINDS = {"found": "proposed", "random search": "random", "plain": "plain"}


def folders_of(run: Path) -> dict[str, Path]:
    """Return the trained networks of a verified search by their rows."""
    verification: Any = load_genotype(run).provenance["verification"]
    rounds = len(verification["steps"])
    last = [name for name, losses in verification["losses"].items() if len(losses) == rounds]
    trained = run / VERIFICATION_FOLDER / f"round-{rounds}"
    rows = {row: trained / name for row, kind in KINDS.items() for name in last if name.startswith(kind)}
    return rows | {"returned": run}


def rows_of(config: SearchConfig, parts: TrainParts) -> list[Row]:
    """Search and verify, unless that has been done; score the networks, and measure their times side by side."""
    if not (config.run / GENOTYPE_FILE).is_file():
        search(config, resume=config.run.is_dir())
    if "verification" not in load_genotype(config.run).provenance:
        verify(config)
    folders = folders_of(config.run)
    genotypes = {row: load_genotype(folder) for row, folder in folders.items()}
    times = TARGET.measure([TARGET.forward_pass(build_network(genotype)) for genotype in genotypes.values()])
    verification: Any = genotypes["returned"].provenance["verification"]
    seed_everything(config.seed)
    methods: dict[str, tuple[Fuse, dict[str, str]]] = {}
    for (row, folder), time in zip(folders.items(), times, strict=True):
        genotype, network = genotypes[row], load_network(folder).eval()
        methods[row] = (
            network,
            {
                "gflops": f"{count_flops(network, 480, 640) / 1e9:.4f}",
                "milliseconds": f"{time:.2f}",
                "parameters": str(count_parameters(network)),
                "receptive field": str(receptive_field(genotype)),
                "network": in_words(genotype),
            },
        )
    without = dict.fromkeys(methods["found"][1], "")
    methods[UNTRAINED] = build_network(genotypes["found"]).eval(), without
    methods |= {name: (fuse, without) for name, fuse in TRIVIAL.items()}
    crops = str(verification["steps"][-1] * config.data.batch_size)
    return [
        {"budget": BUDGET, "row": row, "seed": str(config.seed), "crops": crops, **cells, **scores}
        for row, (fuse, cells) in methods.items()
        for scores in scored(fuse, parts)
    ]


def main() -> None:
    """Search, score and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    if arguments.run is not None:
        run = arguments.run
        pairs = link_training_pairs(arguments.data, run / "data")
        configs = [search_config(run / f"search-{seed}", pairs, BUDGET, seed) for seed in arguments.seeds]
        torch.set_num_threads(1)
        _, parts = recipe(run, arguments.data)
        write([row for config in configs for row in rows_of(config, parts)], TABLE)
    text = f"# Verified searches\n\n`python -m benchmarks.verified_searches`\n\n{report(read(TABLE))}"
    write_atomically(TABLE.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
