"""A private PostgreSQL cluster on a unix socket: filled, stopped, copied, worked on, stopped again.

PostgreSQL refuses to run as root: then it runs as the user that its package made, else as nobody.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from benches.tools import Unavailable

CLIENTS, TRANSACTIONS = 2, 300


def make_cluster(data: Path, before: Path, *, scale: int) -> None:
    """Leaves a cluster in ``data`` after 600 transactions, and in ``before`` its copy from before them."""
    programs = find_programs()
    user = ordinary_user()
    # The path of a socket must be short, and the user must get there.
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as socket:
        for folder in (data, Path(socket)):
            folder.mkdir(mode=0o700, exist_ok=True)
            if user is not None:
                os.chown(folder, user.pw_uid, user.pw_gid)
        cluster = Cluster(programs, data, Path(socket), user)
        cluster.run("initdb", "--no-sync", "-A", "trust", "-U", "bench", "-E", "UTF8", "--locale", "C", "-D", data)
        cluster.start()
        try:
            cluster.run("pgbench", "-i", "-q", "-s", str(scale), *cluster.connection)
        finally:
            cluster.stop()
        subprocess.run(["cp", "-a", data, before], check=True)
        cluster.start()
        try:
            work = ["-n", "-c", str(CLIENTS), "-t", str(TRANSACTIONS), "--random-seed=6"]
            cluster.run("pgbench", *work, *cluster.connection)
        finally:
            cluster.stop()


class Cluster:
    """Runs PostgreSQL's programs on one cluster."""

    def __init__(self, programs: Path, data: Path, socket: Path, user: pwd.struct_passwd | None) -> None:
        self.connection = ["-h", str(socket), "-U", "bench", "postgres"]
        self._programs = programs
        self._data = data
        self._socket = socket
        self._user = user

    def run(self, program: str, *words: str | Path) -> None:
        who = {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [self._programs / program, *words],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
                **who,
            )
            if done.returncode:
                said.seek(0)
                message = said.read().decode(errors="replace").strip()[-300:]
                raise Unavailable(f"{program} ended with status {done.returncode}: {message}")

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self._socket} -c autovacuum=off"
        self.run("pg_ctl", "start", "-w", "-D", self._data, "-l", self._socket / "log", "-o", options)

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "-w", "-m", "fast", "-D", self._data)


def find_programs() -> Path:
    """Returns the directory of the newest PostgreSQL; raises `Unavailable`."""
    found = sorted(
        (path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pgbench")), key=lambda path: int(path.parts[4])
    )
    if found:
        return found[-1]
    program = shutil.which("pgbench")
    if program is None or not Path(program).resolve().with_name("initdb").exists():
        raise Unavailable("PostgreSQL's server and pgbench are not installed; on Debian: apt-get install postgresql")
    return Path(program).resolve().parent


def ordinary_user() -> pwd.struct_passwd | None:
    """Returns whom the server runs as where that is somebody else than whoever measures."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unavailable("there is no ordinary user to run PostgreSQL as")
