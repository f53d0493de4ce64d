"""Drawing a genotype: the network and each of its cells, as DOT text, SVG and PNG."""

from collections.abc import Mapping
from pathlib import Path

from ..genotypes import Genotype
from ..runtime.files import write_atomically
from .dot import dot_text
from .picture import cell_picture, network_picture
from .rendering import render


def draw(genotype: Genotype, folder: Path, parameters: Mapping[str, int] | None = None) -> list[Path]:
    """Draw a network and each of its cells.

    Args:
        folder: Folder for network.dot, network.svg, network.png, cell_1.dot and so on, which is made if it is missing.
        parameters: Number of elements of every parameter of the built network, by the parameter's name. Without it,
            the pictures show no numbers of parameters.

    Returns:
        The files, those of the network first.

    Raises:
        UserError: If graphviz cannot draw, or a file cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from timfuse.genotypes import load_genotype
        >>> with TemporaryDirectory() as folder:
        ...     files = draw(load_genotype("detfusion"), Path(folder))
        >>> [file.name for file in files]
        ['network.dot', 'network.svg', 'network.png']
    """
    pictures = {"network": network_picture(genotype, parameters)}
    for index in range(len(genotype.cells)):
        pictures[f"cell_{index + 1}"] = cell_picture(genotype, index, parameters)
    files = []
    for name, content in render({name: dot_text(picture) for name, picture in pictures.items()}).items():
        files.append(folder / name)
        write_atomically(files[-1], content)
    return files
