"""The page of `timfuse app`: fuses two images that a browser sends, shows them under a slider and scores them.

The page loads nothing, and Python's own server, which needs no package, hands it to this machine alone.
"""

import base64
import contextlib
import json
import re
import tempfile
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data import luma, match_pairs, write_pixels
from ..data.embedded_images import jpeg_address
from ..data.images import SUFFIXES, Pixels, with_8_bits
from ..data.misalignment import misalignment
from ..data.synthetic.tasks import make_pair, pair_name
from ..genotypes import TASKS
from ..objectives.metrics import METRICS, fusion_metrics, ruler_of
from ..operators.network_folders import shipped_names
from ..runtime.errors import UserError
from ..runtime.html_text import filled
from .evaluation import TRIVIAL, Evaluation
from .evaluation_table import definition, headings, mean_texts
from .fuse_files import plain
from .fuser import Fuser, load

_ADDRESS = "127.0.0.1"
_TEMPLATE = Path(__file__).with_name("app.html")
_SHOWN = 1600  # height and width in pixels of the images on the page, at most
_EXAMPLE = {"seed": 1, "height": 480, "width": 640}
_FIRST_EXAMPLE = 3  # with this seed, it shows well what each task is about
_UNSAFE = re.compile(r"[^\w .()+-]")  # in the name of a file that a browser sends
_LONGEST_NAME = 60  # characters

File = dict[str, str]
"""A file on its way to or from the page: its name, and its content as `data` in base64."""


class FusedPair(NamedTuple):
    """A fused pair and what is to be said of it.

    Attributes:
        milliseconds: Time of the fusion, with copies to the device and back, without reading and scoring.
        scores: The ruler of the task for the fused image and for the average of the sources; without the metrics that
            need larger images.
        warning: How the sources look misaligned; "" if they do not.
    """

    first: Pixels
    second: Pixels
    fused: Pixels
    milliseconds: float
    scores: Evaluation
    warning: str


def fuse_and_score(fuser: Fuser, first: Pixels, second: Pixels) -> FusedPair:
    """Fuse a pair of the task of the network, and score it by the ruler of this task.

    Args:
        first: First source, (H, W) or (H, W, 3), uint8 or uint16.
        second: Second source of the same height and width.

    Raises:
        UserError: If the sources differ in size.

    Example:
        >>> from timfuse.data import make_scene
        >>> scene = make_scene(0, height=48, width=64)
        >>> done = fuse_and_score(load("ivif-nano", "cpu"), scene.first, scene.second)
        >>> done.fused.shape, done.scores.methods, done.scores.metrics[0]
        ((48, 64), ('fused', 'average'), 'VIF')
    """
    first, second = plain(first), plain(second)
    start = time.perf_counter()
    fused = plain(fuser(first, second))
    milliseconds = 1e3 * (time.perf_counter() - start)
    grey, *greys = (luma(with_8_bits(pixels)) for pixels in (fused, first, second))
    metrics = tuple(name for name in ruler_of(fuser.task) if METRICS[name].smallest_side <= min(grey.shape))
    batch = torch.from_numpy(np.stack([grey, TRIVIAL["average"](*greys)]))[:, None]  # (2, 1, H, W)
    one, other = (torch.from_numpy(source)[None, None] for source in greys)  # (1, 1, H, W)
    scores = fusion_metrics(batch, one, other, metrics)
    values = np.stack([scores[name].numpy() for name in metrics], axis=-1)[:, None]  # (2, 1, metrics)
    evaluation = Evaluation(("fused", "average"), ("pair",), metrics, values, frozenset({"average"}))
    return FusedPair(first, second, fused, milliseconds, evaluation, misalignment([(first, second)]))


class App(ThreadingHTTPServer):
    """The server of the page, which listens from the start and answers as soon as `serve_forever` runs.

    Args:
        runs: Networks to offer beside those that come with timfuse, as for `load`.
        port: Number of the port; 0 for any that is free.

    Raises:
        UserError: If a network cannot be loaded, or the port cannot be used.

    Example:
        >>> with App([], port=0) as app:
        ...     app.address.startswith("http://127.0.0.1:")
        True
    """

    daemon_threads = True  # Ctrl-C does not wait for a pair that is being fused

    def __init__(self, runs: Sequence[str], port: int) -> None:
        self._fusers = {name: load(name) for name in (*runs, *shipped_names())}
        try:
            super().__init__((_ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"the port {port} cannot be used ({reason}); choose another with --port") from None

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{_ADDRESS}:{self.server_port}"

    def page(self) -> str:
        """Return the page, which knows the networks and their tasks."""
        networks = [
            {"name": name, "task": fuser.task, "words": fuser.network.genotype.source_words}
            for name, fuser in self._fusers.items()
        ]
        data = {"networks": networks, "tasks": list(TASKS), "suffixes": ",".join(SUFFIXES)}
        return filled(_TEMPLATE, {"data": json.dumps(data).replace("<", "\\u003c")})

    def example(self, request: dict[str, Any]) -> dict[str, Any]:
        """Render a pair of a task; each number from 0 on is another pair."""
        task, index = request["task"], _FIRST_EXAMPLE + request["number"]
        pair = make_pair(task, index=index, **_EXAMPLE)
        return {"files": [_file(pair_name(task, index), pixels) for pixels in pair]}

    def fuse(self, request: dict[str, Any]) -> dict[str, Any]:
        """Fuse two files by a network that the page offers."""
        fuser = self._fusers[request["network"]]
        first, second, notes = _read(request["files"], fuser.network.genotype.source_words)
        done = fuse_and_score(fuser, first, second)
        if done.warning:
            notes.append(f"warning: {done.warning}")
        if fuser.colour == "second" and done.first.ndim > done.second.ndim:
            notes.append(
                "the first image has colour and the second is grey; if they are in the wrong fields, swap them"
            )
        images = (done.first, done.second, done.fused)
        height, width = done.fused.shape[:2]
        return {
            "images": [jpeg_address(with_8_bits(pixels), _SHOWN) for pixels in images],
            "file": _file(f"{Path(_safe(request['files'][0]['name'])).stem}-fused", done.fused),
            "size": (width, height),
            "facts": f"{width}x{height} pixels, {done.milliseconds:,.0f} ms in {fuser.name}",
            "notes": notes,
            "scores": list(
                zip(headings(done.scores), *mean_texts(done.scores), map(definition, done.scores.metrics), strict=True)
            ),
        }


class _Handler(BaseHTTPRequestHandler):
    """Answers a request: the page itself, or JSON for JSON, which is a mistake in one line as `error`."""

    server: App

    def parse_request(self) -> bool:
        """Refuse requests to another name, which a foreign page can give to this address to read the answers."""
        if not super().parse_request():
            return False
        local = self.headers.get("Host", "").partition(":")[0] in (_ADDRESS, "localhost")
        if not local:
            self.send_error(403)
        return local

    def do_GET(self) -> None:
        if self.path == "/":
            self._send("text/html; charset=utf-8", self.server.page())
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        answer = {"/example": self.server.example, "/fuse": self.server.fuse}.get(self.path)
        if answer is None:
            self.send_error(404)
            return
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            content = answer(request)
        except UserError as error:
            content = {"error": str(error)}
        self._send("application/json", json.dumps(content))

    def log_message(self, format: str, *values: object) -> None:
        """Print nothing; what goes wrong stands on the page."""

    def _send(self, kind: str, text: str) -> None:
        content = text.encode()
        with contextlib.suppress(ConnectionError):  # the browser has left the page meanwhile
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)


def _read(files: Sequence[File | None], words: tuple[str, str]) -> tuple[Pixels, Pixels, list[str]]:
    """Read both files as `timfuse fuse --stretch` does; return the images, and what has been done to them."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for side, word, file in zip(("first", "second"), words, files, strict=True):
            if file is None:
                raise UserError(f"the {side} image ({word}) is missing; drop it into its field")
            paths.append(Path(folder, side, _safe(file["name"])))
            paths[-1].parent.mkdir()
            paths[-1].write_bytes(base64.b64decode(file["data"]))
        try:
            (pair,) = match_pairs(*paths, stretch=True)
            first, second = pair.read()
        except UserError as error:
            raise UserError(str(error).replace(f"{folder}/", "")) from None
    notes = [
        f"the {side} image was stretched: {limits.low:.6g} is black, {limits.high:.6g} white"
        for side, limits in zip(("first", "second"), pair.stretches, strict=True)
        if limits
    ]
    return first, second, notes


def _safe(name: str) -> str:
    """Make a name from the browser the name of a file here."""
    return _UNSAFE.sub("_", name)[-_LONGEST_NAME:].lstrip(".") or "image"


def _file(stem: str, pixels: Pixels) -> File:
    """Write an image with every pixel and bit: as PNG, or TIFF where it has colour of 16 bits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, stem + (".tif" if pixels.dtype == np.uint16 and pixels.ndim == 3 else ".png"))
        write_pixels(path, pixels)
        return {"name": path.name, "data": base64.b64encode(path.read_bytes()).decode()}
