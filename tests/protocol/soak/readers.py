"""The roles of a soak that only look: what each runs next, and what is right when that ends."""

from __future__ import annotations

import shutil
from typing import Any

from tests.protocol.soak.ledger import HOMES, Command, Role, SoakError, digest

READ_MOUNTED = """
import json, os, sys, time
from tests.protocol.soak.ledger import digest
end = time.monotonic() + 20  # a mount looks for new snapshots every few seconds
while not os.path.isdir(sys.argv[1]):
    if time.monotonic() > end:
        sys.exit("it is not there")
    time.sleep(0.1)
print(json.dumps({"digest": digest(sys.argv[1])}))
"""


class Restorer(Role):
    """Restores one snapshot and compares it."""

    weight = 2.0

    def begin(self) -> Command | None:
        """Restores one, now and then on a machine that is new."""
        label = self.scene.one_of(self.ledger.staying())
        if not label:
            return None
        source, _ = self.ledger.planned[label]
        target = self.scene.folder / f"restored by {self.name}"
        shutil.rmtree(target, ignore_errors=True)
        home = self.rng.choice((*HOMES, f"fresh {self.scene.number}"))
        name = self.rng.choice((label, self.ledger.done[label]))
        words = ["restore", f"{name}:{source.path}", str(target), *self.client]
        return Command(words, home, {"label": label, "target": str(target)})

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:
        """It holds what was backed up."""
        if digest(about["target"]) != self.ledger.planned[about["label"]][1]:
            raise SoakError(f"{about['label']} was restored, and holds something else than what was backed up")


class AreaRestorer(Restorer):
    """Does so from the area."""

    weight = 0.7
    area = True


class Verifier(Role):
    """Verifies, and finds nothing."""

    weight = 1.5

    def begin(self) -> Command:
        """Verifies, everything or what there is."""
        words = ["verify", *(["--read-data"] if self.rng.random() < 0.5 else [])]
        where = self.rng.choice(([], [], ["--client", "bob"], ["--all-clients"]))
        if self.rng.random() < 0.15:
            return Command(["verify", "--keyless"], self.scene.home())
        return Command([*words, *where], self.rng.choice((*HOMES, f"fresh {self.scene.number}")))

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:
        """No damage was found."""
        for result in (item["result"] for item in found.get("repositories", [{"result": found}])):
            if result["damages"]:
                raise SoakError(f"verify found damage: {result['damages']}")


class Lister(Role):
    """Lists snapshots, and misses none."""

    weight = 3.0

    def begin(self) -> Command:
        """Lists in some way."""
        label = self.scene.one_of(self.ledger.staying())
        ways = [
            ["snapshots"],
            ["snapshots"],
            ["snapshots"],
            ["snapshots", "--trash"],
            ["stats"],
            ["log", "show"],
            ["key", "epochs"],
        ]
        if label:
            ways += [
                ["ls", label],
                ["find", "file3"],
                ["history", str(self.ledger.planned[label][0].path / "folder1/deep1/file1")],
            ]
        words = self.rng.choice(ways)
        listed = sorted(self.ledger.staying()) if words == ["snapshots"] else []
        return Command(
            [*words, *(self.client if words[0] == "snapshots" else [])], self.scene.home(), {"listed": listed}
        )

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:
        """What was reported before, and is to stay, was listed."""
        if about["listed"]:
            missing = (set(about["listed"]) & self.ledger.staying()) - {item["label"] for item in found["snapshots"]}
            if missing:
                raise SoakError(f"snapshots were reported and are not listed: {sorted(missing)}")


class AreaLister(Lister):
    """Does so in the area."""

    weight = 0.7
    area = True


class Historian(Role):
    """Compares the logs with what was seen, and with heads that were kept."""

    weight = 1.5

    def begin(self) -> Command:
        """Keeps a head, or compares."""
        if self.rng.random() < 0.3:
            return Command(["log", "head"], self.scene.home())
        heads = [self.rng.choice(self.scene.heads)] if self.scene.heads and self.rng.random() < 0.7 else []
        return Command(["log", "check", *heads], self.scene.home())

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:
        """All is as it was."""
        if found.get("findings"):
            raise SoakError(f"log check found: {found['findings']}")
        if "head" in found:
            self.scene.heads.append(found["head"])


class MountReader(Role):
    """Reads a snapshot in the mount that stands."""

    weight = 1.0

    def begin(self) -> Command | None:
        """Reads one that was there before the mount last looked, or after."""
        label = self.scene.one_of(self.ledger.staying())
        if not label:
            return None
        source, expected = self.ledger.planned[label]
        path = f"{self.scene.folder}/mounted/at/{label}{source.path}"
        return Command([path], "one", {"label": label, "expected": expected}, ["-c", READ_MOUNTED])

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:
        """It holds what was backed up."""
        if found["digest"] != about["expected"] and about["label"] in self.ledger.staying():
            raise SoakError(f"{about['label']} is another one in the mount than what was backed up")
