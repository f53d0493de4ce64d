"""The storage of studies: any database that Optuna can use, opened for many workers, and its errors in one line."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from ..runtime.errors import UserError
from ..runtime.files import make_folder

HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 60  # time without a heartbeat after which a worker counts as dead
_BUSY_SECONDS = 60  # longest wait for another worker's transaction
_ATTEMPTS = 10  # largest number of attempts to make tables that another worker is making
_PACKAGES = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "mysqldb": "mysqlclient"}  # by driver


class Storage(RDBStorage):
    """A database whose workers survive a short failure of the connection.

    Attributes:
        shown: The URL without its password.
    """

    def __init__(self, url: URL) -> None:
        self.shown = shown(url)
        sqlite = url.get_backend_name() == "sqlite"
        # Transactions of SQLite are started by the listener below.
        arguments = {"timeout": _BUSY_SECONDS, "isolation_level": None} if sqlite else {}
        super().__init__(
            url.render_as_string(hide_password=False),
            engine_kwargs={"pool_pre_ping": True, "connect_args": arguments},
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
        )
        if sqlite:
            # Reading and then writing is one transaction only if it starts as a writing one; otherwise two workers
            # could take the same trial.
            event.listen(self.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))

    def record_heartbeat(self, trial_id: int) -> None:
        # The failure of one heartbeat must not end the following ones.
        with suppress(SQLAlchemyError, StorageInternalError):
            super().record_heartbeat(trial_id)


def parse_url(text: str | None, run: Path) -> URL:
    """Read the URL of a storage that lasts.

    Args:
        text: URL such as `postgresql://user:password@host/name`; None for a file in the run folder.
        run: Run folder, which gets the file study.db.

    Raises:
        UserError: If the text is not the URL of a database, or of one in memory.
    """
    if text is None:
        return URL.create("sqlite", database=str(run / "study.db"))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # their messages may hold the password
        raise UserError(
            "--storage must be the URL of a database, like sqlite:///study.db or postgresql://user:password@host/name"
        ) from None
    file = url.database or ":memory:"
    if url.get_backend_name() == "sqlite" and (":memory:" in file or "mode=memory" in str(url)):
        raise UserError(f"the storage {shown(url)} ends with this process; name a file, like sqlite:///study.db")
    return url


def shown(url: URL) -> str:
    """Write a URL without its password."""
    return url.difference_update_query(["password"]).render_as_string(hide_password=True)


@contextmanager
def connected(url: URL) -> Iterator[Storage]:
    """Open a storage until the block ends; Optuna is silent in it, and errors of the database become one line.

    Raises:
        UserError: If the database cannot be used.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats and retries are experimental
            storage = _open(url)
            try:
                yield storage
            finally:
                storage.remove_session()
                storage.engine.dispose()
    except (SQLAlchemyError, StorageInternalError, UnboundLocalError) as error:
        # If the storage fails while Optuna stores the end of a trial, a variable of Optuna has no value.
        reason = error.__context__ if isinstance(error, UnboundLocalError) else error
        if not isinstance(reason, (SQLAlchemyError, StorageInternalError)):
            raise
        raise UserError(
            f"cannot use the storage {shown(url)}: {_line(url, reason)}; "
            "check its address and that it is running, then start again: nothing is lost"
        ) from None
    finally:
        optuna.logging.set_verbosity(verbosity)


def _open(url: URL) -> Storage:
    """Open a storage, and make its tables where they are missing."""
    if url.get_backend_name() == "sqlite" and url.database:
        make_folder(Path(url.database).parent)
    for attempt in range(_ATTEMPTS):
        try:
            return Storage(url)
        except ImportError:
            driver = url.get_driver_name()
            package = _PACKAGES.get(driver, driver)
            raise UserError(f"no driver for the storage {shown(url)}; `pip install {package}`") from None
        except NoSuchModuleError:
            raise UserError(
                f"the storage {shown(url)} is of no known kind; use sqlite, postgresql or mysql, as Optuna does"
            ) from None
        except (SQLAlchemyError, StorageInternalError) as error:
            twice = isinstance(error, IntegrityError) or "already exists" in str(error)
            if not twice or attempt == _ATTEMPTS - 1:
                raise
        except RuntimeError as error:  # the tables are of another version of Optuna
            raise UserError(f"the storage {shown(url)} cannot be used: {_line(url, error)}") from None
        time.sleep(0.1 * (attempt + 1))
    raise AssertionError


def _line(url: URL, error: BaseException) -> str:
    """Return the first line of the driver's message, without the password."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(getattr(error, "orig", None) or error).strip()
    line = " ".join(text.splitlines()[0].split()) if text else type(error).__name__
    passwords = (url.password, *url.normalized_query.get("password", ()))
    for password in filter(None, map(str, passwords)):
        line = line.replace(password, "***")
    return line
