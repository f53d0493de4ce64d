"""What the tests of studies share: trials so small that they end in a second, and a database server."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch

from timfuse.runtime.config import load_config
from timfuse.tuning import TuneConfig

TINY = """
run: run
device: cpu
data: {synthetic_pairs: 4, validation: 0.3}
search:
  data: {crop: 24, batch_size: 1}
  space: {preset: tim, channels: 2, cells: [successive], steps: 1, operators: [residual_k3_d1, spatial_attention_k3]}
  search:
    {steps: 4, warmup: 1, validate_every: 2, checkpoint_every: 1, inner_loss: search-inner, outer_loss: search-outer}
  cost: {height: 24, width: 24}
  verify: {candidates: 0}
train:
  data: {crop: 44, batch_size: 1, validation_pairs: 1}
  train: {steps: 2, warmup: 0, images: 0, checkpoint_every: 1}
vary:
  search: {space: {channels: [2, 4], stem: [full, half]}}
  train: {loss: {gradient: {low: 1, high: 5.0}}}
"""


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    """An empty current folder with tiny.yaml, a cache of its own, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("tiny.yaml").write_text(TINY, encoding="utf-8")
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny():
    """A function that makes the config of a tiny study, with settings such as "cost=null"."""
    return lambda *settings: load_config(TuneConfig, Path("tiny.yaml"), settings)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory):
    """The URL of an empty database of a PostgreSQL server that runs as long as the tests."""
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL: studies in it are not tested")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    initdb, postgres = (shutil.which(name, path=path) for name in ("initdb", "postgres"))
    if initdb is None or postgres is None:
        pytest.skip("no PostgreSQL server to start: studies in it are not tested")
    # The server refuses to run as root.
    user = None if os.geteuid() else next((name for name in ("postgres", "nobody") if _exists(name)), None)
    if user is None and os.geteuid() == 0:
        pytest.skip("no user to run PostgreSQL as: studies in it are not tested")
    # Not below the folder of the tests, which is closed to other users.
    folder = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    if user:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options: dict = {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = None
    try:
        data = str(folder / "data")
        subprocess.run([initdb, "-D", data, "-U", "tester", "-A", "trust", "-N"], check=True, **options)
        settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off"]
        words = [word for setting in settings for word in ("-c", setting)]
        server = subprocess.Popen([postgres, "-D", data, *words], **options)
        yield _wait_for(f"postgresql://tester:a-secret@127.0.0.1:{port}/postgres", server)
    finally:
        if server:
            server.terminate()
            server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _wait_for(url: str, server: subprocess.Popen) -> str:
    psycopg = pytest.importorskip("psycopg")
    for _ in range(300):
        assert server.poll() is None, "the server ended at once"
        try:
            psycopg.connect(url).close()
            return url
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise TimeoutError(url)
