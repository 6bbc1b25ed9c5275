"""MIACNet, its predictor and its autoencoders: shapes, what starts at zero, and what must not be."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18

from vlfer.errors import ConfigError, DataError
from vlfer.models.autoencoder import CompactAutoencoder, DiffusersEncoder, load_diffusers_encoder
from vlfer.models.dit import DIT_SIZES, FuturePredictor
from vlfer.models.miacnet import MiacClassifier, Miacnet, MiacSettings, ResNet18

SMALL = MiacSettings(side=32, width=4, stride=8, condition=16)


def test_at_width_64_the_encoder_is_torchvisions_resnet18() -> None:
    theirs, ours = resnet18().eval(), ResNet18(width=64, stride=32).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not missing
    assert set(unexpected) == {"fc.weight", "fc.bias"}
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        pooled = ours(x).mean(dim=(2, 3))
        torch.testing.assert_close(theirs.fc(pooled), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_the_map_has_a_position_for_every_stride(stride) -> None:
    net = Miacnet(MiacSettings(side=64, width=4, stride=stride, condition=16))
    places = net.positions(torch.randn(2, 3, 64, 64))
    assert places.shape == (2, 32, 64 // stride, 64 // stride)
    torch.testing.assert_close(places.norm(dim=1), torch.ones(2, 64 // stride, 64 // stride))


@pytest.mark.parametrize(("side", "stride"), [(60, 8), (32, 32), (64, 4)])
def test_impossible_sizes_are_refused(side, stride) -> None:
    with pytest.raises(ConfigError, match="not possible"):
        MiacSettings(side=side, stride=stride)


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="Expected"):
        Miacnet(SMALL)(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))


def test_the_head_starts_at_zero_and_yet_everything_learns() -> None:
    torch.manual_seed(0)
    model = MiacClassifier(Miacnet(SMALL), 3)
    onset, apex = torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32)
    assert not model(onset, apex).any()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # behind a zero layer nothing gets a gradient in the first step
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(onset, apex), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.net.position.parameters())


def test_a_detached_position_map_gets_no_gradient() -> None:
    net = Miacnet(SMALL)
    net(torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32), detach_positions=True).sum().backward()
    assert all(p.grad is None for p in net.position.parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in net.action.parameters())


@pytest.mark.parametrize("size", DIT_SIZES)
def test_the_predictor_starts_with_nothing_moves(size) -> None:
    predictor = FuturePredictor(size, channels=4, side=8, patch=2, condition=16)
    latents = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(predictor(latents, torch.randn(2, 16)), latents)


def test_b_is_as_large_as_in_the_paper() -> None:
    predictor = FuturePredictor("B", channels=4, side=32, patch=2, condition=512)
    millions = sum(p.numel() for p in predictor.parameters()) / 1e6
    assert 125 < millions < 135


def test_the_predictor_learns_a_motion_that_only_the_condition_tells() -> None:
    torch.manual_seed(0)
    predictor = FuturePredictor("tiny", channels=2, side=8, patch=2, condition=4)
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=3e-3)
    latents = torch.randn(64, 2, 8, 8)
    which = torch.arange(64) % 2
    condition = nn.functional.one_hot(which * 3, 4).float()
    bump = torch.zeros(2, 2, 8, 8)
    bump[0, :, :3], bump[1, :, 5:] = 1.0, -1.0
    later = latents + bump[which]
    for _ in range(150):
        loss = (predictor(latents, condition) - later).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1 * float(bump[which].abs().mean())


def test_the_compact_autoencoder_standardises_its_latents() -> None:
    torch.manual_seed(0)
    codec, faces = CompactAutoencoder(width=4, channels=3), torch.randn(8, 3, 32, 32)
    codec.standardise(faces)
    latents = codec.encode(faces).detach()
    assert latents.shape == (8, 3, 8, 8)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    assert codec(faces).shape == faces.shape


CONFIG = {
    "_class_name": "AutoencoderKL", "block_out_channels": [8, 16], "layers_per_block": 1, "latent_channels": 4,
    "norm_num_groups": 4, "down_block_types": ["DownEncoderBlock2D"] * 2, "scaling_factor": 0.5, "shift_factor": 0.1,
}  # fmt: skip


@pytest.fixture
def vae(tmp_path):
    torch.manual_seed(0)
    model = DiffusersEncoder(CONFIG).eval()
    folder = tmp_path / "vae"
    folder.mkdir()
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(state | {"decoder.x": torch.zeros(1)}, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder, model


def test_a_diffusers_autoencoder_is_read_from_its_folder_or_its_pipeline(vae) -> None:
    folder, model = vae
    faces = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        for place in (folder, folder.parent):
            torch.testing.assert_close(load_diffusers_encoder(place).encode(faces), model.encode(faces))
    assert model.encode(faces).shape == (2, 4, 8, 8)


def test_old_names_of_attention_are_read(vae) -> None:
    folder, model = vae
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for key, value in model.state_dict().items():
        for now, then in new.items():
            if f"attentions.0.{now}." in key:
                key = key.replace(now, then)
                value = value[:, :, None, None] if value.ndim == 2 else value
        renamed[key] = value.contiguous()
    save_file(renamed, folder / "diffusion_pytorch_model.safetensors")
    faces = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(load_diffusers_encoder(folder).encode(faces), model.encode(faces))


def test_shift_and_scale_of_the_configuration_count(vae) -> None:
    folder, _ = vae
    faces = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        scaled = load_diffusers_encoder(folder).encode(faces)
        (folder / "config.json").write_text(json.dumps(CONFIG | {"scaling_factor": 1.0, "shift_factor": 0.0}))
        plain = load_diffusers_encoder(folder).encode(faces)
    torch.testing.assert_close(scaled, (plain - 0.1) * 0.5)


def test_what_is_no_autoencoder_is_told_apart(vae, tmp_path) -> None:
    folder, _ = vae
    with pytest.raises(DataError, match=r"config\.json"):
        load_diffusers_encoder(tmp_path / "none")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"_class_name": "AutoencoderTiny"}))
    with pytest.raises(ConfigError, match="AutoencoderTiny"):
        load_diffusers_encoder(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"latent_channels": 5}))
    with pytest.raises(DataError, match="could not be read"):
        load_diffusers_encoder(folder)
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(DataError, match="pickled"):
        load_diffusers_encoder(folder)
