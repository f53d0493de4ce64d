"""The storage of studies: errors in one line without the password, and databases that come and go."""

import sqlite3
from pathlib import Path

import optuna
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from timfuse.runtime.errors import UserError
from timfuse.tuning import show, tune
from timfuse.tuning.storage import Storage, connected, parse_url, shown


def refusal(url):
    with pytest.raises(UserError) as error, connected(parse_url(url, Path("run"))):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_storage_is_a_file_in_the_run_folder_unless_a_url_says_otherwise():
    assert str(parse_url(None, Path("run"))) == "sqlite:///run/study.db"
    assert parse_url("postgresql://user@host/name", Path("run")) == make_url("postgresql://user@host/name")


@pytest.mark.parametrize("text", ["study.db", "a-secret", "postgresql:user:a-secret@host", "postgresql://u:s@host:x/y"])
def test_what_is_no_url_is_not_repeated(text):
    with pytest.raises(UserError, match="--storage must be the URL of a database, like sqlite") as error:
        parse_url(text, Path("run"))
    assert "secret" not in str(error.value)


def test_a_password_is_never_shown():
    for text in (
        "postgresql://user:a-secret@host/name",
        "postgresql://user@host/name?password=a-secret&sslmode=require",
    ):
        assert "a-secret" not in shown(make_url(text))
        assert "user" in shown(make_url(text))


def test_a_server_that_is_not_there():
    pytest.importorskip("psycopg")
    line = refusal("postgresql://user:a-secret@127.0.0.1:9/name")
    assert line.startswith("cannot use the storage postgresql://user:***@127.0.0.1:9/name: connection failed: ")
    assert line.endswith("; check its address and that it is running, then start again: nothing is lost")


def test_a_driver_that_is_not_there():
    line = refusal("postgresql+pg8000://user:a-secret@host/name")
    assert line == "no driver for the storage postgresql+pg8000://user:***@host/name; `pip install pg8000`"
    assert refusal("redis://host").startswith("the storage redis://host is of no known kind; use sqlite, postgresql")


def test_a_file_that_is_no_database():
    Path("study.db").write_bytes(b"nothing" * 1000)
    assert refusal("sqlite:///study.db").startswith(
        "cannot use the storage sqlite:///study.db: file is not a database;"
    )
    Path("file").touch()
    assert refusal("sqlite:///file/study.db").startswith("cannot write file: a part of this path is a file")


def test_tables_of_another_version():
    with connected(parse_url(None, Path("run"))):
        pass
    with sqlite3.connect("run/study.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
    assert "cannot be used: The runtime optuna version" in refusal(None)


def test_a_heartbeat_that_cannot_be_recorded_does_not_end_the_others(monkeypatch):
    def fail(self, trial_id):
        raise OperationalError("", {}, Exception("gone"))

    with connected(parse_url(None, Path("run"))) as storage:
        monkeypatch.setattr(optuna.storages.RDBStorage, "record_heartbeat", fail)
        storage.record_heartbeat(0)
        assert isinstance(storage, Storage)


def test_a_database_that_goes_away_is_one_line(tiny, monkeypatch):
    def fail(*arguments, **options):
        raise OperationalError("", {}, Exception("server closed the connection\nunexpectedly"))

    monkeypatch.setattr("timfuse.tuning.worker.run_trial", fail)
    with pytest.raises(UserError, match=r"cannot use the storage .*db: server closed the connection; "):
        tune(tiny(), 1)


def test_a_database_that_goes_away_at_the_end_of_a_trial_is_one_line(tiny, monkeypatch):
    def go_away(*arguments, **options):
        def fail(*arguments, **options):
            raise OperationalError("", {}, Exception("server closed the connection"))

        for name in ("set_trial_state_values", "get_trial"):
            monkeypatch.setattr(Storage, name, fail)
        raise UserError("a failure that Optuna tells the storage")

    monkeypatch.setattr("timfuse.tuning.worker.run_trial", go_away)
    with pytest.raises(UserError, match=r"cannot use the storage .*db: server closed the connection; "):
        tune(tiny(), 1)


def test_a_variable_of_our_own_without_a_value_stays_a_defect():
    with pytest.raises(UnboundLocalError), connected(parse_url(None, Path("run"))):
        raise UnboundLocalError


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"])
def test_a_study_in_memory_would_be_lost(tiny, text):
    with pytest.raises(
        UserError, match=r"the storage sqlite:.* ends with this process; name a file, like sqlite:///st"
    ):
        tune(tiny(), 1, text)
    assert not Path("run").exists()
    assert parse_url("sqlite:///memory.db", Path("run")).database == "memory.db"


def test_there_is_nothing_to_show_before_the_first_trial(tiny):
    with pytest.raises(UserError, match=r"no study tune in .*study\.db; run it first, without --show"):
        show(tiny())
    assert not Path("run").exists()
    with connected(parse_url(None, Path("run"))) as storage:
        optuna.create_study(storage=storage, study_name="another")
    with pytest.raises(UserError, match=r"no study tune in .*; it holds another: choose one with --set study=NAME"):
        show(tiny())
