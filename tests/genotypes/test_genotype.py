"""What a genotype may be, and what a wrong one is told."""

from dataclasses import replace

import pytest

from timfuse.genotypes import TASKS, CellGenotype, Genotype, load_genotype
from timfuse.runtime.errors import UserError

CELL = CellGenotype("successive", ("residual_k3_d1",))
FUSION = Genotype("a", "mri-ct", "fusion", 8, (CELL,))
BRANCHES = (replace(CELL, source="first"), replace(CELL, source="second"))
OWN = replace(FUSION, task="xray-neutron", sources=("X-ray", "neutron"))
REFINE = Genotype("b", "mri-ct", "refine", 8, BRANCHES, merge="concat")
DETFUSION = Genotype("c", "infrared-visible", "detfusion", 16, (), norm="none")
COARSE = CellGenotype("successive", ("plain_k3",), level=1)
PYRAMID = Genotype("d", "mri-pet", "pyramid", (8, 12), (COARSE,), stem="half", head="bands")


@pytest.mark.parametrize(
    ("genotype", "changes", "told"),
    [
        (FUSION, {"name": ""}, "name must be one line of text"),
        (FUSION, {"name": "a\nb"}, "name must be one line of text"),
        (FUSION, {"name": True}, "put it in quotes"),
        (FUSION, {"task": "mri-tc"}, "task must be one of infrared-visible, mri-ct, "),
        (FUSION, {"task": "mri-tc"}, "did you mean 'mri-ct'?"),
        (FUSION, {"task": "xray-neutron"}, "task must be one of infrared-visible, mri-ct, "),
        (FUSION, {"sources": ("MRI", "CT")}, "sources must be left out for mri-ct"),
        (FUSION, {"colour": "third"}, "colour must be one of first, second, both, not 'third'"),
        (OWN, {"task": "xray/neutron"}, "task must be up to 40 letters, digits, '-', '_' and '.', the first a letter"),
        (OWN, {"task": ".."}, "not '..'"),
        (OWN, {"task": "x" * 41}, "task must be up to 40 letters"),
        (OWN, {"task": "x\n"}, "task must be up to 40 letters"),
        (OWN, {"task": 3}, "not 3"),
        (OWN, {"sources": ("xray",)}, "sources must be two texts of one line, like [xray, neutron], not ('xray',)"),
        (OWN, {"sources": ("xray", 3)}, "sources must be two texts"),
        (OWN, {"sources": ("xray", " ")}, "sources must be two texts"),
        (OWN, {"sources": "xy"}, "sources must be two texts"),
        (
            FUSION,
            {"network": "fuse"},
            "network must be one of fusion, refine, detfusion, pyramid, not 'fuse' (did you mean 'fusion'?)",
        ),
        (PYRAMID, {"channels": 8}, "channels must be a list of 1 to 6 numbers in a pyramid network"),
        (PYRAMID, {"channels": (8, 0)}, "channels must be an even whole number from 2 on, like 48, not 0"),
        (PYRAMID, {"channels": (0, 0)}, "channels must be above 0 for the coarsest level at least, like [0, 24, 32]"),
        (
            PYRAMID,
            {"channels": (0, 8), "cells": (replace(COARSE, level=0),)},
            "cells[0].level must be that of a level with channels, not 0",
        ),
        (PYRAMID, {"channels": ()}, "channels must be a list of 1 to 6 numbers in a pyramid network"),
        (PYRAMID, {"channels": (8, 7)}, "channels must be an even whole number from 2 on, like 48, not 7"),
        (PYRAMID, {"channels": (8,)}, "cells[0].level must be a whole number from 0 to 0, not 1"),
        (PYRAMID, {"cells": (CELL,)}, "cells[0].level must be a whole number from 0 to 1, not None"),
        (PYRAMID, {"stem": "full"}, "stem must be half in a pyramid network"),
        (PYRAMID, {"head": "direct"}, "head must be bands or sources in a pyramid network"),
        (FUSION, {"head": "bands"}, "head must be direct or envelope in a fusion network"),
        (FUSION, {"channels": (8, 8)}, "channels must be one number in a fusion network"),
        (FUSION, {"cells": (COARSE,)}, "cells[0].level must be left out of a fusion network, not 1"),
        (FUSION, {"channels": 7}, "channels must be an even whole number"),
        (FUSION, {"channels": 0}, "channels must be an even whole number"),
        (FUSION, {"channels": 8.0}, "not 8.0"),
        (FUSION, {"channels": True}, "not True"),
        (FUSION, {"norm": "batchnorm"}, "norm must be one of batch, group, none"),
        (FUSION, {"stem": 2}, "stem must be one of full, half, not 2"),
        (FUSION, {"merge": "gated"}, "merge must be left out of a fusion network"),
        (FUSION, {"cells": ()}, "cells must hold at least one cell"),
        (FUSION, {"cells": (CELL, replace(CELL, kind="multiscale"))}, "cells[1].kind must be one of"),
        (FUSION, {"cells": (replace(CELL, operators=()),)}, "cells[0].operators must hold at least one"),
        (
            FUSION,
            {"cells": (CELL, replace(CELL, operators=("residual_k3",)))},
            "cells[1].operators[0]: unknown",
        ),
        (FUSION, {"cells": BRANCHES}, "cells[0].source must be left out of a fusion network"),
        (FUSION, {"provenance": None}, "provenance must be a mapping"),
        (
            FUSION,
            {"provenance": {"loss": [1.0, {"x": (1, 2)}]}},
            "provenance.loss[1].x must be a text, number",
        ),
        (FUSION, {"provenance": {1: 2}}, "provenance must have texts as keys"),
        (REFINE, {"merge": None}, "merge must be one of gated, concat, not None"),
        (REFINE, {"stem": "half"}, "stem must be full in a refine network"),
        (REFINE, {"cells": (CELL,)}, "cells[0].source must be one of first, second, not None"),
        (REFINE, {"cells": BRANCHES[:1]}, "at least one cell with source: second"),
        (DETFUSION, {"cells": (CELL,)}, "cells must be an empty list in a detfusion network"),
        (DETFUSION, {"norm": "batch"}, "norm must be none in a detfusion network, not 'batch'"),
        (DETFUSION, {"stem": "half"}, "stem must be full in a detfusion network, not 'half'"),
        (DETFUSION, {"merge": "gated"}, "merge must be left out of a detfusion network"),
        (DETFUSION, {"channels": 1}, "channels must be an even whole number"),
        (DETFUSION, {"network": "fusion"}, "cells must hold at least one cell"),
    ],
)
def test_a_wrong_field_is_named(genotype, changes, told):
    with pytest.raises(UserError) as error:
        replace(genotype, **changes)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_genotypes_can_be_keys():
    assert {load_genotype("tim"): 1}[load_genotype("tim")] == 1


@pytest.mark.parametrize("task", TASKS)
def test_a_known_task_knows_its_sources_and_its_colour(task):
    genotype = replace(FUSION, task=task)
    assert genotype.source_words == TASKS[task]
    assert genotype.colour_source == ("both" if task in ("multi-exposure", "multi-focus") else "second")
    assert replace(genotype, colour="first").colour_source == "first"


def test_a_task_of_the_users_own():
    assert OWN.source_words == ("X-ray", "neutron")
    assert OWN.colour_source == "second"
    assert replace(OWN, colour="both").colour_source == "both"
