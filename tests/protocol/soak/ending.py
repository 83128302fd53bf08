"""The end of a soak: everything is verified and restored, what was left over must go, and so must nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.protocol.soak.ledger import Ledger, SoakError, digest
from tests.protocol.soak.run import Soak, size

DAY_S = 86_400


class Ending:
    """Looks at what a soak has left."""

    def __init__(self, soak: Soak) -> None:
        self.soak = soak

    def check(self) -> dict[str, Any]:
        """Verifies and restores everything; collects, and looks whether anything is left that should not be."""
        before = size(self.soak.repository)
        client = ("--client", "bob")
        for home in ("one", "two", "last"):
            for where in ((), client):
                self.verify(*where, home=home)
                self.soak.run("log", "check", *where, home=home)
        self.soak.run("undo", "--all", home="one")
        self.soak.run("undo", "--all", *client, home="one")
        self.restore_all(self.soak.scene.main)
        self.restore_all(self.soak.scene.area, *client)
        self.soak.drop_markers()
        for path in self.soak.repository.rglob(".*"):
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, (time.time() - 2 * DAY_S,) * 2)  # what the killed left is a day old now
        self.soak.run("key", "rotate", "--resume", home="one")
        self.soak.run("key", "reencrypt", home="one")
        left = {}
        for where, folder in (((), self.soak.repository), (client, next(self.soak.repository.glob("clients/*")))):
            self.soak.run("prune", *where, home="two")
            self.soak.run("prune", *where, home="three")
            plan = self.soak.run("prune", "--dry-run", *where, home="last")
            left |= self.look_for_leftovers(plan, folder)
        self.restore_all(self.soak.scene.main)
        self.restore_all(self.soak.scene.area, *client)
        self.check_second()
        names = Counter(path.parent.name for path in self.soak.repository.glob("*/*") if path.is_file())
        main = self.soak.scene.main
        return {
            "commands": self.soak.scene.number,
            "reported": len(main.done) + len(self.soak.scene.area.done),
            "forgotten": len(main.leaving) + len(self.soak.scene.area.leaving),
            "bytes": {
                "at its peak": self.soak.peak_bytes,
                "in the end": before,
                "collected": size(self.soak.repository),
            },
            **left,
            "objects": dict(names),
            "cache_bytes": {path.name: size(path) for path in sorted(self.soak.folder.glob("cache *"))},
            **dict(sorted(self.soak.counts.items())),
        }

    def verify(self, *where: str, home: str, repository: Path | None = None) -> None:
        """Reads everything, and finds no damage."""
        found = self.soak.run("verify", "--read-data", *where, home=home, repository=repository)
        if found["damages"]:
            raise SoakError(f"damage: {found['damages']}")

    def look_for_leftovers(self, plan: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Raises where something is left after the last collection that should not be; returns figures."""
        names = Counter(path.parent.name for path in folder.glob("*/*") if path.is_file())
        snapshots = plan["snapshots"]
        left = {
            "condemned": names["condemned"],
            "sessions": names["sessions"],
            "undecided": plan["undecided"],
            "manifests too many": names["pending"] - snapshots,
            "dead packs": plan["dead"]["packs"],
            "temporary": sum(1 for _ in folder.rglob(".*")),
            "trash": names["trash"],
        }
        if any(left.values()):
            raise SoakError(f"left over: {left}")
        live, packs = plan["live_bytes"], plan["pack_bytes"]
        if packs > 2.5 * live + (4 << 20):
            raise SoakError(f"packs take {packs} bytes for {live} that are live")
        return {folder.name: {"snapshots": snapshots, "live_bytes": live, "pack_bytes": packs}}

    def restore_all(self, ledger: Ledger, *where: str) -> None:
        """Restores every snapshot and compares it; looks whether all that must be there are."""
        shown = self.soak.run("snapshots", *where, home="last")["snapshots"]
        missing = (ledger.staying() | ledger.trashed - ledger.leaving) - {item["label"] for item in shown}
        if missing:
            raise SoakError(f"snapshots were reported and are not there: {sorted(missing)}")
        for item in shown:
            self.restore(ledger, item, *where)

    def restore(self, ledger: Ledger, item: dict[str, Any], *where: str, repository: Path | None = None) -> None:
        """Restores a snapshot, and compares it with what was backed up."""
        source, expected = ledger.planned[item["label"]]
        target = self.soak.folder / "restored"
        shutil.rmtree(target, ignore_errors=True)
        self.soak.run("restore", f"{item['id']}:{source.path}", str(target), *where, home="last", repository=repository)
        if digest(target) != expected:
            raise SoakError(f"{item['label']} was restored, and holds something else than what was backed up")

    def check_second(self) -> None:
        """Synchronises the second repository, verifies it, and compares what is in it."""
        second = self.soak.folder / "second"
        words = ("sync", "--delete", "--to", str(second), "--other-key-file", str(self.soak.key))
        self.soak.run(*words, home="two")
        self.verify(home="last", repository=second)
        shown = self.soak.run("snapshots", home="last", repository=second)["snapshots"]
        there = {item["label"] for item in self.soak.run("snapshots", home="last")["snapshots"]}
        if there != {item["label"] for item in shown}:
            raise SoakError(
                f"the second repository holds {len(shown)} snapshots, and not the {len(there)} of the first"
            )
        for item in self.soak.rng.sample(shown, min(3, len(shown))):
            self.restore(self.soak.scene.main, item, repository=second)
