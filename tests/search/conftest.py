"""What the tests of the search share: tiny searches, their steps without a conclusion, and a cache of its own."""

import pytest

from timfuse.runtime.checkpoint import load_checkpoint
from timfuse.runtime.history import read_history
from timfuse.search import search

from ..tiny_runs import tiny_search


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Latency tables of the tests stay out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def tiny(tmp_path):
    """A function that makes the config of a tiny search; keyword arguments change keys of its sections."""
    return lambda run="run", **sections: tiny_search(tmp_path / run, **sections)


class Ended(Exception):  # noqa: N818
    """Ends a search before its conclusion."""


@pytest.fixture
def make_steps():
    """A function that makes the steps of a search; returns the rows of its history and the state at the end."""

    def make(config, *, resume=False, at=None):
        def end(step, losses):
            if step == (config.search.steps - 1 if at is None else at):
                raise Ended

        with pytest.raises(Ended):
            search(config, resume=resume, on_validation=end)
        return read_history(config.run / "history.jsonl"), load_checkpoint(config.run / "checkpoint.pt")["state"]

    return make
