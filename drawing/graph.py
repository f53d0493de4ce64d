"""The graph of a genotype: each step from the sources to the output, with its number of parameters."""

from collections.abc import Mapping, Sequence

import networkx

from ..genotypes import CellGenotype, Genotype, parse_operator
from ..genotypes.genotype import SOURCES


def genotype_graph(genotype: Genotype, parameters: Mapping[str, int] | None = None) -> networkx.DiGraph:
    """Return the network of a genotype as a directed acyclic graph, an edge for each flow of features.

    The attributes of a node are:

    - `role`: source, stem, preprocess, operator, split, projection, down, up, residual, gate, merge, add, head, output
    - `label`, `detail`: the text of the node
    - `operator`: the kind of the operator, or None
    - `cell`: the index into `genotype.cells`, or None
    - `modules`: the paths of the modules in the built network that compute this step
    - `parameters`: the number of elements of their parameters, or None without `parameters`

    Args:
        parameters: Number of elements of every parameter of the built network, by the parameter's name.

    Raises:
        ValueError: If a parameter belongs to no node.

    Example:
        >>> from timfuse.genotypes import load_genotype
        >>> graph = genotype_graph(load_genotype("detfusion"))
        >>> list(graph.predecessors("merge"))
        ['first_encoder', 'second_encoder']
        >>> graph.nodes["decoder"]["label"]
        'Decoder'
    """
    builder = _Builder(genotype)
    if genotype.network == "fusion":
        builder.fusion_network()
    elif genotype.network == "detfusion":
        builder.detfusion_network()
    elif genotype.network == "pyramid":
        builder.pyramid_network()
    else:
        builder.refine_network()
    if parameters is not None:
        _count(builder.graph, parameters)
    return builder.graph


def cell_subgraph(graph: networkx.DiGraph, index: int) -> networkx.DiGraph:
    """Return the nodes of one cell and the edges between them, in the order of the network's graph."""
    # The order of networkx's own subgraphs is that of a set, which differs from process to process.
    cell: networkx.DiGraph = networkx.DiGraph()
    cell.add_nodes_from((node, data) for node, data in graph.nodes(data=True) if data["cell"] == index)
    cell.add_edges_from((before, after) for before, after in graph.edges if before in cell and after in cell)
    return cell


def _count(graph: networkx.DiGraph, parameters: Mapping[str, int]) -> None:
    nodes = {module: node for node, modules in graph.nodes(data="modules") for module in modules}
    networkx.set_node_attributes(graph, dict.fromkeys(graph, 0), "parameters")
    for name, elements in parameters.items():
        parts = name.split(".")
        prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        node = next((nodes[prefix] for prefix in prefixes if prefix in nodes), None)
        if node is None:
            raise ValueError(f"the parameter {name} belongs to no part of this genotype's network")
        graph.nodes[node]["parameters"] += elements


class _Builder:
    """Adds nodes from the sources to the outputs; a method returns the name of the node with its result."""

    def __init__(self, genotype: Genotype) -> None:
        self.genotype = genotype
        self.graph: networkx.DiGraph = networkx.DiGraph()
        self.level = 0  # of the cell that is being added

    def fusion_network(self) -> None:
        half = self.genotype.stem == "half"
        node = self.node("stem", "stem", "Stem", self.sources(), detail="at 1/2 size" if half else "", module="stem")
        for index, cell in enumerate(self.genotype.cells):
            node = self.cell(f"cells.{index}", index, cell, node)
        node = self.node("head", "head", "Head", [node], detail="back to full size" if half else "", module="head")
        self.fused_image(node)

    def detfusion_network(self) -> None:
        detail = f"four layers, {self.channels(4)}"
        encoders = [
            self.node(f"{name}_encoder", "stem", "Dense encoder", [source], detail=detail, module=f"{name}_encoder")
            for name, source in zip(SOURCES, self.sources(), strict=True)
        ]
        merged = self.node("merge", "merge", "Concatenate", encoders, detail=self.channels(8))
        self.fused_image(self.node("decoder", "head", "Decoder", [merged], detail="four layers", module="decoder"))

    def pyramid_network(self) -> None:
        widths = self.genotype.widths
        featureless = widths.count(0)  # the finest levels
        stem = self.node("stem", "stem", "Stem", self.sources(), detail=_at(featureless, widths), module="stem")
        encoded = [stem]
        for level in range(featureless + 1, len(widths)):
            # The sources at this size, which go in too, are left out: their edges would cross the whole picture.
            name = f"downs.{level - featureless - 1}"
            encoded.append(self.node(name, "down", "Down", [encoded[-1]], detail=_at(level, widths), module=name))
        heads, coarser = [], None
        for level in reversed(range(featureless, len(widths))):
            node = encoded[level - featureless]
            if coarser is not None:
                name = f"ups.{level - featureless}"
                up = self.node(name, "up", "Up", [coarser], detail=_at(level, widths), module=name)
                node = self.node(f"levels.{level}.add", "add", "+", [node, up])
            for index, cell in enumerate(self.genotype.cells):
                if cell.level == level:
                    last = self.cell(f"cells.{index}", index, cell, node)
                    stage = cell.kind == "stage"  # which adds its blocks to its input itself
                    node = last if stage else self.node(f"levels.{level}.add.{index}", "add", "+", [node, last])
            if level + 1 == len(widths):
                heads.append(self.node("base", "head", "Base", [node], detail=_size(level + 1), module="base"))
            name = f"heads.{level - featureless}"
            heads.append(self.node(name, "head", "Band", [node], detail=_size(level), module=name))
            coarser = node
        self.fused_image(self.node("bands", "merge", "Sum of the bands", heads))

    def fused_image(self, node: str) -> None:
        if self.genotype.head == "envelope":
            # The maximum and minimum of the sources are left out: their edges would cross the whole picture.
            node = self.node("envelope", "merge", "Envelope", [node], detail="u · max + l · min + o")
        self.node("output", "output", "Fused image", [node])

    def refine_network(self) -> None:
        first, second = self.sources()
        fused = self.node("fused", "source", "Fused image", [])
        x_first, x_second = self.branch("first", [first, fused]), self.branch("second", [fused, second])
        self.side("first", x_first)
        if self.genotype.merge == "gated":
            gate = self.node("gate", "gate", "Gate", [x_first], detail="mask m in [0, 1]", module="gate")
            inputs = [x_first, gate, x_second]
            merged = self.node("merge", "merge", "Blend", inputs, detail="m · first + (1 - m) · second")
            head = self.node("head", "head", "Head", [merged], module="head")
        else:
            merged = self.node("merge", "merge", "Concatenate", [x_first, x_second])
            head = self.node("head", "head", "Head", [merged], detail="tanh", module="head")
        self.node("output", "output", "Refined image", [head])
        self.side("second", x_second)

    def side(self, source: str, x: str) -> None:
        head = self.node(f"{source}_head", "head", "Side head", [x], detail="tanh", module=f"{source}_head")
        self.node(f"{source}_output", "output", f"{source.capitalize()} side image", [head])

    def sources(self) -> list[str]:
        words = self.genotype.source_words
        return [self.node(name, "source", _capitalised(word), []) for name, word in zip(SOURCES, words, strict=True)]

    def branch(self, source: str, inputs: Sequence[str]) -> str:
        node = self.node(f"{source}_stem", "stem", "Stem", inputs, module=f"{source}_stem")
        cells = [(index, cell) for index, cell in enumerate(self.genotype.cells) if cell.source == source]
        for position, (index, cell) in enumerate(cells):
            node = self.cell(f"{source}_cells.{position}", index, cell, node)
        return node

    def cell(self, path: str, index: int, cell: CellGenotype, node: str) -> str:
        build = {
            "successive": self.successive_cell,
            "multi_scale": self.multi_scale_cell,
            "decomposition": self.decomposition_cell,
            "stage": self.stage_cell,
        }
        before = len(self.graph)
        self.level = cell.level or 0
        node = build[cell.kind](path, cell.operators, node)
        for new in list(self.graph)[before:]:
            self.graph.nodes[new]["cell"] = index
        return node

    def successive_cell(self, path: str, operators: Sequence[str], node: str) -> str:
        node = self.preprocess(path, node)
        return self.chain(f"{path}.operators", operators, node)

    def stage_cell(self, path: str, operators: Sequence[str], node: str) -> str:
        return self.chain(f"{path}.operators", operators, node)

    def multi_scale_cell(self, path: str, operators: Sequence[str], node: str) -> str:
        node = self.preprocess(path, node)
        scales = [self.chain(f"{path}.operators", operators, node, f"full size, {self.channels(1)}")]
        for name, size, factor in (("half", "1/2", 2), ("quarter", "1/4", 4)):
            detail = f"{size} size, {self.channels(factor)}"
            down = self.own(path, f"down_{name}", "down", f"Down to {size}", [node])
            last = self.chain(f"{path}.operators_{name}", operators, down, detail)
            scales.append(self.own(path, f"up_{name}", "up", f"Up from {size}", [last]))
        merge = self.own(path, "merge", "merge", "Selective-kernel fusion", scales)
        return self.node(f"{path}.add", "add", "+", [node, merge])

    def decomposition_cell(self, path: str, operators: Sequence[str], node: str) -> str:
        split = self.node(f"{path}.split", "split", "Guided filters", [node], detail="low and high band")
        bands = []
        for band in ("low", "high"):
            label = f"{band.capitalize()} band"
            projection = self.own(path, f"{band}_projection", "projection", label, [split], detail="1×1")
            bands.append(self.chain(f"{path}.{band}_operators", operators, projection, f"{band} band"))
        merge = self.own(path, "merge", "merge", "Merge", bands, detail="1×1")
        residual = self.own(path, "residual", "residual", "Residual module", [merge])
        return self.node(f"{path}.add", "add", "+", [merge, residual])

    def preprocess(self, path: str, node: str) -> str:
        norm = {"batch": ", batch norm", "group": ", group norm", "none": ""}[self.genotype.norm]
        return self.own(path, "preprocess", "preprocess", "Preprocess", [node], detail=f"ReLU, 1×1{norm}")

    def chain(self, path: str, operators: Sequence[str], node: str, detail: str = "") -> str:
        for index, identifier in enumerate(operators):
            module, name = f"{path}.{index}", parse_operator(identifier)
            label = _capitalised(name.in_words)
            node = self.node(module, "operator", label, [node], detail=detail, module=module, operator=name.kind)
        return node

    def own(self, path: str, name: str, role: str, label: str, inputs: Sequence[str], detail: str = "") -> str:
        """Add a node that is a module of the cell at `path`."""
        return self.node(f"{path}.{name}", role, label, inputs, detail=detail, module=f"{path}.{name}")

    def node(
        self,
        name: str,
        role: str,
        label: str,
        inputs: Sequence[str],
        *,
        detail: str = "",
        module: str | None = None,
        operator: str | None = None,
    ) -> str:
        modules = () if module is None else (module,)
        words = {"label": label, "detail": detail}
        self.graph.add_node(name, role=role, **words, operator=operator, cell=None, modules=modules, parameters=None)
        self.graph.add_edges_from((source, name) for source in inputs)
        return name

    def channels(self, factor: int) -> str:
        return f"{factor * self.genotype.widths[self.level]} channels"


def _size(level: int) -> str:
    return f"1/{2**level} size" if level else "full size"


def _at(level: int, widths: Sequence[int]) -> str:
    return f"{_size(level + 1)}, {widths[level]} channels"


def _capitalised(words: str) -> str:
    return words[:1].upper() + words[1:]
