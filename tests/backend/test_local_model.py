"""The local backend against a dict, by a Hypothesis state machine: two openers of one repository, and litter."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from respaldo.backend.base import FOLDERS
from respaldo.backend.local import LocalBackend
from respaldo.backend.publish import Publisher, by_copy, by_link, by_rename
from respaldo.core.errors import ObjectExists, ObjectMissing
from tests.backend.places import NoSync

NAMES = st.sampled_from(
    ["header", "packs/a", "packs/ab", "packs/abcd", "packs/abce", "packs/0f", "log/a", "log/ab", "outcome/a", "keys/-"]
)
CONTENT = st.binary(max_size=50)
WHO = st.integers(0, 1)


class LocalMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="respaldo-test-"))
        self.model: dict[str, bytes] = {}
        self.backends = [
            LocalBackend(self.place / "repo", create=True, fsync=NoSync()),
            LocalBackend(self.place / "repo", fsync=NoSync(), publisher=Publisher((by_rename, by_copy))),
        ]

    def teardown(self) -> None:
        for backend in self.backends:
            backend.close()
        shutil.rmtree(self.place)

    @rule(who=WHO, name=NAMES, pieces=st.lists(CONTENT, max_size=3))
    def put(self, who, name, pieces):
        if name in self.model:
            with pytest.raises(ObjectExists):
                self.backends[who].put(name, pieces)
        else:
            self.backends[who].put(name, pieces)
            self.model[name] = b"".join(pieces)

    @rule(who=WHO, name=NAMES, pieces=st.lists(CONTENT, max_size=3), commit=st.booleans())
    def stage(self, who, name, pieces, commit):
        folder, separator, _ = name.partition("/")
        if not separator:
            return
        with self.backends[who].stage(folder) as stage:
            for piece in pieces:
                stage.write(piece)
            if commit and name in self.model:
                with pytest.raises(ObjectExists):
                    stage.commit(name)
            elif commit:
                stage.commit(name)
                self.model[name] = b"".join(pieces)

    @rule(who=WHO, name=NAMES, offset=st.integers(0, 160), length=st.none() | st.integers(0, 160))
    def get(self, who, name, offset, length):
        if name in self.model:
            whole = self.model[name]
            expected = whole[offset:] if length is None else whole[offset : offset + length]
            assert self.backends[who].get(name, offset, length) == expected
        else:
            with pytest.raises(ObjectMissing):
                self.backends[who].get(name, offset, length)

    @rule(who=WHO, name=NAMES)
    def exists(self, who, name):
        expected = len(self.model[name]) if name in self.model else None
        assert self.backends[who].exists(name) == expected

    @rule(who=WHO, name=NAMES)
    def delete(self, who, name):
        if self.model.pop(name, None) is None:
            with pytest.raises(ObjectMissing):
                self.backends[who].delete(name)
        else:
            self.backends[who].delete(name)

    @rule(who=WHO, names=st.lists(NAMES, unique=True, max_size=4))
    def discard(self, who, names):
        expected = sum(self.model.pop(name, None) is not None for name in names)
        assert self.backends[who].discard(names) == expected

    @rule(who=WHO, ways=st.sampled_from([(by_link, by_copy), (by_rename, by_copy), (by_copy,)]))
    def open_again(self, who, ways):
        self.backends[who].close()
        self.backends[who] = LocalBackend(self.place / "repo", fsync=NoSync(), publisher=Publisher(ways))

    @rule(folder=st.sampled_from(["packs", "log"]))
    def crash_leaves_a_temporary(self, folder):
        if (self.place / "repo" / folder).is_dir():
            (self.place / "repo" / folder / ".tmp-crash").write_bytes(b"half")

    @precondition(lambda self: self.backends[0].litter())
    @rule()
    def sweep(self):
        self.backends[0].sweep_litter(1 << 62)
        assert self.backends[1].litter() == []

    @invariant()
    def both_list_what_the_model_holds(self):
        expected = {name: len(content) for name, content in self.model.items() if name != "header"}
        for backend in self.backends:
            assert dict(entry for folder in FOLDERS for entry in backend.list(folder)) == expected


LocalMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestLocalModel = LocalMachine.TestCase
