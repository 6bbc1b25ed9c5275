"""Descriptors of motions whose answer is known."""

import numpy as np
import pytest

from vlfer.errors import ShapeError
from vlfer.micro.handcrafted import describe


def field(u, v, strain=1.0):
    flow = np.zeros((1, 28, 28, 3), np.float32)
    flow[..., 0], flow[..., 1], flow[..., 2] = u, v, strain
    return flow


def test_mdmo_is_the_mean_of_the_main_direction_of_each_region():
    flow = field(0.5, 0.0)
    flow[0, 0, 0] = (-9.0, 0.0, 1.0)  # one pixel against the others of its region is not in the main direction
    got = describe(flow, kind="mdmo").reshape(36, 2)
    assert got == pytest.approx(np.tile([0.5, 0.0], (36, 1)))


def test_bi_woof_weighs_directions_by_magnitude_and_blocks_by_strain():
    flow = field(0.0, 0.0, 0.0)
    flow[0, :4, :4] = (3.0, 0.0, 2.0)  # the first block: to the right
    flow[0, 4:8, :4] = (0.0, 1.0, 1.0)  # the block below it: downwards
    got = describe(flow, kind="bi-woof").reshape(7, 7, 8)
    assert got.sum() == pytest.approx(1.0)
    assert got[0, 0, 0] == pytest.approx(6 / 7)
    assert got[1, 0, 2] == pytest.approx(1 / 7)


def test_small_turns_over_the_x_axis_change_little():
    a, b = describe(field(1.0, 0.05), kind="bi-woof"), describe(field(1.0, -0.05), kind="bi-woof")
    assert a == pytest.approx(b, abs=1e-6)


def test_other_shapes_are_refused():
    with pytest.raises(ShapeError):
        describe(np.zeros((1, 28, 28, 2), np.float32), kind="mdmo")
