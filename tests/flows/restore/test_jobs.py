"""A batch is ordered by runs of blocks, or file by file where something does not fit: with the same outcome."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from respaldo.core.seams import Cancel
from respaldo.flows.restore.columns import Files
from respaldo.flows.restore.jobs import BATCH_TASKS, Jobs
from respaldo.flows.restore.steps import Batch
from respaldo.store.fetch import CHUNKS_MAX, Fetcher
from respaldo.store.source import Run

SIZES = st.lists(st.integers(0, 3), max_size=60)


class Blocks:
    """Has chunks in blocks of so many, one behind the other; those named ``gone`` are nowhere."""

    at_once = 0

    def __init__(self, in_block: int, gone: frozenset[int] = frozenset(), longer: frozenset[int] = frozenset()) -> None:
        self.in_block = in_block
        self.gone = gone
        self.longer = longer

    def locate_runs(self, ids):
        runs = []
        for at in range(0, len(ids), 32):
            number, size = int.from_bytes(ids[at : at + 4], "big"), ids[at + 4]
            block, place = divmod(number, self.in_block)
            span = (place * 10, size + (number in self.longer))
            if number in self.gone:
                runs.append(Run(-1, 0, [(0, 0)]))
            elif runs and runs[-1][:2] == (0, block):
                runs[-1].spans.append(span)
            else:
                runs.append(Run(0, block, [span]))
        return runs


def batch(sizes: list[int]) -> Files:
    numbers = itertools.count()
    ids = [next(numbers).to_bytes(4, "big") + bytes([size]) + bytes(27) if size else b"" for size in sizes]
    names = [b"%04d" % row for row in range(len(sizes))]
    return Files(names=names, meta=[b"m" + name for name in names], sizes=sizes, ids=ids, disowned=names[:1])


def outcome(blocks: Blocks, files: Files, *, by_files: bool):
    """Returns what was ordered for each file, what failed, whose owner is missing; and the jobs."""
    fetcher = Fetcher(blocks, Cancel())
    jobs = Jobs(blocks, None, fetcher)
    if by_files:
        found = list(jobs._by_files(files, blocks.locate_runs(b"".join(files.ids))))
    else:
        found = list(jobs.of(Batch(files), None))
    rows = []
    for job in found:
        pairs = zip(job.order.tasks, job.order.slots, strict=True)
        chunks = iter([(task.key, task.ids[slot], task.spans[slot]) for task, slot in pairs])
        for name, meta, size, count in zip(job.files.names, job.files.meta, job.files.sizes, job.counts, strict=True):
            rows.append((name, meta, size, list(itertools.islice(chunks, count))))
        assert next(chunks, None) is None
        assert all(task.users for task in job.order.together)
        assert set(job.order.tasks) == set(job.order.together)
    failed = [(name, str(error)) for job in found for name, error in job.failed]
    return rows, failed, [name for job in found for name in job.files.disowned], found


@given(sizes=SIZES, in_block=st.integers(1, 9))
def test_jobs_of_runs_are_those_of_files(sizes, in_block):
    """However files lie in blocks, each is written of its own chunk, and the others' places do not matter."""
    files = batch(sizes)
    fast = outcome(Blocks(in_block), files, by_files=False)
    assert fast[:3] == outcome(Blocks(in_block), files, by_files=True)[:3]
    assert [name for name, *_ in fast[0]] == files.names
    for number, (_, _, _, chunks) in enumerate(row for row in fast[0] if row[2]):
        assert [(key, span[0]) for key, _, span in chunks] == [((0, number // in_block), number % in_block * 10)]


@given(sizes=SIZES, bad=st.frozensets(st.integers(0, 59), max_size=3), longer=st.booleans())
def test_jobs_fail_one_file_for_one_chunk(sizes, bad, longer):
    """A chunk that is nowhere, or not as long as its file, fails that file and no other."""
    blocks = Blocks(4, longer=bad) if longer else Blocks(4, gone=bad)
    files = batch(sizes)
    rows, failed, _, _ = outcome(blocks, files, by_files=False)
    with_chunk = [name for name, size in zip(files.names, sizes, strict=True) if size]
    lost = {name for number, name in enumerate(with_chunk) if number in bad}
    assert {name for name, _ in failed} == lost
    assert [name for name, *_ in rows] == [name for name in files.names if name not in lost]


def test_jobs_hold_few_blocks_each():
    """A batch that lies in many blocks becomes several jobs, since a job holds all of its blocks at once."""
    *_, jobs = outcome(Blocks(1), batch([1] * 40), by_files=False)
    assert [len(job.order.together) for job in jobs] == [BATCH_TASKS] * 6 + [40 - 6 * BATCH_TASKS]


def test_tasks_of_runs_are_bounded():
    """No task has more chunks than a writer may wait for, however long the runs are that make it up."""
    fetcher = Fetcher(Blocks(1), Cancel())
    tasks = [fetcher.want_run([bytes(32)] * 200, Run(0, 0, [(0, 1)] * 200)) for _ in range(7)]
    assert max(len(task.ids) for task, _ in tasks) <= CHUNKS_MAX
    assert [slot for _, slot in tasks] == [0, 200, 0, 200, 0, 200, 0]
