"""Descriptors from a language model behind a real HTTP endpoint, also one that misbehaves."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlfer.errors import EnvironmentProblem, PromptError
from vlfer.text.answers import AnswerError, read_answer
from vlfer.text.check import check_words
from vlfer.text.generate import (
    GenerationSettings,
    build_prompt_file,
    generate,
    near_labels,
    render_prompt_file,
)
from vlfer.text.instructions import build_messages, instructions_sha256
from vlfer.text.labels import labels_from_words, load_label_set
from vlfer.text.llm import EndpointModel, Reply
from vlfer.types import Embedding

_spec = importlib.util.spec_from_file_location("vlfer_test_endpoint", Path(__file__).with_name("endpoint.py"))
assert _spec is not None
assert _spec.loader is not None
endpoint = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = endpoint
_spec.loader.exec_module(endpoint)
completion, good_answer, serve, well_behaved = (
    endpoint.completion, endpoint.good_answer, endpoint.serve, endpoint.well_behaved,
)  # fmt: skip


def model(server: Any, **options: Any) -> EndpointModel:
    return EndpointModel("tiny-writer", url=server.url, sleep=lambda seconds: None, **options)


def first(bad: Any) -> Any:
    """Answer badly once, then well."""

    def say(body: dict[str, Any], count: int) -> Any:
        return bad if count == 0 else well_behaved(body, count)

    return say


def test_labels_become_a_prompt_file_that_loads_and_passes_the_check(tmp_path: Path) -> None:
    with serve() as server:
        outcomes = generate(model(server), ["glee", "gloom"])
        assert server.labels() == ["glee", "gloom"]
        provenance = {**model(server).provenance(), "instructions_sha256": instructions_sha256(), "seed": 3}
    file = build_prompt_file(outcomes, name="mine", provenance=provenance, written="2026-11-21")
    path = tmp_path / "mine.yaml"
    path.write_text(render_prompt_file(file), encoding="utf-8")
    labels = load_label_set(path)
    glee = labels.labels[0]
    assert labels.names == ("glee", "gloom")
    assert len(glee.descriptors) == 11
    assert glee.descriptors[-1] == "The nose stays smooth all the while, eelg apart."
    assert len(glee.dynamics) == 2
    assert glee.definition.startswith("A made-up word")
    assert glee.synonyms == ("glee-like", "kindred look")
    assert labels.labels[1].synonyms == ("gloom-like",)  # "kindred look" can mean one label only
    for told in ("tiny-writer", instructions_sha256(), "seed 3", "2026-11-21", "http://127.0.0.1"):
        assert told in labels.origin
    assert labels.labels[1].dynamics == ()  # both sentences are those of "glee"
    assert [f for f in check_words(labels) if f.severity == "error"] == []


def test_the_request_asks_for_visible_action_in_grades_and_holds_the_model_to_a_schema() -> None:
    with serve() as server:
        generate(model(server, key="secret"), ["glee", "gloom"], settings=GenerationSettings(seed=5, temperature=0.2))
        body, headers = server.asked[0], server.headers[0]
    said = " ".join(m["content"] for m in body["messages"])
    for word in ("brows", "nose", "cheeks", "FACS", "subtle", "moderate", "strong", "dynamics", "negatives", "gloom"):
        assert word in said
    assert (body["seed"], body["temperature"], body["model"]) == (5, 0.2, "tiny-writer")
    assert body["response_format"]["json_schema"]["schema"]["required"]
    assert headers["authorization"] == "Bearer secret"


HALF = json.dumps(good_answer("glee"))[:300]
SAME = {
    **good_answer("glee"),
    **dict.fromkeys(("subtle", "moderate", "strong", "dynamics"), ["The mouth is open."] * 5),
}
FELT = {
    **good_answer("glee"),
    "strong": ["A face that feels joy.", "A happy old man laughs.", "The face of glee itself."],
}


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (completion(HALF, finish="length"), "ends in the middle"),
        (completion(HALF), "ends in the middle"),
        (completion('{"definition": joy}'), "not valid JSON"),
        (completion("Here is a list of sentences."), "no JSON object"),
        (completion("I'm sorry, but I can't help with faces."), None),
        (completion(None, refusal="I cannot do that."), None),
        (completion(None), "no JSON object"),
        (completion("{}"), "definition: field required"),
        (completion(json.dumps(SAME)), "sentences are different"),
        (completion(json.dumps(FELT)), "says what is felt ('feels')"),
        (completion("[1, 2]"), "no JSON object"),
    ],
)
def test_an_answer_that_cannot_be_used_is_asked_for_again_with_the_reason(bad: Any, complaint: str | None) -> None:
    with serve(first(bad)) as server:
        (outcome,) = generate(model(server), ["glee"])
        again = server.asked[1]
    assert outcome.answer is not None
    assert outcome.tries == 2
    assert again["seed"] == server.asked[0]["seed"] + 1
    if complaint is None:  # a refusal is not held up to the model
        assert len(again["messages"]) == 2
    else:
        assert complaint in again["messages"][-1]["content"]


def test_a_cut_off_answer_gets_more_room() -> None:
    with serve(first(completion(HALF, finish="length"))) as server:
        generate(model(server), ["glee"], settings=GenerationSettings(max_tokens=500))
        assert [body["max_tokens"] for body in server.asked] == [500, 1000]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (completion(HALF, finish="length"), "cut off"),
        (completion("I can't assist."), "refusal: the model refuses: I can't assist."),
        (completion(json.dumps(SAME)), "weak sentences: only 1 of 20 sentences are different"),
        (completion("no"), "no JSON"),
    ],
)
def test_a_model_that_never_answers_well_fails_that_label_alone(bad: Any, problem: str) -> None:
    def say(body: dict[str, Any], count: int) -> Any:
        return bad if "Expression: glee" in body["messages"][1]["content"] else well_behaved(body, count)

    with serve(say) as server:
        outcomes = generate(model(server), ["glee", "gloom"])
        assert len(server.asked) == 4
    assert outcomes[0].answer is None
    assert problem in outcomes[0].problem
    assert outcomes[1].answer is not None
    file = build_prompt_file(outcomes, name="x", provenance={"model": "m"}, written="2026-11-21")
    assert file.labels[0].descriptors is None
    assert file.origin is not None
    assert "1 of 2 labels" in file.origin.checked
    with pytest.raises(PromptError, match="no usable answer"):
        build_prompt_file(outcomes[:1], name="x", provenance={}, written="")


def test_single_bad_sentences_are_dropped() -> None:
    content = good_answer("glee")
    content["moderate"].append("A young girl with raised cheeks.")
    content["negatives"] += ["too sad", "too sad"]
    content["synonyms"] += ["GLEE", "a", "one two three four five"]
    content["action_units"] = ["AU 6 + 12", "25", "AU99"]
    content["contrast"] = [{"against": "somebody else", "sentence": "The nose is smooth."}]
    answer = read_answer(Reply(f"```json\n{json.dumps(content)}\n```"), label="glee", near=["gloom"])
    assert len(answer.moderate) == 4
    assert answer.negatives.count("too sad") == 1
    assert "GLEE" not in answer.synonyms
    assert answer.action_units == ["AU6", "AU12", "AU25"]
    assert answer.contrast == []


def test_deep_nonsense_is_an_answer_error() -> None:
    with pytest.raises(AnswerError):
        read_answer(Reply('{"a":' * 5000), label="glee")


def test_what_is_done_is_not_asked_again_and_a_damaged_answer_is(tmp_path: Path) -> None:
    def dies(body: dict[str, Any], count: int) -> Any:
        return (500, b"{}", {}) if count >= 2 else well_behaved(body, count)

    labels = ["glee", "gloom", "awe"]
    with serve(dies) as server, pytest.raises(EnvironmentProblem, match="HTTP 500"):
        generate(model(server), labels, cache_dir=tmp_path)
    kept = sorted((tmp_path / "generated").glob("*.json"))
    assert len(kept) == 2
    with serve() as server:
        port_free = EndpointModel("tiny-writer", url=server.url)
        port_free.provenance = lambda: {"model": "another"}  # type: ignore[method-assign]
        generate(port_free, labels, cache_dir=tmp_path)
        assert len(server.asked) == 3  # another endpoint is another model
        generate(port_free, labels, cache_dir=tmp_path)
        assert len(server.asked) == 3
        next(p for p in (tmp_path / "generated").glob("*.json") if p not in kept).write_text('{"half":')
        outcomes = generate(port_free, labels, cache_dir=tmp_path)
        assert len(server.asked) == 4
        assert sorted(one.tries for one in outcomes) == [0, 0, 1]
        generate(port_free, labels, cache_dir=tmp_path, settings=GenerationSettings(seed=1))
        assert len(server.asked) == 7


def test_a_dead_endpoint_is_told_at_once_and_nothing_more_is_asked() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for workers in (1, 3):
        with pytest.raises(EnvironmentProblem, match=f"127.0.0.1:{port} does not answer.*ollama serve"):
            generate(
                EndpointModel("m", url=f"http://127.0.0.1:{port}"), ["a b", "c d", "e f"],
                settings=GenerationSettings(workers=workers),
            )  # fmt: skip


def test_an_endpoint_that_hangs_is_left() -> None:
    import threading

    gate = threading.Event()

    def hang(body: dict[str, Any], count: int) -> Any:
        gate.wait(5.0)
        return completion("{}")

    with serve(hang) as server:
        with pytest.raises(EnvironmentProblem, match="no answer in time"):
            generate(model(server, timeout_s=0.3), ["glee"])
        gate.set()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, b'{"error": {"message": "bad key"}}', {}), "refuses the key.*bad key.*--key-env"),
        ((404, b"{}", {}), "has no model 'tiny-writer'.*It has tiny-writer"),
        ((200, b"<html>hello</html>", {}), "no OpenAI-compatible endpoint.*hello"),
        ((200, b'{"choices": []}', {}), "no OpenAI-compatible endpoint"),
        ((503, b'{"error": "loading model"}', {}), "HTTP 503.*loading model"),
    ],
)
def test_an_endpoint_that_refuses_says_why(answer: Any, words: str) -> None:
    with serve(lambda body, count: answer) as server, pytest.raises(EnvironmentProblem, match=words):
        generate(model(server), ["glee"])


def test_a_busy_endpoint_is_asked_again_after_the_time_it_names() -> None:
    waited: list[float] = []
    with serve(first((429, b"{}", {"retry-after": "7"}))) as server:
        busy = EndpointModel("tiny-writer", url=server.url, sleep=waited.append)
        assert generate(busy, ["glee"])[0].answer is not None
    assert waited == [7.0]


def test_an_endpoint_without_schemas_is_asked_for_any_json_then_for_text() -> None:
    def old(body: dict[str, Any], count: int) -> Any:
        return (400, b'{"error": "response_format"}', {}) if "response_format" in body else well_behaved(body, count)

    with serve(old) as server:
        generate(model(server), ["glee", "gloom"])
        forms = [body.get("response_format", {}).get("type") for body in server.asked]
    assert forms == ["json_schema", "json_object", None, None]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "", "http://"])
def test_what_is_no_url_is_told(url: str) -> None:
    with pytest.raises(EnvironmentProblem, match="no URL"):
        EndpointModel("m", url=url)


def test_urls_are_completed_and_passwords_are_not_told() -> None:
    assert EndpointModel("m", url="http://h:1/").url == "http://h:1/v1"
    assert EndpointModel("m", url="http://h/api/v1/chat/completions").url == "http://h/api/v1"
    assert EndpointModel("m", url="http://me:pw@h:1/v1").provenance()["endpoint"] == "http://h:1"


def test_a_label_in_another_script_is_asked_for_as_it_is(tmp_path: Path) -> None:
    with serve() as server:
        outcomes = generate(model(server), ["喜び", "грусть"])
        assert server.labels() == ["喜び", "грусть"]
    path = tmp_path / "x.yaml"
    file = build_prompt_file(outcomes, name="x", provenance={}, written="")
    path.write_text(render_prompt_file(file), encoding="utf-8")
    assert "喜び" in path.read_text(encoding="utf-8")
    assert load_label_set(path).names == ("喜び", "грусть")


def test_five_hundred_labels(tmp_path: Path) -> None:
    labels = [f"look number {i}" for i in range(500)]
    steps: list[tuple[int, int]] = []
    with serve() as server:
        outcomes = generate(
            model(server), labels, settings=GenerationSettings(workers=8), cache_dir=tmp_path,
            hook=lambda label, done, of: steps.append((done, of)),
        )  # fmt: skip
        assert len(server.asked) == 500
        assert max(len(body["messages"][1]["content"]) for body in server.asked) < 3000  # near labels only, not all
    assert [one.label for one in outcomes] == labels
    assert all(one.answer for one in outcomes)
    assert sorted(steps) == [(i + 1, 500) for i in range(500)]
    assert len(build_prompt_file(outcomes, name="x", provenance={}, written="").labels) == 500


def test_near_labels_are_all_of_a_few_and_the_nearest_of_many() -> None:
    assert near_labels(["a", "b", "c"]) == [["b", "c"], ["a", "c"], ["a", "b"]]
    angles = np.linspace(0, 1.5, 12)
    vectors = Embedding(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), "s")
    names = [f"n{i}" for i in range(12)]
    assert set(near_labels(names, vectors, most=2)[5]) == {"n4", "n6"}
    assert near_labels(names, most=2)[11] == ["n0", "n1"]


def test_aliases_of_the_set_that_was_given_are_kept() -> None:
    base = load_label_set("ekman7")
    with serve() as server:
        outcomes = generate(model(server), base.names)
    file = build_prompt_file(outcomes, name="x", provenance={}, written="", base=base)
    assert "happy" in (file.labels[3].aliases or [])


def test_without_near_labels_no_contrast_is_asked_for() -> None:
    (_, task) = build_messages("awe", near=())
    assert "told from" not in task["content"]
    assert labels_from_words(["awe"]).names == ("awe",)
