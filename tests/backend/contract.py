"""What every backend promises, as tests: a class for each backend derives from `BackendContract`."""

from __future__ import annotations

import threading

import pytest

from respaldo.backend.base import FOLDERS, Backend
from respaldo.core.errors import Corruption, ObjectExists, ObjectMissing, StorageDenied

LONGEST = "a" * 128

BAD_NAMES = [
    "",
    "/",
    "packs",
    "packs/",
    "packs//a",
    "/packs/a",
    "packs/a/b",
    "packs/.",
    "packs/..",
    "packs/.a",
    "packs/.tmp-0",
    "packs/../header",
    "packs/A",
    "packs/a b",
    "packs/a\n",
    "packs/a\0",
    "packs/é",
    "packs/²",
    "packs/" + LONGEST + "a",
    "Packs/a",
    "elsewhere/a",
    "header/",
    "header/a",
    "Header",
    "header\n",
]

RANGES = [(0, None), (0, 0), (0, 4), (3, 4), (9, 1), (9, 5), (10, None), (10, 3), (11, None), (11, 3), (1 << 40, 7)]


class BackendContract:
    """Derive, and give a fixture `backend` that is empty."""

    def litter(self, backend: Backend) -> list:
        """Returns what a failed or abandoned put has left behind."""
        return []

    def test_put_keeps_the_pieces_in_order(self, backend):
        """What was put comes back, its pieces one after another."""
        backend.put("packs/ab01", [b"one", bytearray(b"two"), b"", memoryview(b"three")])
        assert backend.get("packs/ab01") == b"onetwothree"
        assert self.litter(backend) == []

    def test_put_takes_views_that_are_scattered_in_memory(self, backend):
        """Pieces are bytes however a buffer lays them out."""
        grid = memoryview(bytes(range(12))).cast("B", (3, 4))
        numbers = memoryview(bytes(range(8))).cast("I")
        pieces = [memoryview(b"a-b-c-")[::2], memoryview(b"cba")[::-1], grid, numbers, memoryview(b"")]
        backend.put("log/a", pieces)
        with backend.stage("log") as stage:
            for piece in pieces:
                stage.write(piece)
            stage.commit("log/b")
        expected = b"abcabc" + bytes(range(12)) + bytes(range(8))
        assert backend.get("log/a") == backend.get("log/b") == expected

    def test_put_of_many_small_pieces(self, backend):
        """More pieces than one call of the kernel takes are put all the same."""
        pieces = [bytes([number & 255]) * (number % 5) for number in range(3000)]
        backend.put("packs/many", pieces)
        assert backend.get("packs/many") == b"".join(pieces)

    def test_stage_of_megabytes(self, backend):
        """A long object is staged piece by piece like a short one, and a second one of its name is told."""
        pieces = [bytes([number]) * (700_000 + number) for number in range(12)]
        with backend.stage("packs") as stage:
            for piece in pieces:
                stage.write(piece)
            stage.commit("packs/long")
        assert backend.get("packs/long") == b"".join(pieces)
        with backend.stage("packs") as stage:
            for piece in pieces:
                stage.write(piece)
            with pytest.raises(ObjectExists):
                stage.commit("packs/long")
        assert self.litter(backend) == []

    def test_put_never_replaces(self, backend):
        """An object that is there stays as it is."""
        backend.put("outcome/a", [b"commit"])
        with pytest.raises(ObjectExists) as caught:
            backend.put("outcome/a", [b"abort"])
        assert caught.value.name == "outcome/a"
        assert not caught.value.retryable
        assert backend.get("outcome/a") == b"commit"
        assert self.litter(backend) == []

    def test_put_has_one_winner_of_two_threads(self, backend):
        """Of two that put one name at once, one wins, the other is told, and the winner's bytes are there."""
        for number in range(25):
            barrier = threading.Barrier(2)
            won: list[bytes] = []
            lost: list[bytes] = []

            def race(mine: bytes, name: str = f"outcome/{number}", barrier=barrier, won=won, lost=lost) -> None:
                barrier.wait()
                try:
                    backend.put(name, [mine])
                except ObjectExists:
                    lost.append(mine)
                else:
                    won.append(mine)

            threads = [threading.Thread(target=race, args=(side,)) for side in (b"commit", b"abort")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(won) == len(lost) == 1
            assert backend.get(f"outcome/{number}") == won[0]
        assert self.litter(backend) == []

    def test_header_is_an_object_of_its_own(self, backend):
        """The header lies in no folder and is create-only like all others."""
        assert backend.exists("header") is None
        with pytest.raises(ObjectMissing):
            backend.get("header")
        backend.put("header", [b"respaldo"])
        with pytest.raises(ObjectExists):
            backend.put("header", [b""])
        assert backend.exists("header") == 8
        assert backend.get("header") == b"respaldo"
        assert all(backend.list(folder) == [] for folder in FOLDERS)
        backend.delete("header")
        assert backend.exists("header") is None

    @pytest.mark.parametrize(("offset", "length"), RANGES)
    @pytest.mark.parametrize("name", ["packs/0123", "segments/0123"])
    def test_get_returns_the_range_as_slicing_does(self, backend, name, offset, length):
        """A range is exact, and cut short at the end of the object."""
        backend.put(name, [b"0123456789"])
        expected = b"0123456789"[offset:] if length is None else b"0123456789"[offset : offset + length]
        assert backend.get(name, offset, length) == expected

    def test_get_whole_refuses_what_is_too_long(self, backend):
        """An object of at most so many bytes comes back whole; a longer one is damage, another one missing."""
        backend.put("log/a", [b"abc"])
        assert backend.get_whole("log/a", 3) == b"abc"
        with pytest.raises(Corruption, match="log/a: it is 3 bytes long"):
            backend.get_whole("log/a", 2)
        with pytest.raises(ObjectMissing):
            backend.get_whole("log/b", 3)

    @pytest.mark.parametrize(("offset", "length"), [(-1, None), (0, -1), (-1, 1)])
    def test_get_refuses_ranges_that_cannot_be(self, backend, offset, length):
        """A negative offset or length is the caller's mistake, not a way to count from the end."""
        backend.put("log/a", [b"abc"])
        with pytest.raises(ValueError):
            backend.get("log/a", offset, length)

    def test_object_of_no_bytes(self, backend):
        """An object may be empty, and is there."""
        backend.put("condemned/a", [])
        backend.put("condemned/b", [b""])
        assert backend.get("condemned/a") == backend.get("condemned/b", 0, 10) == b""
        assert backend.exists("condemned/a") == 0
        assert sorted(backend.list("condemned")) == [("condemned/a", 0), ("condemned/b", 0)]

    @pytest.mark.parametrize("name", ["packs/ab", "packs/missing", "keys/a", "header"])
    def test_missing_object(self, backend, name):
        """What is not there is ObjectMissing to get and delete, and None to exists."""
        backend.put("packs/abc", [b"another"])
        assert backend.exists(name) is None
        with pytest.raises(ObjectMissing):
            backend.get(name)
        with pytest.raises(ObjectMissing):
            backend.get(name, 3, 4)
        with pytest.raises(ObjectMissing) as caught:
            backend.delete(name)
        assert caught.value.name == name

    @pytest.mark.parametrize("folder", sorted(FOLDERS))
    def test_list_shows_what_was_put(self, backend, folder):
        """A listing that starts after a put shows its name and size, and nothing of other folders."""
        assert backend.list(folder) == []
        for leaf in ("a", "ab", "abc", "-", "a.-", "0" * 64, LONGEST):
            backend.put(f"{folder}/{leaf}", [leaf.encode()])
            assert (f"{folder}/{leaf}", len(leaf)) in backend.list(folder)
            assert f"{folder}/{leaf}" in backend.names(folder)
        assert len(backend.list(folder)) == len(backend.names(folder)) == 7
        assert all(backend.list(other) == backend.names(other) == [] for other in FOLDERS - {folder})

    @pytest.mark.parametrize("folder", ["packs", "pending"])
    def test_list_of_a_thousand(self, backend, folder):
        """A long listing is complete and shows every object once."""
        expected = {f"{folder}/{number * 2654435761 % 2**32:08x}": number % 7 for number in range(1000)}
        for name, length in expected.items():
            backend.put(name, [b"x" * length])
        found = backend.list(folder)
        assert len(found) == 1000
        assert dict(found) == expected
        assert sorted(backend.names(folder)) == sorted(expected)

    @pytest.mark.parametrize("folder", ["", "header", "other", "packs/", "../packs", "Packs"])
    def test_list_of_no_folder(self, backend, folder):
        """What is no folder cannot be listed or staged."""
        with pytest.raises(ValueError):
            backend.list(folder)
        with pytest.raises(ValueError):
            backend.names(folder)
        with pytest.raises(ValueError):
            backend.stage(folder)

    def test_list_while_others_put_and_delete(self, backend):
        """What is there from the start of a listing to its end is in it, whatever comes and goes meanwhile."""
        staying = {f"packs/{number:02x}00" for number in range(50)}
        for name in staying:
            backend.put(name, [b"x"])
        done = threading.Event()
        failures: list[BaseException] = []

        def churn() -> None:
            number = 0
            try:
                while not done.is_set():
                    name = f"packs/{number % 50:02x}{number:08x}"
                    backend.put(name, [b"y"])
                    backend.delete(name)
                    number += 1
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for number in range(20):
                found = backend.names("packs") if number % 2 else [name for name, _ in backend.list("packs")]
                assert len(found) == len(set(found))
                assert staying <= set(found)
        finally:
            done.set()
            thread.join()
        assert failures == []

    def test_lists_at_once_are_each_complete(self, backend):
        """Listings of one folder by several threads take nothing from one another."""
        for number in range(200):
            backend.put(f"log/{number}", [])
        lengths: list[int] = []

        def look() -> None:
            lengths.extend(len(backend.list("log")) for _ in range(5))
            lengths.extend(len(backend.names("log")) for _ in range(5))

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert lengths == [200] * 30

    replaces = True
    """Whether there is a step by which an object takes the place of another."""

    def test_replace_takes_the_place_of_an_object(self, backend):
        """What is replaced has the new bytes under its name, and is listed once; nothing is left behind."""
        for name in ("packs/ab01", "outcome/a", "header"):
            backend.put(name, [b"decayed"])
            if not self.replaces:
                with pytest.raises(StorageDenied):
                    backend.replace(name, [b"as", b"put"])
                continue
            backend.replace(name, [b"as", b"put"])
            assert backend.get(name) == b"asput"
            assert backend.exists(name) == 5
        assert backend.list("outcome") == [("outcome/a", 5 if self.replaces else 7)]
        assert self.litter(backend) == []

    def test_replace_brings_nothing_back(self, backend):
        """An object that is not there, or not any more, is not put by way of replacing it."""
        if not self.replaces:
            return
        with pytest.raises(ObjectMissing):
            backend.replace("packs/ab01", [b"x"])
        backend.put("pending/a", [b"x"])
        backend.delete("pending/a")
        with pytest.raises(ObjectMissing):
            backend.replace("pending/a", [b"x"])
        assert backend.list("pending") == backend.list("packs") == []
        assert self.litter(backend) == []

    def test_delete_takes_one_away(self, backend):
        """A deleted object is gone from all verbs, others stay, and its name is free again."""
        backend.put("sessions/a", [b"1"])
        backend.put("sessions/b", [b"22"])
        backend.delete("sessions/a")
        assert backend.exists("sessions/a") is None
        assert backend.list("sessions") == [("sessions/b", 2)]
        backend.put("sessions/a", [b"333"])
        assert backend.get("sessions/a") == b"333"

    def test_discard_deletes_what_is_there(self, backend):
        """Sweeping many names counts what there was, and does not mind what there was not."""
        names = [f"{folder}/{leaf}" for folder in ("packs", "segments") for leaf in ("aa1", "aa2", "bb1")]
        for name in names:
            backend.put(name, [b"x"])
        backend.put("packs/cc", [b"x"])
        assert backend.discard(iter([*names, "packs/dd", "keys/never", "header"])) == 6
        assert backend.list("packs") == [("packs/cc", 1)]
        assert backend.list("segments") == []
        assert backend.discard([]) == 0

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_malformed_names_are_refused_by_every_verb(self, backend, name):
        """No name that could mean something else to a file system or a server gets there."""
        for use in (
            lambda: backend.put(name, [b"x"]),
            lambda: backend.get(name),
            lambda: backend.exists(name),
            lambda: backend.delete(name),
            lambda: backend.discard([name]),
        ):
            with pytest.raises(ValueError):
                use()
        with backend.stage("packs") as stage, pytest.raises(ValueError):
            stage.commit(name)
        assert self.litter(backend) == []

    def test_stage_gets_its_name_at_the_end(self, backend):
        """An object can be written before its name is known, and shows only when it is committed."""
        with backend.stage("packs") as stage:
            buffer = bytearray(b"one")
            stage.write(buffer)
            buffer[:] = b"two"
            stage.write(buffer)
            stage.write(b"")
            assert backend.list("packs") == []
            stage.commit("packs/beef")
            assert backend.get("packs/beef") == b"onetwo"
        assert backend.list("packs") == [("packs/beef", 6)]
        assert self.litter(backend) == []

    def test_stage_that_is_left_is_forgotten(self, backend):
        """Leaving the block without a commit, in whatever way, leaves nothing."""
        with backend.stage("segments") as stage:
            stage.write(b"x" * 100_000)
        with pytest.raises(KeyError), backend.stage("segments") as stage:  # noqa: PT012
            stage.write(b"x")
            raise KeyError
        stage.discard()
        assert backend.list("segments") == []
        assert self.litter(backend) == []

    def test_stage_never_replaces(self, backend):
        """A commit under a name that is taken says so, changes nothing and leaves nothing."""
        backend.put("packs/beef", [b"first"])
        with backend.stage("packs") as stage:
            stage.write(b"second")
            with pytest.raises(ObjectExists):
                stage.commit("packs/beef")
        assert backend.get("packs/beef") == b"first"
        assert self.litter(backend) == []

    def test_stage_keeps_to_its_folder(self, backend):
        """A stage of one folder commits into no other, and not as the header."""
        for name in ("segments/a", "header"):
            with backend.stage("packs") as stage, pytest.raises(ValueError):
                stage.commit(name)
            assert backend.exists(name) is None
        assert self.litter(backend) == []

    def test_stage_is_for_one_object(self, backend):
        """After a commit, also one that failed, a stage takes nothing more."""
        with backend.stage("log") as stage:
            stage.write(b"a")
            stage.commit("log/a")
            with pytest.raises(ValueError):
                stage.write(b"b")
            with pytest.raises(ValueError):
                stage.commit("log/b")
        with backend.stage("log") as stage:
            with pytest.raises(ObjectExists):
                stage.commit("log/a")
            with pytest.raises(ValueError):
                stage.commit("log/b")
        assert backend.list("log") == [("log/a", 1)]

    def test_stages_side_by_side(self, backend):
        """Several stages are written to in turn without mixing."""
        with backend.stage("packs") as first, backend.stage("packs") as second:
            for number in range(10):
                first.write(b"a%d" % number)
                second.write(b"b%d" % number)
            second.commit("packs/b")
            first.commit("packs/a")
        assert backend.get("packs/a") == b"".join(b"a%d" % number for number in range(10))
        assert backend.get("packs/b") == b"".join(b"b%d" % number for number in range(10))

    @pytest.mark.parametrize("folder", sorted(FOLDERS))
    def test_arrivals_are_of_objects_that_are_there(self, backend, folder):
        """Whatever a medium can tell, it tells of no object that a listing does not show."""
        backend.put(f"{folder}/a", [b"x"])
        backend.put(f"{folder}/b", [b"x"])
        backend.delete(f"{folder}/b")
        assert backend.arrivals(folder).keys() <= {f"{folder}/a"}

    def test_clock_of_the_medium_is_that_of_its_arrivals(self, backend):
        """What was put a moment ago arrived a moment ago by it; asking leaves nothing behind. Or it is not known."""
        before = backend.now_ns()
        backend.put("pending/a", [b"x"])
        arrived = backend.arrivals("pending").get("pending/a")
        if before is not None and arrived is not None:
            assert before <= arrived <= backend.now_ns()
        assert backend.litter() == []

    def test_space_is_plausible_or_unknown(self, backend):
        """Free space is at most all there is."""
        space = backend.space()
        assert space is None or 0 <= space[0] <= space[1]

    def test_close_may_be_called_again(self, backend):
        """A backend is closed by its block, and once more does no harm."""
        with backend as same:
            assert same is backend
        backend.close()

    def test_location_is_for_people(self, backend):
        """Messages can say where the repository is."""
        assert isinstance(backend.location, str)
        assert backend.location
