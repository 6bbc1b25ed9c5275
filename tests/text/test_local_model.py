"""Descriptors from causal models of transformers on this machine: a random one, and one that knows a single answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlfer.errors import EnvironmentProblem
from vlfer.text.generate import GenerationSettings, generate
from vlfer.text.llm import LocalModel

ANSWER = {
    "definition": "great joy, shown by raised lip corners",
    "synonyms": ["delight"],
    "action_units": ["AU12"],
    "subtle": ["One lip corner moves a little.", "A faint crease shows beside one eye."],
    "moderate": ["The cheeks are lifted.", "The brows stay level and loose.", "The mouth widens over the teeth."],
    "strong": ["The jaw drops in a laugh.", "The eyes close above bunched cheeks."],
    "dynamics": ["The mouth moves first and fades last."],
    "contrast": [],
    "negatives": ["lip corners pulled down", "a wrinkled nose", "knitted brows"],
}


def build_model(folder: Path, *, scripted: bool, positions: int = 2048) -> Path:
    """Save a GPT-2 of one layer: random, or one that answers any prompt by one token, the whole JSON, and ends."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocab = {"[UNK]": 0, json.dumps(ANSWER): 1, "[END]": 2, "mouth": 3, "brows": 4, "a": 5}
    words = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="[END]")
    config = GPT2Config(
        vocab_size=len(vocab), n_positions=positions, n_embd=8, n_layer=1, n_head=1, eos_token_id=2, bos_token_id=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = GPT2LMHeadModel(config)
    if scripted:
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.zero_()
            net.transformer.ln_f.weight.fill_(1.0)
            net.transformer.wte.weight[: len(vocab)] = torch.eye(len(vocab), 8)
            net.lm_head.weight[1] = 20.0 * torch.eye(8)[[0, 3, 4, 5]].sum(0)  # after any word of the prompt
            net.lm_head.weight[2] = 20.0 * torch.eye(8)[1]  # after the answer
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_that_knows_the_answer(tmp_path: Path) -> None:
    model = LocalModel(str(build_model(tmp_path, scripted=True)), device="cpu")
    (outcome,) = generate(model, ["glee"], settings=GenerationSettings(temperature=0.0))
    assert outcome.answer is not None
    assert outcome.answer.strong == ANSWER["strong"]
    assert outcome.tries == 1
    assert model.provenance()["model"] == str(tmp_path)
    assert len(model.provenance()["weights"]) == 16


def test_a_model_that_babbles_fails_with_a_clear_problem(tmp_path: Path) -> None:
    model = LocalModel(str(build_model(tmp_path, scripted=False)), device="cpu")
    settings = GenerationSettings(max_tokens=20, tries=2)
    (outcome,) = generate(model, ["glee"], settings=settings)
    assert outcome.answer is None
    assert outcome.tries == 2
    assert outcome.problem.startswith(("no JSON", "cut off"))


def test_the_same_seed_gives_the_same_answer(tmp_path: Path) -> None:
    model = LocalModel(str(build_model(tmp_path, scripted=False)), device="cpu")
    ask: Any = {"schema": {}, "temperature": 1.0, "max_tokens": 20}
    messages = [{"role": "user", "content": "mouth"}]
    texts = [model.reply(messages, seed=seed, **ask).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_model_that_reads_too_little_is_told(tmp_path: Path) -> None:
    model = LocalModel(str(build_model(tmp_path, scripted=False, positions=16)), device="cpu")
    with pytest.raises(EnvironmentProblem, match="reads 16 tokens"):
        generate(model, ["glee"])


@pytest.mark.parametrize("content", [None, {"config.json": "{}"}, {"config.json": "not json"}])
def test_what_is_no_model_is_told(tmp_path: Path, content: dict[str, str] | None) -> None:
    folder = tmp_path / "model"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    with pytest.raises(EnvironmentProblem, match=r"cannot be loaded.*causal model"):
        LocalModel(str(folder), device="cpu")
