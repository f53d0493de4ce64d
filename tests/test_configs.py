import re
from functools import reduce
from pathlib import Path

import pytest
import torch

import timfuse
from timfuse.bilevel import ESTIMATORS
from timfuse.cost import BudgetReport
from timfuse.deploy import load_network, shipped_names
from timfuse.downstream import load_task_network, shipped_detectors
from timfuse.finetune import FinetuneConfig, finetune
from timfuse.genotypes import TASKS, CellGenotype, Genotype, load_genotype, save_genotype
from timfuse.meta_init import MetaInitConfig, meta_initialise
from timfuse.operators import build_network, build_supernet
from timfuse.runtime.config import config_hash, config_to_yaml, load_config
from timfuse.runtime.config_text import commented_yaml
from timfuse.runtime.weights import save_weights
from timfuse.search import SearchConfig, search
from timfuse.training import TrainConfig, train
from timfuse.tuning import TuneConfig

CONFIGS = sorted((Path(timfuse.__file__).parent / "configs").glob("*.yaml"))
SEARCHES = [path for path in CONFIGS if path.stem.startswith("search")]
TRAININGS = [path for path in CONFIGS if path.stem.startswith("train")]
FINETUNINGS = [path for path in CONFIGS if path.stem.startswith("finetune")]
INITIALISATIONS = [path for path in CONFIGS if path.stem.startswith("meta-init")]
STUDIES = [path for path in CONFIGS if path.stem.startswith("tune")]
PAGES = [
    *(Path(__file__).resolve().parents[1] / "docs").glob("*.md"),
    Path(__file__).resolve().parents[1] / "README.md",
]
README = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
README_CONFIGS = {
    name or command
    for command, name in re.findall(r"^timfuse ([a-z-]+)(?:.*--config ([a-z-]+))?", README, re.MULTILINE)
}
MODELS = {
    **dict.fromkeys(SEARCHES, SearchConfig),
    **dict.fromkeys(TRAININGS, TrainConfig),
    **dict.fromkeys(FINETUNINGS, FinetuneConfig),
    **dict.fromkeys(INITIALISATIONS, MetaInitConfig),
    **dict.fromkeys(STUDIES, TuneConfig),
}
# What the commands run by default. The one of `tune` names losses and leaves out what its trials decide.
WRITTEN_OUT = [path for path in CONFIGS if path.stem in ("search", "train", "meta-init", "finetune")]


def without_those_of_the_readme(configs):
    """Leave out the configs that the README's commands use, since those are run in test_readme.py."""
    return [path for path in configs if path.stem not in README_CONFIGS]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    torch.set_num_threads(threads)


def test_there_are_configs_and_each_belongs_to_a_stage():
    assert {"search", "search-demo", "search-ivif", "search-latency"} <= {path.stem for path in SEARCHES}
    assert {"train", "train-demo", "train-ivif", "train-refine-ivif"} <= {path.stem for path in TRAININGS}
    kinds = {"detection", "segmentation", "detfusion", "demo"}
    assert {"finetune", *(f"finetune-{kind}" for kind in kinds)} == {path.stem for path in FINETUNINGS}
    assert {"meta-init", "meta-init-demo"} == {path.stem for path in INITIALISATIONS}
    assert {"tune"} == {path.stem for path in STUDIES}
    assert set(MODELS) == set(CONFIGS)


@pytest.mark.parametrize(("path", "model"), MODELS.items(), ids=lambda value: getattr(value, "stem", ""))
def test_a_shipped_config_loads_and_comes_back(path, model, tmp_path):
    config = load_config(model, path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(config_to_yaml(config), encoding="utf-8")
    again = load_config(model, copy)
    assert again == config
    assert config_hash(again) == config_hash(config)
    assert load_config(model, Path(path.stem)) == config


@pytest.mark.parametrize("path", WRITTEN_OUT, ids=lambda path: path.stem)
def test_a_default_config_is_what_the_config_command_prints(path):
    """Every key of the model is there, with the meaning, the range and the default that it has in the code."""
    written, printed = (
        text.partition("\n\n")[2]  # below the header
        for text in (path.read_text(encoding="utf-8"), commented_yaml(load_config(MODELS[path], path)))
    )
    assert written == printed, f"put what `timfuse config {path.stem}` prints below the header of {path.name}"


@pytest.mark.parametrize("path", WRITTEN_OUT, ids=lambda path: path.stem)
def test_a_default_config_has_the_defaults_of_the_code(path):
    usual = MODELS[path]()
    changed = {key for key, value in load_config(MODELS[path], path) if value != getattr(usual, key)}
    assert changed <= {"tasks"}  # the folders of a meta-initialisation's tasks


@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.parametrize(("path", "model"), MODELS.items(), ids=lambda value: getattr(value, "stem", ""))
def test_a_small_number_of_steps_is_all_that_a_trial_needs(path, model, steps):
    keys = {SearchConfig: ["search"], MetaInitConfig: ["meta"], TuneConfig: ["search.search", "train.train"]}
    sections = keys.get(model, ["train"])
    config = load_config(model, path, [f"{section}.steps={steps}" for section in sections])
    for section in sections:
        scaled = reduce(getattr, section.split("."), config)
        assert scaled.steps == steps
        assert scaled.warmup < steps
        assert 1 <= scaled.validate_every <= max(steps, 10)


def test_shipped_configs_write_into_folders_of_their_own():
    runs = [load_config(model, path).run for path, model in MODELS.items()]
    assert len(set(runs)) == len(runs)


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_a_shipped_search_space_can_be_built(path):
    config = load_config(SearchConfig, path)
    space = config.space.search_space
    supernet = build_supernet(
        channels=space.channels,
        cells=space.cells,
        steps=space.steps,
        candidates=space.operators,
        norm=space.norm,
        stem=space.stem,
        head=space.head,
        levels=space.levels,
    )
    shape = len(space.cells), space.steps, len(space.operators)
    probabilities = [torch.full(shape, 1 / shape[-1])]
    if space.width_options:
        options = len(space.channels[0])
        probabilities.append(torch.full((4, options), 1 / options))
    with torch.no_grad():
        fused = supernet(*torch.rand(2, 1, 1, 16, 20), *probabilities)
    assert fused.shape == (1, 1, 16, 20)
    assert config.search.estimator in ESTIMATORS


@pytest.mark.slow
@pytest.mark.parametrize("path", without_those_of_the_readme(SEARCHES), ids=lambda path: path.stem)
def test_a_shipped_search_runs(path, tmp_path):
    settings = [
        f"run={tmp_path / 'run'}",
        "device=cpu",
        "data.synthetic_pairs=8",
        "data.crop=48",
        "search.steps=3",
        "search.warmup=1",
        "cost.height=32",
        "cost.width=48",
        "verify.candidates=0",
    ]
    config = load_config(SearchConfig, path, settings)
    genotype = search(config).genotype
    report = BudgetReport.of(genotype)
    assert report is None or report.met
    assert [cell.kind for cell in genotype.cells] == list(config.space.search_space.cells)
    assert (tmp_path / "run" / "latency.yaml").is_file() == (config.cost.budget == "90ms")
    assert (tmp_path / "run" / "task").is_dir() == (config.downstream is not None)


def test_what_a_shipped_training_starts_from_is_shipped_or_comes_from_a_shipped_run():
    runs = {str(load_config(model, path).run) for path, model in MODELS.items()}
    for path in TRAININGS:
        config = load_config(TrainConfig, path)
        assert config.genotype in runs or load_genotype(config.genotype)
        assert {str(start) for start in (config.first_stage, config.init) if start} <= runs
    for path in FINETUNINGS:
        finetuning = load_config(FinetuneConfig, path)
        assert finetuning.init in shipped_names()
        start = finetuning.downstream and finetuning.downstream.init
        assert start is None or start in shipped_detectors()
    for path in INITIALISATIONS:
        initialisation = load_config(MetaInitConfig, path)
        assert initialisation.genotype in runs or load_genotype(initialisation.genotype)
        assert initialisation.init is None or str(initialisation.init) in runs


def test_the_shipped_trainings_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = CellGenotype("successive", ("residual_k3_d1",))
    save_genotype(Genotype("demo", "infrared-visible", "fusion", 4, (cell,)), Path("runs/demo/search/genotype.yaml"))
    settings = ["device=cpu", "data.synthetic_pairs=3", "data.crop=48", "train.steps=1", "train.warmup=0"]
    for name, *more in (
        ("train-ivif", "genotype=runs/demo/search"),
        ("train-demo", "init=runs/train-ivif"),
        ("train-refine-ivif",),
    ):
        config = load_config(TrainConfig, Path(name), [*settings, *more])
        assert train(config).best_step == 0
        assert (config.run / "weights.safetensors").is_file()


@pytest.mark.parametrize("path", without_those_of_the_readme(FINETUNINGS), ids=lambda path: path.stem)
def test_a_shipped_finetuning_runs(path, tmp_path):
    pytest.importorskip("faster_coco_eval")
    pytest.importorskip("transformers")
    settings = [
        f"run={tmp_path / 'run'}",
        "device=cpu",
        "data.synthetic_pairs=3",
        "data.crop=48",
        "data.batch_size=2",
        "guidance.detector_steps=1",
        "train.steps=1",
        "train.warmup=0",
    ]
    config = load_config(FinetuneConfig, path, settings)
    assert finetune(config).best_step == (1 if config.guidance.strategy == "detfusion" else 0)
    strategy = load_network(config.run).genotype.provenance["strategy"]
    assert strategy == config.strategy
    if config.downstream is not None:
        assert load_task_network(config.run).task == config.downstream.kind


@pytest.mark.slow
@pytest.mark.parametrize("path", without_those_of_the_readme(INITIALISATIONS), ids=lambda path: path.stem)
def test_a_shipped_meta_initialisation_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    genotype = Genotype("demo", "infrared-visible", "fusion", 4, (CellGenotype("successive", ("residual_k3_d1",)),))
    save_genotype(genotype, Path("runs/demo/search/genotype.yaml"))
    save_weights(Path("runs/demo/search/weights.safetensors"), build_network(genotype).state_dict(), {})
    settings = [
        "device=cpu",
        "genotype=runs/demo/search",
        "data.synthetic_pairs=9",
        "data.crop=48",
        "inner.steps=1",
        "meta.pretrain=1",
        "meta.steps=1",
        "meta.warmup=0",
    ]
    config = load_config(MetaInitConfig, path, settings)
    assert set(config.used_tasks) == set(TASKS)
    assert set(meta_initialise(config).curves) == set(TASKS)
    assert (config.run / "rates.yaml").is_file()


def test_the_folders_of_the_shipped_meta_initialisation_are_there(shared):
    config = load_config(MetaInitConfig, Path("meta-init"), [f"data.root={shared / 'data'}"])
    for section in config.used_tasks.values():
        for root in section.root if isinstance(section.root, tuple) else (section.root,):
            assert (config.data.root / root).is_dir()
