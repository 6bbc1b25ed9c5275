from __future__ import annotations

import torch

from vlfer.models.mobileface import MobileFace


@torch.inference_mode()
def test_features_do_not_depend_on_the_other_faces_of_a_batch() -> None:
    torch.manual_seed(0)
    network = MobileFace().eval()
    faces = torch.randn(3, 1, 64, 64)
    together = network(faces)
    assert together.shape == (3, network.num_features)
    alone = torch.cat([network(face[None]) for face in faces])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_stages_hold_every_parameter_once() -> None:
    network = MobileFace()
    listed = [p for stage in network.stages() for p in stage.parameters()]
    assert len(listed) == len(list(network.parameters()))
