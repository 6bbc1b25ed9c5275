from __future__ import annotations

import timm
import torch

from vlfer.models.mobileface import MobileFace, widen_grey_stem


def test_timm_builds_it_by_name() -> None:
    tower = timm.create_model("vlfer_mobileface", num_classes=5).eval()
    assert tower(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    tower.reset_classifier(0)
    assert tower(torch.zeros(2, 3, 32, 32)).shape == (2, tower.num_features)


def test_the_widened_stem_sees_luminance_only() -> None:
    torch.manual_seed(0)
    grey = MobileFace(in_chans=1).eval()
    colour = MobileFace(in_chans=3).eval()
    state = grey.state_dict()
    colour.load_state_dict({**state, "stem.weight": widen_grey_stem(state["stem.weight"])})
    pixels = torch.rand(2, 3, 32, 32)
    luminance = (pixels * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    with torch.inference_mode():
        torch.testing.assert_close(colour(pixels), grey(luminance), atol=1e-5, rtol=1e-4)
