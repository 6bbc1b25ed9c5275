"""Fine-tuning on tiny random backbones: what it learns, how it stops and goes on, what it refuses."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vlfer.errors import BackboneError, ConfigError, DataError, EnvironmentProblem
from vlfer.models.adapter import LORA_WEIGHTS, MAP_NAME, PROMPT_NAME, TEMPORAL_NAME
from vlfer.models.encoder import load_encoder
from vlfer.text.labels import load_label_set
from vlfer.training import finetune as loop
from vlfer.training.finetune_config import FinetuneConfig
from vlfer.training.finetune_data import Samples
from vlfer.training.finetune_losses import contrast_loss, intensity_loss, vote_loss
from vlfer.training.finetune_run import finetune


def samples(*, classes: int = 3, each: int = 8, frames: int = 1, seed: int = 0, noise: int = 30) -> Samples:
    """Pictures of 32 px whose colour tells the class; clips tell it by the order of dark and light."""
    rng = np.random.default_rng(seed)
    n = classes * each
    label = np.repeat(np.arange(classes), each)
    pixels = rng.integers(0, noise, (n, frames, 32, 32, 3)).astype(np.uint8)
    for i, c in enumerate(label.tolist()):
        if frames == 1:
            pixels[i, 0, ..., c % 3] += 150
        else:
            ramp = np.linspace(0, 150, frames).astype(np.uint8)
            pixels[i] += (ramp if c == 0 else ramp[::-1])[:, None, None, None]
    names = ("red joy", "green awe", "blue grief")[:classes]
    return Samples(
        pixels=pixels, lengths=np.full(n, frames, np.int64), votes=np.eye(classes, dtype=np.float32)[label],
        classes=names, subjects=tuple(f"p{seed}-{i % each}" for i in range(n)),
        sources=tuple(f"{seed}-{i}" for i in range(n)), captions=tuple(f"a face of {names[c]}" for c in label),
        sha256=f"{seed}",
    )  # fmt: skip


def config(backbone: str, **changes: Any) -> FinetuneConfig:
    content: dict[str, Any] = {
        "backbone": backbone, "device": "cpu", "train": {"lora": {"rank": 4}}, "data": {"validation": 0.25},
        "loop": {"epochs": 3, "batch_size": 8, "steps_per_epoch": 3, "learning_rate": 0.02, "augment": 0.3},
    }  # fmt: skip
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(content.get(key), dict) else value
    return FinetuneConfig.model_validate(content)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / LORA_WEIGHTS)


@pytest.fixture(params=["open_clip", "clip", "siglip"])
def backbone_name(request: pytest.FixtureRequest) -> str:
    if request.param == "open_clip":
        return str(request.getfixturevalue("tiny_backbone_name"))
    return f"hf:{request.getfixturevalue('tiny_hf_clip' if request.param == 'clip' else 'tiny_siglip')}"


def test_it_learns_and_what_is_served_is_what_was_trained(tmp_path: Path, backbone_name: str) -> None:
    settings = config(backbone_name, loop={"epochs": 6, "steps_per_epoch": 5})
    told: list[tuple[str, int, int]] = []
    outcome = finetune(settings, samples(), samples(seed=5), folder=tmp_path, hook=lambda *step: told.append(step))
    both = outcome.figures["test"]
    assert both["after"]["uar"] > max(0.6, both["before"]["uar"])
    assert told[-1][1:] == (30, 30)
    assert outcome.adapter.kind == "lora"
    card = outcome.adapter.card
    assert card["data"]["test"]["classes"] == {"red joy": 8, "green awe": 8, "blue grief": 8}
    assert card["data"]["kept_apart_by"] == "subjects"
    text = (tmp_path / "adapter" / "README.md").read_text()
    assert "| test | 24 | after |" in text
    assert load_label_set(tmp_path / "adapter" / "labels.yaml").names == ("red joy", "green awe", "blue grief")
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 7


def test_a_seed_decides_everything(tmp_path: Path, tiny_backbone_name: str) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        finetune(config(tiny_backbone_name, seed=seed), samples(), None, folder=tmp_path / name)
    first, again, other = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_half_of_the_update_is_kept_where_asked(tmp_path: Path, tiny_backbone_name: str) -> None:
    for name, share in (("whole", 1.0), ("half", 0.5)):
        settings = config(tiny_backbone_name, train={"lora": {"rank": 4, "share": share}})
        for _ in range(2):  # the second call finds the run finished and changes nothing
            finetune(settings, samples(), None, folder=tmp_path / name)
    whole, half = weights(tmp_path / "whole"), weights(tmp_path / "half")
    assert any(value.abs().max() > 0 for key, value in whole.items() if "lora_B" in key)
    for key, value in whole.items():
        torch.testing.assert_close(half[key], value * 0.5 if "lora_B" in key else value)


@pytest.mark.parametrize("at", [2, 3, 7])
def test_stopped_and_resumed_gives_the_same_weights(tmp_path: Path, tiny_backbone_name: str, at: int) -> None:
    settings = config(tiny_backbone_name, loop={"accumulation": 2})
    finetune(settings, samples(), None, folder=tmp_path / "whole")

    def press_ctrl_c(message: str, done: int, total: int) -> None:
        del message, total
        if done == at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        finetune(settings, samples(), None, folder=tmp_path / "halves", hook=press_ctrl_c)
    seen: list[int] = []
    finetune(settings, samples(), None, folder=tmp_path / "halves", hook=lambda _, done, __: seen.append(done))
    assert seen[0] == at + 1
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(whole[key], halves[key]) for key in whole)


@pytest.mark.parametrize("objective", ["votes", "captions", "intensity"])
def test_every_objective_learns(tmp_path: Path, tiny_backbone_name: str, objective: str) -> None:
    settings = config(tiny_backbone_name, objective={"kind": objective}, loop={"epochs": 8, "steps_per_epoch": 4})
    settings = settings.model_copy(update={"labels": None})
    outcome = finetune(settings, samples(), samples(seed=5), folder=tmp_path)
    both = outcome.figures["test"]
    assert both["after"]["uar"] > both["before"]["uar"]


def test_every_part_learns_and_is_served(tmp_path: Path, tiny_backbone_name: str) -> None:
    train = {"lora": {"rank": 2, "dora": True}, "context": 3, "linear_map": True, "logit_scale": True}
    settings = config(tiny_backbone_name, train=train, objective={"keep": 0.1})
    outcome = finetune(settings, samples(), samples(seed=5), folder=tmp_path)
    assert outcome.adapter.kind == "lora+prompt+map"
    plain = load_encoder(tiny_backbone_name, device="cpu")
    served = load_encoder(tiny_backbone_name, device="cpu", adapter=tmp_path / "adapter")
    assert served.temperature != pytest.approx(plain.temperature, rel=1e-4)
    assert np.abs(plain.encode_texts(["awe"]).vectors - served.encode_texts(["awe"]).vectors).max() > 1e-3
    matrix = load_file(tmp_path / "adapter" / MAP_NAME)["map"]
    assert not torch.equal(matrix, torch.eye(24))
    assert load_file(tmp_path / "adapter" / PROMPT_NAME)["context"].shape == (3, 32)


def test_residuals_move_the_labels_and_what_lies_near_them(tmp_path: Path, tiny_backbone_name: str) -> None:
    settings = config(tiny_backbone_name, train={"lora": None, "residual": True}, loop={"epochs": 8})
    outcome = finetune(settings, samples(), samples(seed=5), folder=tmp_path)
    assert outcome.adapter.kind == "residual"
    assert outcome.figures["test"]["after"]["uar"] > outcome.figures["test"]["before"]["uar"]
    plain = load_encoder(tiny_backbone_name, device="cpu")
    served = load_encoder(tiny_backbone_name, device="cpu", adapter=tmp_path / "adapter")
    names = list(outcome.adapter.card["label_set"]["labels"])
    assert np.abs(plain.encode_texts(names).vectors - served.encode_texts(names).vectors).max() > 1e-3
    pixels = samples().pixels[:2, 0]
    assert np.array_equal(plain.encode_images(pixels).vectors, served.encode_images(pixels).vectors)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"train": {"residual": True, "context": 2}}, "take one of them"),
        ({"train": {"residual": True}, "objective": {"kind": "captions"}}, "take it away"),
        ({"train": {"residual": True}, "input": "flow"}, "of a flow encoder only"),
    ],
)
def test_a_residual_stands_by_itself(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        FinetuneConfig.model_validate(settings)


@pytest.mark.parametrize("words", [{"context": 2}, {"residual": True}])
def test_figures_of_the_card_are_those_of_the_loop(
    tmp_path: Path, tiny_backbone_name: str, words: dict[str, Any]
) -> None:
    """Validated in training with every part as it learns; measured for the card as served."""
    settings = config(tiny_backbone_name, train={**words, "linear_map": True}, loop={"epochs": 1, "ema": 0.0})
    outcome = finetune(settings, samples(noise=200), None, folder=tmp_path)
    header, row = ((tmp_path / "log.csv").read_text().splitlines())[:2]
    logged = dict(zip(header.split(","), row.split(","), strict=True))
    assert outcome.figures["validation"]["after"]["uar"] == pytest.approx(float(logged["uar"]), abs=1e-3)


def test_a_temporal_transformer_reads_the_order_that_pooling_cannot(tmp_path: Path, tiny_backbone_name: str) -> None:
    settings = config(
        tiny_backbone_name, input="videos", train={"lora": None, "temporal": {"layers": 1, "dropout": 0.0}},
        loop={"epochs": 12, "steps_per_epoch": 8, "learning_rate": 0.01, "augment": 0.0},
    )  # fmt: skip
    train, test = samples(classes=2, each=12, frames=6), samples(classes=2, each=12, frames=6, seed=5)
    outcome = finetune(settings, train, test, folder=tmp_path)
    assert outcome.adapter.has(TEMPORAL_NAME)
    assert outcome.figures["test"]["after"]["uar"] >= outcome.figures["test"]["before"]["uar"] + 0.3


def test_checkpointing_and_accumulation_change_no_result(tmp_path: Path, tiny_backbone_name: str) -> None:
    plain = {"lora": {"rank": 4, "dropout": 0.0}}
    for name, kept in (("a", 0), ("b", 3)):
        settings = config(tiny_backbone_name, train=plain, loop={"checkpoint_frames": kept})
        finetune(settings, samples(), None, folder=tmp_path / name)
    first, other = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.allclose(first[key], other[key], atol=1e-5) for key in first)


def test_half_precision_learns_too(tmp_path: Path, tiny_backbone_name: str) -> None:
    settings = config(tiny_backbone_name, loop={"precision": "bf16", "epochs": 6, "steps_per_epoch": 5})
    outcome = finetune(settings, samples(), samples(seed=5), folder=tmp_path)
    assert outcome.figures["test"]["after"]["uar"] > 0.6


def test_early_stop_keeps_the_best_epoch(tmp_path: Path, tiny_backbone_name: str) -> None:
    settings = config(
        tiny_backbone_name, loop={"epochs": 40, "patience": 2, "steps_per_epoch": 1, "learning_rate": 1e-30, "ema": 0.0}
    )
    outcome = finetune(settings, samples(), None, folder=tmp_path)
    course = outcome.adapter.card["course"]
    assert course["epochs"] == course["best_epoch"] + 2
    assert course["epochs"] < 40


def test_lora_that_trains_nothing_is_an_error(tmp_path: Path, tiny_backbone_name: str) -> None:
    """open_clip's attention calls its output projection by its weights alone, so LoRA on it would stay idle."""
    settings = config(tiny_backbone_name, train={"lora": {"targets": r"visual\.transformer\..*\.out_proj"}})
    with pytest.raises(BackboneError, match="received no gradient"):
        finetune(settings, samples(), None, folder=tmp_path)


def test_every_lora_tensor_gets_gradient_by_the_second_update(tmp_path: Path, backbone_name: str) -> None:
    settings = config(backbone_name, loop={"epochs": 1, "steps_per_epoch": 2})
    finetune(settings, samples(), None, folder=tmp_path)
    state = weights(tmp_path)
    assert all(bool(value.abs().sum() > 0) for key, value in state.items() if "lora_B" in key)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good(
    tmp_path: Path, tiny_backbone_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = vote_loss, iter(range(100))

    def breaks(logits: torch.Tensor, votes: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
        return real(logits, votes, smoothing=smoothing) * (float("nan") if next(calls) == 4 else 1.0)

    monkeypatch.setattr("vlfer.training.finetune_task.vote_loss", breaks)
    with pytest.raises(DataError, match="The loss is nan at update 5") as caught:
        finetune(config(tiny_backbone_name), samples(), None, folder=tmp_path)
    assert "after epoch 1 is kept" in str(caught.value)
    assert all(bool(torch.isfinite(v).all()) for v in load_file(tmp_path / loop.STATE_NAME).values())


def test_a_full_disk_leaves_the_old_state(
    tmp_path: Path, tiny_backbone_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, real = config(tiny_backbone_name), loop.write_atomically
    finetune(config(tiny_backbone_name), samples(), None, folder=tmp_path / "whole")
    writes = iter(range(100))

    def full(path: Path, content: bytes) -> None:
        if path.name == loop.STATE_NAME and next(writes) == 1:
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(loop, "write_atomically", full)
    with pytest.raises(EnvironmentProblem, match="The one before is intact"):
        finetune(settings, samples(), None, folder=tmp_path / "run")
    monkeypatch.undo()
    finetune(settings, samples(), None, folder=tmp_path / "run")
    whole, after = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(whole[key], after[key]) for key in whole)


def test_out_of_memory_says_what_to_set(
    tmp_path: Path, tiny_backbone_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("vlfer.training.finetune_task.vote_loss", full)
    with pytest.raises(EnvironmentProblem, match=r"loop.batch_size=4 --set loop.accumulation=2") as caught:
        finetune(config(tiny_backbone_name), samples(), None, folder=tmp_path)
    assert "checkpoint_frames" in str(caught.value)


def test_a_folder_belongs_to_one_run(tmp_path: Path, tiny_backbone_name: str) -> None:
    settings = config(tiny_backbone_name, loop={"epochs": 1})
    finetune(settings, samples(), None, folder=tmp_path)
    with pytest.raises(ConfigError, match="another configuration or of other data"):
        finetune(settings, samples(seed=3), None, folder=tmp_path)


def test_a_missing_tracker_is_told(tmp_path: Path, tiny_backbone_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="uv pip install mlflow"):
        finetune(config(tiny_backbone_name, tracker="mlflow"), samples(), None, folder=tmp_path)


def test_a_teacher_labels_faces_without_labels(tmp_path: Path, tiny_backbone_name: str, tiny_hf_clip: Path) -> None:
    settings = config(
        tiny_backbone_name, labels="joy, grief", objective={"kind": "teacher", "teacher": f"hf:{tiny_hf_clip}"},
        train={"lora": None, "linear_map": True},
    )  # fmt: skip
    outcome = finetune(settings, samples(classes=2), None, folder=tmp_path)
    assert outcome.adapter.kind == "map"
    assert outcome.adapter.card["label_set"]["labels"] == ["joy", "grief"]


def test_the_card_names_no_place_of_this_machine(tmp_path: Path, tiny_backbone_name: str) -> None:
    settings = config(tiny_backbone_name, data={"root": tmp_path / "secret" / "faces"}, loop={"epochs": 1})
    outcome = finetune(settings, samples(), None, folder=tmp_path / "run")
    assert outcome.adapter.card["config"]["data"]["root"] == "faces"
    assert "secret" not in json.dumps(dict(outcome.adapter.card["config"]["data"]))


def test_losses() -> None:
    logits = torch.tensor([[4.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    votes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    expected = (-torch.log_softmax(logits, 1)[0, 0] + np.log(3)) / 2
    assert float(vote_loss(logits, votes)) == pytest.approx(float(expected), abs=1e-6)
    pair = (np.log1p(np.exp(1.0 - 4.0)) + np.log(2)) / 2  # the true class against its worst rival only
    assert float(intensity_loss(logits, votes)) == pytest.approx(pair, abs=1e-6)
    same = torch.eye(3)
    alone = contrast_loss(same, same, scale=torch.tensor(50.0), group=torch.arange(3))
    assert float(alone) == pytest.approx(0, abs=1e-6)
    captions = torch.stack([same[0], same[0], same[2]])  # two clips with one caption are both right for it
    shared = contrast_loss(captions, captions, scale=torch.tensor(50.0), group=torch.tensor([0, 0, 2]))
    assert float(shared) == pytest.approx(2 * np.log(2) / 3, abs=1e-5)
