"""Settings: the options that every command takes, before or after its name, and what follows from them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from respaldo.cli import show
from respaldo.cli.folders import cache_folder, state_folder
from respaldo.core.errors import UsageError
from respaldo.core.private import make_directory, write_file

if TYPE_CHECKING:
    from respaldo.api import Credential, Opened, Places, Repository, Rollback, Secret


_MENDED_SHOWN = 10
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Made by respaldo; see bford.info/cachedir\n"


@dataclass(slots=True, kw_only=True)
class Settings:
    """Collects the common options as they are met on the command line."""

    repo: str = ""
    password_file: str = ""
    key_file: str = ""
    recovery: bool = False
    client: str = ""
    client_file: str = ""
    above: bool = False
    """Whether it is the repository itself, whatever the environment says of a client."""
    cache_dir: str = ""
    json: bool = False
    quiet: bool = False
    verbose: int = 0
    no_progress: bool = False
    accept_rollback: bool = False
    allow_unrecorded: bool = False
    gathered: list[Mapping[str, object] | Sequence[object]] | None = None
    """Results for programs that are printed together in the end, where there are several."""
    _opened: Opened | None = None
    """What opened the repository before, in a run that opens it several times."""

    @property
    def level(self) -> int:
        """Notes up to this level are shown."""
        return -1 if self.quiet else self.verbose

    @property
    def display(self) -> bool:
        """Whether a progress display is wanted, if there is a terminal."""
        return not (self.json or self.quiet or self.no_progress)

    def location(self) -> str:
        """Returns the repository's location."""
        location = self.repo or os.environ.get("RESPALDO_REPOSITORY", "")
        if not location:
            raise UsageError("no repository was named", hint="use -r DIRECTORY, or set RESPALDO_REPOSITORY")
        return location

    @contextlib.contextmanager
    def places(self) -> Iterator[Places]:
        """Gives where caches and pins lie. Without a place for caches, one is made for this run and removed again."""
        from respaldo.api import Places  # start-up time

        cache = Path(self.cache_dir or os.environ.get("RESPALDO_CACHE_DIR", "") or cache_folder())
        state = state_folder()
        try:
            make_directory(cache)
            usable = os.access(cache, os.W_OK | os.X_OK)
        except OSError:
            usable = False
        if usable:
            _tag(cache)
            yield Places(cache_dir=cache, state_dir=state)
            return
        if self.cache_dir:
            raise UsageError(f"cannot write to the cache directory {self.cache_dir}")
        import tempfile  # start-up time

        with tempfile.TemporaryDirectory(prefix="respaldo-cache-") as folder:
            show.err(f"warning: cannot write to {show.shown(str(cache))}; working without a lasting cache, slowly")
            yield Places(cache_dir=Path(folder), state_dir=state)

    def secret(self) -> Secret:
        """Returns the secret that opens the repository; nobody is asked for one that is of no use."""
        from respaldo.cli.passphrase import find_secret  # start-up time
        from respaldo.cli.rights import check_area  # start-up time

        self._entitled()
        if self.client:
            check_area()
        return find_secret(self.password_file, self.key_file, recovery=self.recovery)

    def secret_unless_client(self) -> Secret | None:
        """Returns the secret that opens the repository, None for a client that may run this with its credential."""
        return None if self._entitled() is not None else self.secret()

    def _entitled(self) -> tuple[Credential, bool] | None:
        """Returns the credential of a client that may run this command, and whether that reads; None for an owner."""
        path = self._client_file()
        if not path:
            return None
        from respaldo.cli.passphrase import read_credential  # start-up time
        from respaldo.cli.rights import check_right  # start-up time

        credential = read_credential(path)
        return credential, check_right(credential)

    def place(self) -> str:
        """Returns the repository's place on this machine, links resolved."""
        from respaldo.api import repository_path  # start-up time

        return repository_path(self.location())

    def is_client(self) -> bool:
        """Whether this is a client that has a credential instead of a passphrase or a key."""
        return bool(self._client_file())

    def _client_file(self) -> str:
        """Returns where the credential of the client lies that this is, empty where it is none."""
        named = self.above or self.password_file or self.key_file or self.recovery
        if self.client_file and self.client:
            raise UsageError("--client is for the owner of the repository, who has no credential")
        if self.client_file and named:
            raise UsageError("--client-file excludes a passphrase or a key")
        return self.client_file or ("" if named or self.client else os.environ.get("RESPALDO_CLIENT_FILE", ""))

    def _opening(self, secret: Secret | None) -> Callable[..., Repository]:
        """Returns what opens the repository, or the area of the client that this is."""
        from respaldo.api import open_as_client, open_repository  # start-up time

        location, client = self.location(), self._entitled()
        if client is None:
            return partial(open_repository, location, secret or self._key)
        credential, reads = client
        return partial(open_as_client, location, credential, reads=reads)

    def _key(self, header_hash: bytes, is_there: Callable[[str], bool]) -> Secret | Opened:
        """Returns what opens the repository: what the options name, what an agent holds, or what is asked for."""
        if self._opened is not None and is_there(self._opened.slot):  # else the key was rotated since
            return self._opened
        if not (self.password_file or self.key_file or self.recovery):
            from respaldo.cli import agent  # start-up time

            if (opened := agent.held(header_hash, is_there)) is not None:
                return opened
        return self.secret()

    def unasked(self, header_hash: bytes, is_there: Callable[[str], bool]) -> Secret | Opened | None:
        """Returns what opens the repository at once and without a word: a key in a file, or what an agent holds."""
        named = self.password_file or self.recovery
        path = self.key_file or ("" if named else os.environ.get("RESPALDO_KEY_FILE", ""))
        if path and os.path.isfile(path):  # a pipe would be waited for
            from respaldo.cli.passphrase import read_key  # start-up time

            return read_key(path)
        if path or named:
            return None
        from respaldo.cli import agent  # start-up time

        return agent.held(header_hash, is_there)

    @contextlib.contextmanager
    def _owner(
        self, opening: Callable[..., Repository], *, places: Places, rollback: Rollback
    ) -> Iterator[Callable[..., Repository] | None]:
        """Opens the repository above where the area of a client was asked for; gives what opens that."""
        if not self.client:
            yield None
            return
        from respaldo.api import open_area  # start-up time
        from respaldo.cli.rights import check_area  # start-up time

        check_area()
        with opening(places=places, rollback=rollback) as owner:
            self._opened = owner.opened
            yield partial(open_area, owner, self.client)

    @contextlib.contextmanager
    def open(
        self,
        *,
        writes: bool = False,
        limit_bytes_per_s: int = 0,
        secret: Secret | None = None,
        reports: bool = False,
        accepts: bool = True,
    ) -> Iterator[Repository]:
        """Opens the repository: with a secret, else with what an agent holds, else asks for one.

        ``reports``: the command says itself where the history is not what it was, instead of refusing to work. Without
        ``accepts`` it accepts that itself where that was said, when it is done.
        """
        from respaldo.api import KERNEL, Rollback  # start-up time
        from respaldo.cli.values import LOCAL_ZONE  # start-up time

        opening = self._opening(secret)
        if not KERNEL.native:
            show.err(f"warning: working without the C kernel, many times slower ({KERNEL.reason})")
        with self.places() as places:
            rollback = (
                Rollback.ACCEPT if self.accept_rollback and accepts else Rollback.REPORT if reports else Rollback.REFUSE
            )
            with (
                self._owner(opening, places=places, rollback=rollback) as of_area,
                (of_area or opening)(
                    places=places,
                    writes=writes,
                    limit_bytes_per_s=limit_bytes_per_s,
                    rollback=rollback,
                    allow_unrecorded=self.allow_unrecorded,
                ) as repository,
            ):
                repository.zone = LOCAL_ZONE
                if not repository.pinned and self.level > 0:
                    show.err("note: the repository's header could not be pinned: the state directory is not writable")
                if not repository.history.remembers and self.level > 0:
                    show.err("note: what the log says could not be remembered: the state directory is not writable")
                if repository.history.forgot:
                    show.err(
                        "warning: what this machine remembered of the log was damaged, and is made anew: that the "
                        "repository was rolled back before, it cannot tell any more"
                    )
                if repository.made_anew and self.level >= 0:
                    show.err("note: the local index was damaged, or a crash cut it off; it is made anew")
                try:
                    yield repository
                finally:
                    _speak_of_parity(repository)
                    if (late := repository.late_runs) and self.level >= 0:
                        show.err(
                            f"note: {show.count(late, 'session')} of the client {self.client} came after it was "
                            "removed, or with a credential from before it was renewed: nothing of that counts"
                        )
                    if earlier := repository.earlier_runs:
                        show.err(
                            f"warning: {show.count(earlier, 'session')} may be from before the credential was renewed, "
                            "and the credential file opens nothing of that: what was stored then is not shown, or said "
                            "to be in no pack"
                        )
                        show.err(
                            "hint: add the file from before to it (cat OLD >> FILE); if that is lost, the owner reads "
                            "it: respaldo restore --client NAME, or makes what is still needed readable here with: "
                            "respaldo key reencrypt --client NAME"
                        )
                    for refused in repository.unrecorded:
                        show.err(f"warning: this is not in the access log: {show.shown(refused.what)}")
                    _speak_of_log(repository, self.level)
                    if repository.history.accepts:
                        for finding in repository.history.findings:
                            show.err(f"warning: accepted: {show.shown(finding)}")

    def clients(self) -> list[str]:
        """Returns the names of the clients of the repository; what opens it is kept for the next time."""
        with self.open() as repository:
            self._opened = repository.opened
            return repository.clients.names()

    def report(self, value: Mapping[str, object] | Sequence[object], text: str) -> None:
        """Prints what was done or found: as JSON, as text; the text not with ``--quiet`` or a closed output."""
        if self.gathered is not None and self.json:
            self.gathered.append(value)
        elif self.json:
            show.out(show.document(value))
        elif not self.quiet and text and show.is_heard():
            show.out(text)


def _speak_of_log(repository: Repository, level: int) -> None:
    """Says what was done and is not in the log: a snapshot is one all the same, but one that goes is missed."""
    for verb, reason in dict.fromkeys(repository.history.unwritten):
        if verb != "commit":
            show.err(
                f"warning: what this machine did ({verb}) is not in the log, and others will report it as a change "
                f"that nobody made: its state directory cannot be written ({show.shown(reason)})"
            )
        elif level >= 0:
            show.err(f"note: this is not in the log: the state directory cannot be written ({show.shown(reason)})")


def _speak_of_parity(repository: Repository) -> None:
    """Says what could only be read with its parity, and what has none."""
    mended = repository.parity.mended
    for name, what in sorted(mended.items())[:_MENDED_SHOWN]:
        show.err(f"warning: {show.shown(name)} is damaged ({what}); it was read with the help of its parity")
    if len(mended) > _MENDED_SHOWN:
        show.err(f"warning: and so are {len(mended) - _MENDED_SHOWN} more objects")
    if mended:
        show.err("hint: put them right with: respaldo parity mend")
    if repository.parity.without:
        show.err(
            f"warning: no parity was made for {show.count(repository.parity.without, 'object')}: "
            "where the library is missing, install respaldo[parity]; the next prune, or parity on, makes up for it"
        )


def _tag(cache: Path) -> None:
    """Marks the directory as a cache, so that backups (this one's too, with --exclude-caches) can leave it out."""
    tag = cache / "CACHEDIR.TAG"
    if not tag.exists():
        with contextlib.suppress(OSError):
            write_file(tag, _TAG)
