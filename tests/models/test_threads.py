from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator

import pytest
import timm
import torch
from torch import Tensor

from vlfer.models.face_tower import FaceTower, timm_name
from vlfer.models.threads import one_thread_each


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _meeting(barrier: threading.Barrier, value: float) -> Callable[[], Tensor]:
    def step() -> Tensor:
        barrier.wait(timeout=30)
        assert torch.get_num_threads() == 1
        return torch.full((2,), value)

    return step


def test_steps_run_at_the_same_time_on_one_thread_each_and_keep_their_order() -> None:
    barrier = threading.Barrier(2)  # no step can end before the other has begun
    first, second = one_thread_each([_meeting(barrier, 1.0), _meeting(barrier, 2.0)])
    assert (first[0], second[0]) == (1.0, 2.0)
    assert torch.get_num_threads() == 2


def test_with_one_thread_they_run_one_after_another() -> None:
    torch.set_num_threads(1)
    names: list[str] = []

    def step() -> Tensor:
        names.append(threading.current_thread().name)
        return torch.zeros(1)

    one_thread_each([step, step])
    assert names == [threading.current_thread().name] * 2


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_a_step_comes_out_and_the_threads_are_given_back(failing: int) -> None:
    def fail() -> Tensor:
        raise ValueError("this step")

    steps = [lambda: torch.zeros(1), lambda: torch.zeros(1)]
    steps[failing] = fail
    with pytest.raises(ValueError, match="this step"):
        one_thread_each(steps)
    assert torch.get_num_threads() == 2


def test_one_face_gives_the_same_features_as_in_a_batch() -> None:
    torch.manual_seed(0)
    tower: FaceTower = timm.create_model(timm_name(("mobileface", "lite0"))).eval()
    pixels = torch.rand(4, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(tower(pixels[:1]), tower(pixels)[:1], atol=1e-4, rtol=1e-4)


def _forked(found: multiprocessing.SimpleQueue[float]) -> None:
    torch.set_num_threads(2)
    found.put(float(one_thread_each([lambda: torch.zeros(1), lambda: torch.ones(1)])[1]))


def test_a_forked_process_has_threads_of_its_own() -> None:
    one_thread_each([lambda: torch.zeros(1), lambda: torch.zeros(1)])
    context = multiprocessing.get_context("fork")
    found: multiprocessing.SimpleQueue[float] = context.SimpleQueue()
    child = context.Process(target=_forked, args=(found,))
    child.start()
    child.join(timeout=60)
    if child.is_alive():
        child.kill()
        pytest.fail("The forked process waits for a thread of its parent.")
    assert found.get() == 1.0
