import numpy as np
import pytest

from vlfer.errors import ShapeError
from vlfer.micro import canonical
from vlfer.micro.samples import FlowSamples


def _published(u, v, strain) -> np.ndarray:
    image = np.stack([u, v, strain], axis=-1)
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    return np.round((image - low) / (high - low) * 255).astype(np.uint8)[None]


def _bump(row: float, col: float, width: float = 4.0) -> np.ndarray:
    rows, cols = np.mgrid[0:28, 0:28]
    return np.exp(-(((rows - row) ** 2 + (cols - col) ** 2) / (2 * width**2)))


def _strain(u, v) -> np.ndarray:
    (u_y, u_x), (v_y, v_x) = np.gradient(u), np.gradient(v)
    return np.sqrt(u_x**2 + v_y**2 + (u_y + v_x) ** 2 / 2)


def test_rest_is_found_again_although_one_side_of_the_range_is_a_blink() -> None:
    u, v = 0.1 * _bump(20, 8), -3 * _bump(8, 7, 1.5)
    flow = canonical.centre(_published(u, v, _strain(u, v)))
    assert abs(float(flow[0, 14, 24, 1])) < 0.01  # nothing moves there
    assert float(flow[0, 8, 7, 1]) < -0.9
    middle = canonical.centre(_published(u, v, _strain(u, v)), zero="middle")
    assert abs(float(middle[0, 14, 24, 1])) > 0.4  # the middle of the range is not rest


@pytest.mark.parametrize("ratio", [0.4, 1.0, 2.5])
def test_proportion_of_u_to_v_is_found_from_strain(ratio: float) -> None:
    u, v = ratio * (_bump(20, 8) - _bump(9, 20)), _bump(12, 19) - _bump(22, 12, 3)
    span_u, span_v = np.ptp(u), np.ptp(v)
    a, b = canonical.proportion(_published(u, v, _strain(u, v)))[0]
    assert a / b == pytest.approx(span_u / span_v, rel=0.1)


def test_physical_flow_has_the_direction_of_the_motion() -> None:
    u, v = 0.5 * (_bump(20, 8) - _bump(9, 20)), 2.0 * (_bump(20, 8) - _bump(20, 22, 3))
    flow = canonical.physical(_published(u, v, _strain(u, v)))[0, 20, 8]
    assert flow[1] / flow[0] == pytest.approx(4, rel=0.25)
    raw = canonical.centre(_published(u, v, _strain(u, v)))[0, 20, 8]
    assert raw[1] / raw[0] == pytest.approx(1, rel=0.25)


def test_mirror_twice_is_the_same_and_negates_u(samples: FlowSamples) -> None:
    flow = canonical.centre(samples.flow)
    np.testing.assert_array_equal(canonical.mirror(canonical.mirror(flow)), flow)
    np.testing.assert_array_equal(canonical.mirror(flow)[:, :, 0, 0], -flow[:, :, -1, 0])


def test_unit_spread_forgets_the_scale_of_a_channel(samples: FlowSamples) -> None:
    flow = canonical.centre(samples.flow)
    np.testing.assert_allclose(
        canonical.unit_spread(flow * np.float32([3, 0.5])), canonical.unit_spread(flow), rtol=1e-3, atol=1e-5
    )


def test_still_images_stay_finite() -> None:
    still = np.full((2, 28, 28, 3), 7, np.uint8)
    for flow in (canonical.unit_spread(canonical.centre(still)), canonical.physical(still)):
        assert np.isfinite(flow).all()
        assert not flow.any()


def test_coarse_keeps_the_mean_and_refuses_a_grid_that_does_not_fit(samples: FlowSamples) -> None:
    flow = canonical.centre(samples.flow)
    np.testing.assert_allclose(canonical.coarse(flow, grid=7).mean((1, 2)), flow.mean((1, 2)), atol=1e-6)
    with pytest.raises(ShapeError, match="no grid of 5"):
        canonical.coarse(flow, grid=5)
    with pytest.raises(ShapeError):
        canonical.centre(flow)
