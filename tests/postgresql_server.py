"""A real PostgreSQL on a free port of loopback, from Debian's package; a database for each test."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.programs import missing
from tests.servers import until

WAIT_S = 20.0
# Durability costs time and proves nothing here.
FAST = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")


class PostgresqlServer:
    """A cluster of its own in a folder; `new_database` gives the address of an empty one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make the cluster and start it; root may not, so somebody else does."""
        programs, user = _programs(), _somebody()
        os.chown(self._folder, user.pw_uid, user.pw_gid)
        data = self._folder / "data"
        options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}
        if os.geteuid() != 0:
            options = {"cwd": "/"}
        quiet = {
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            "env": {"LC_ALL": "C.UTF-8"},
        }
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "-N"],
            check=True, timeout=WAIT_S * 3, **quiet, **options,
        )  # fmt: skip
        self._process = subprocess.Popen(
            [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(self.port), "-k", "",
             *FAST],
            **quiet, **options,
        )  # fmt: skip
        until(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "postgres ended at once"
        try:
            self.run("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str) -> str:
        return f"postgresql://test@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str) -> None:
        """Run a statement outside any database of a test."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def new_database(self) -> str:
        """Return the address of an empty database."""
        self._made += 1
        self.run(f"CREATE DATABASE test{self._made} TEMPLATE template0 ENCODING 'UTF8'")
        return self.url(f"test{self._made}")

    def stop(self) -> None:
        """End it at once; nothing of it is kept."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(WAIT_S)
            self._process = None


def _programs() -> Path:
    found = shutil.which("postgres")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    missing("postgresql is not installed")
    raise AssertionError


def _somebody() -> pwd.struct_passwd:
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


@contextmanager
def running_postgresql() -> Iterator[PostgresqlServer]:
    """Run a server with an empty folder of its own."""
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        server = PostgresqlServer(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """One server for all tests; each takes a database of its own."""
    with running_postgresql() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> str:
    """The address of an empty database."""
    return postgresql_server.new_database()
