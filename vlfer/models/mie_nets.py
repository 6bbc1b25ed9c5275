"""Small networks over onset-to-apex flow of 28x28 positions: the references of the field and a plain one.

All take (N, 3, 28, 28) float32, u, v and strain around zero, and give logits (N, C). The references were written down
from their papers; where a paper leaves something open or asks for another input size, the class says what was chosen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class OffApexNet(nn.Module):
    """OFF-ApexNet (Gan et al., Signal Processing: Image Communication 2019): one stream for u, one for v.

    Two 5x5 convolutions of 6 and 16 filters with 2x2 max-pooling in each stream, then two layers of 1024. The strain is
    not used, as in the paper.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.streams = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            )
            for _ in range(2)
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.Linear(2 * 16 * 7 * 7, 1024), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(1024, 1024), nn.ReLU(), nn.Dropout(0.5), nn.Linear(1024, n_classes),
        )  # fmt: skip

    def forward(self, flow: Tensor) -> Tensor:
        """Return logits (N, C) of flow (N, 3, 28, 28)."""
        parts = [stream(flow[:, c : c + 1]) for c, stream in enumerate(self.streams)]
        out: Tensor = self.head(torch.cat(parts, dim=1))
        return out


class StstNet(nn.Module):
    """STSTNet (Liong et al., FG 2019): three shallow streams of 3, 5 and 8 filters over u, v and strain.

    As in the authors' PyTorch code: every stream sees all three channels; 3x3 convolution, batch norm, 3x3 max-pooling
    of stride 3, dropout; then 2x2 average pooling and one linear layer.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.streams = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(width),
                nn.MaxPool2d(3, stride=3, padding=1), nn.Dropout(0.5),
            )
            for width in (3, 5, 8)
        )  # fmt: skip
        self.head = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16 * 5 * 5, n_classes))

    def forward(self, flow: Tensor) -> Tensor:
        """Return logits (N, C) of flow (N, 3, 28, 28)."""
        out: Tensor = self.head(torch.cat([stream(flow) for stream in self.streams], dim=1))
        return out


class RcnA(nn.Module):
    """RCN-A (Xia et al., IEEE TIP 2020): a shallow recurrent convolutional network with a spatial attention unit.

    The paper shrinks model and input for the composite data. Chosen here, where it leaves room: 32 filters, one
    recurrent layer unrolled three times with shared weights and its own batch norm at each step, attention from a 1x1
    convolution and a softmax over the positions, average pooling.
    """

    def __init__(self, n_classes: int, *, width: int = 32, steps: int = 3) -> None:
        super().__init__()
        self.entry = nn.Sequential(nn.Conv2d(3, width, 5, stride=2, padding=2), nn.BatchNorm2d(width), nn.ReLU())
        self.feed = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.recur = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(steps))
        self.attend = nn.Conv2d(width, 1, 1)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(2 * width, n_classes))

    def forward(self, flow: Tensor) -> Tensor:
        """Return logits (N, C) of flow (N, 3, 28, 28)."""
        entry = nn.functional.max_pool2d(self.entry(flow), 2)
        given = self.feed(entry)
        state = entry
        for norm in self.norms:
            state = torch.relu(norm(given + self.recur(state)))
        weight = self.attend(state).flatten(2).softmax(dim=2)
        attended = (state.flatten(2) * weight).sum(dim=2)
        out: Tensor = self.head(torch.cat([attended, state.mean(dim=(2, 3))], dim=1))
        return out


class Dssn(nn.Module):
    """DSSN (Khor et al., ICIP 2019): a dual-stream shallow network over magnitude and strain, merged by concatenation.

    The paper truncates AlexNet for 227 pixel inputs; here each stream is cut down to the same three stages for 28
    positions: 7x7 convolution of 16 filters, 5x5 of 32, 3x3 of 64, with max-pooling between.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.streams = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(1, 16, 7, stride=2, padding=3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(16, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU(),
                nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
            )
            for _ in range(2)
        )  # fmt: skip
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(2 * 64 * 9, n_classes))

    def forward(self, flow: Tensor) -> Tensor:
        """Return logits (N, C) of flow (N, 3, 28, 28)."""
        magnitude = flow[:, :2].square().sum(dim=1, keepdim=True).add(1e-8).sqrt()
        parts = [self.streams[0](magnitude), self.streams[1](flow[:, 2:])]
        out: Tensor = self.head(torch.cat(parts, dim=1))
        return out


class PlainNet(nn.Module):
    """Three convolutions that keep the place of each response: faces are aligned, so where it moves is what it means.

    Args:
        n_classes: C.
        width: Filters of the first layer; the others have twice and three times as many.
        channels: Input channels.
    """

    def __init__(self, n_classes: int, *, width: int = 24, channels: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 5, stride=2, padding=2), nn.BatchNorm2d(width), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.Dropout2d(0.1),
            nn.Conv2d(2 * width, 3 * width, 3, padding=1), nn.BatchNorm2d(3 * width), nn.ReLU(),
            nn.AvgPool2d(3, stride=2),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * width * 9, n_classes))

    def forward(self, flow: Tensor) -> Tensor:
        """Return logits (N, C) of flow (N, channels, 28, 28)."""
        out: Tensor = self.head(self.body(flow))
        return out


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "off-apexnet": OffApexNet,
    "stst": StstNet,
    "rcn-a": RcnA,
    "dssn": Dssn,
    "plain": PlainNet,
}
"""The networks by the name that commands use."""
