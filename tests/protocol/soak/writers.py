"""The roles of a soak that change something: what each runs next, and what is right when that ends.

None decides that something is fine because others were at work: that is said in one place, `run.EXPECTED`.
"""

from __future__ import annotations

from typing import Any

from tests.protocol.soak.ledger import Command, Role, Scene, SoakError, Source, digest

KEEP = "keep"
"""The tag of what no policy takes."""
KEPT = 8
"""So many snapshots of each place stay, about."""


class Writer(Role):
    """Makes snapshots of one source."""

    weight = 6.0

    def __init__(self, name: str, scene: Scene, source: Source) -> None:
        super().__init__(name, scene)
        self.source = source

    def begin(self) -> Command:
        """Changes the source, and backs it up."""
        label = f"run-{self.scene.number}"
        self.ledger.planned[label] = (self.source, self.content())
        tags = ["--tag", KEEP] if self.rng.random() < 0.6 else []
        if not tags:
            self.ledger.expendable.add(label)
        return Command(
            ["snapshot", str(self.source.path), "--label", label, *tags, *self.credential()],
            self.home(),
            {"label": label},
        )

    def content(self) -> str:
        """Changes the source; returns the digest of what it is to hold."""
        return self.source.change()

    def home(self) -> str:
        """Returns where it remembers."""
        return self.scene.home()

    def credential(self) -> list[str]:
        """Returns how it opens the repository, where not with its key."""
        return []

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:
        """The snapshot is there from now on."""
        self.ledger.done[about["label"]] = found["snapshot"]


class SameWriter(Writer):
    """Makes snapshots of what another one backs up at the same time: nothing changes there."""

    weight = 1.0

    def content(self) -> str:
        """Returns the digest of what is there."""
        return digest(self.source.path)


class ClientWriter(Writer):
    """Is a client that cannot read, and makes snapshots in its area."""

    weight = 3.0
    area = True

    def home(self) -> str:
        """Returns where it remembers: its own machine."""
        return "bob"

    def credential(self) -> list[str]:
        """Returns its credential."""
        return ["--client-file", str(self.scene.folder / "bob.credential")]


class Collector(Role):
    """Prunes, now and then with a policy."""

    weight = 3.0

    def begin(self) -> Command:
        """Prunes."""
        words = ["prune", "--repack-below", self.rng.choice(("50%", "80%", "95%")), *self.client]
        policy = self.rng.random() < 0.25
        if policy:
            words += self.policy()
        return Command(words, self.scene.home(), {"policy": policy})

    def policy(self) -> list[str]:
        """Returns a policy; what it may take counts as told to go from now on."""
        self.ledger.leaving |= self.ledger.expendable
        return ["--keep-last", str(self.rng.randrange(1, 4)), "--keep-tag", KEEP]

    def ended(self, about: dict[str, Any]) -> None:
        """A policy may have taken what came before it looked."""
        if about["policy"]:
            self.ledger.leaving |= self.ledger.expendable

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:
        """No damage was met."""
        if found.get("damages"):
            raise SoakError(f"prune met damage: {found['damages']}")


class AreaCollector(Collector):
    """Prunes the area of the client, as its owner."""

    weight = 1.0
    area = True


class Forgetter(Role):
    """Forgets snapshots by name, by a policy, or for a time of grace."""

    weight = 2.0

    def begin(self) -> Command | None:
        """Forgets where there are many."""
        ledger, staying = self.ledger, self.ledger.staying()
        if len(staying) <= KEPT * 2 * self.rng.random():
            return None
        chosen = self.rng.sample(sorted(staying), min(len(staying), self.rng.randrange(1, 4)))
        named = [self.rng.choice((label, ledger.done[label])) for label in chosen]
        if self.rng.random() < 0.4:
            ledger.trashed |= set(chosen)
            return Command(["forget", *named, "--grace", "1h", *self.client], self.scene.home())
        ledger.leaving |= set(chosen)
        return Command(["forget", *named, *self.client], self.scene.home())


class AreaForgetter(Forgetter):
    """Does so in the area."""

    weight = 0.7
    area = True


class Undoer(Role):
    """Brings back what is in the trash."""

    weight = 1.0

    def begin(self) -> Command | None:
        """Brings one back."""
        label = self.scene.one_of(self.ledger.trashed - self.ledger.leaving)
        if not label:
            return None
        name = self.rng.choice((label, self.ledger.done[label]))
        return Command(["undo", name], self.scene.home(), {"label": label})

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:
        """It stays from now on."""
        if found["restored"]:
            self.ledger.trashed.discard(about["label"])


class Rewriter(Role):
    """Makes snapshots of snapshots."""

    weight = 0.7

    def begin(self) -> Command | None:
        """Gives one other words."""
        ledger = self.ledger
        old = self.scene.one_of(ledger.staying())
        if not old:
            return None
        label = f"again-{self.scene.number}"
        ledger.planned[label] = ledger.planned[old]
        ledger.expendable |= {label} if old in ledger.expendable else set()
        words = ["rewrite", old, "--label", label, "--reason", "soaked"]
        if self.rng.random() < 0.5:
            ledger.leaving.add(old)
            words.append("--forget")
        return Command(words, self.scene.home(), {"label": label})

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:
        """The new one is there."""
        for item in found["rewritten"]:
            if item["new"] and not item["forgotten_meanwhile"]:
                self.ledger.done[about["label"]] = item["new"]


class Pinner(Role):
    """Pins what policies may take, and takes pins away."""

    weight = 0.7

    def begin(self) -> Command | None:
        """Pins one, or unpins one."""
        label = self.scene.one_of(self.ledger.staying())
        return Command([self.rng.choice(("pin", "unpin")), label], self.scene.home()) if label else None


class Rotator(Role):
    """Rotates the master key, and seals anew."""

    weight = 0.3

    def begin(self) -> Command:
        """Rotates, or goes on."""
        again = ["key", "reencrypt"]
        words = self.rng.choice((["key", "rotate", "--yes"], ["key", "rotate", "--resume"], again, again))
        return Command(words, self.scene.home(), {"words": words})

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:
        """Ids are other ones then."""
        if found.get("failed"):
            raise SoakError(f"key reencrypt failed: {found['failed']}")
        for old, new in found.get("snapshots", {}).items():
            label = self.ledger.by_id(old)
            if label:
                self.ledger.done[label] = new


class Keyer(Role):
    """Adds and removes keys."""

    weight = 0.4

    def begin(self) -> Command:
        """Adds one, or lists, or removes one."""
        number = self.scene.number
        if len(self.scene.keys) < 3:
            path = self.scene.folder / f"key {number}"
            return Command(
                ["key", "add", "--new-key-file", str(path), "--label", f"soaked-{number}"],
                self.scene.home(),
                {"path": str(path)},
            )
        if self.rng.random() < 0.5:
            return Command(["key", "list"], self.scene.home())
        return Command(["key", "remove", self.scene.keys.popitem()[0]], self.scene.home(), {"removes": True})

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:
        """The key is there."""
        if "path" in about:
            self.scene.keys[found["key"]] = about["path"]
        if found.get("damaged"):
            raise SoakError(f"key slots are damaged: {found['damaged']}")


class Copier(Role):
    """Copies into a second repository."""

    weight = 0.7

    def begin(self) -> Command:
        """Copies, or synchronises."""
        words = self.rng.choice((["copy"], ["sync"], ["sync", "--delete"]))
        second = ["--to", str(self.scene.folder / "second"), "--other-key-file", str(self.scene.folder / "key")]
        return Command([*words, *second], self.scene.home())

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:
        """All could be copied."""
        if found["failed"]:
            raise SoakError(f"copies failed: {found['failed']}")


class Mender(Role):
    """Repairs, and finds nothing to be mended."""

    weight = 0.4

    def begin(self) -> Command:
        """Repairs."""
        return Command(["repair", "--yes", *self.rng.choice(([], ["--read-data"]))], self.scene.home())

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:
        """There was no damage; packs of sessions that were killed may be listed again."""
        if found["faults"] or any(step["verb"] != "list again" for step in found["plan"]):
            raise SoakError(f"repair wanted to mend what nobody damaged: {found}")


class Renewer(Role):
    """Gives the client other keys, and puts its new credential in the place of the old one."""

    weight = 0.15
    area = True

    def begin(self) -> Command:
        """Renews."""
        out = self.scene.folder / f"credential {self.scene.number}"
        words = ["key", "client", "renew", "bob", "--out", str(out)]
        return Command(words, self.scene.home(), {"out": out})

    def ended(self, about: dict[str, Any]) -> None:
        """The new credential counts where it was written."""
        if about["out"].exists() and about["out"].stat().st_size:
            about["out"].replace(self.scene.folder / "bob.credential")


ROTATING = (Rotator, Renewer)
"""Who changes the keys of others."""
