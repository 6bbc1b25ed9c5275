"""The local engine: same results with threads and processes, and a row that kills its decoder."""

import functools
from types import SimpleNamespace

import pytest

from vlfer.batch.local import LocalEngine

# Rows are Python expressions and reading one is evaluating it: it can be sent to any process.
STEPS = SimpleNamespace(
    build_reader=functools.partial(functools.partial, eval),
    build_tower=functools.partial(functools.partial, sum),
    lost=lambda row, reason: -1000,
)
BLOCKS = [[f"{10 * i} + {j}" for j in range(5)] for i in range(7)]
EXPECTED = [(i, 50 * i + 10) for i in range(7)]


@pytest.mark.parametrize("decoders", ["threads", "processes"])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_block_comes_once_and_in_order(decoders, workers):
    assert list(LocalEngine(workers=workers, decoders=decoders)(BLOCKS, STEPS)) == EXPECTED


def test_no_block_no_result():
    assert list(LocalEngine()([], STEPS)) == []


def test_a_row_that_kills_its_process_is_the_only_one_lost():
    blocks = [list(block) for block in BLOCKS]
    blocks[2][3] = "__import__('os')._exit(3)"
    expected = list(EXPECTED)
    expected[2] = (2, 110 - 23 - 1000)
    assert list(LocalEngine(workers=2, decoders="processes")(blocks, STEPS)) == expected


def test_readers_are_one_a_thread_and_rows_are_read_ahead():
    import threading

    made, seen = [], []

    def build_reader():
        made.append(threading.get_ident())

        def read(row):
            seen.append(row)
            return (row, threading.get_ident())

        return read

    steps = SimpleNamespace(build_reader=build_reader, build_tower=lambda: list, lost=None)
    results = LocalEngine(workers=2)([[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]], steps)
    index, first = next(results)
    assert [row for row, _ in first] == [1, 2]
    assert {ident for _, ident in first} <= set(made)
    assert index == 0
    assert max(seen) <= 6  # two blocks ahead of the one that was given, no more
    assert [row for _, block in results for row, _ in block] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert len(made) == len(set(made)) <= 2


def test_an_error_of_the_tower_ends_the_run():
    steps = SimpleNamespace(build_reader=STEPS.build_reader, build_tower=lambda: lambda rows: 1 / 0, lost=None)
    with pytest.raises(ZeroDivisionError):
        list(LocalEngine()(BLOCKS, steps))
