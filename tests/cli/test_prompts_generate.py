"""`vlfer prompts generate` from the command line, against a real HTTP server on this machine."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from vlfer.text.labels import load_label_set

_spec = importlib.util.spec_from_file_location(
    "vlfer_test_endpoint", Path(__file__).parents[1] / "text" / "endpoint.py"
)
assert _spec is not None
assert _spec.loader is not None
endpoint = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = endpoint
_spec.loader.exec_module(endpoint)


@pytest.fixture(autouse=True)
def own_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("VLFER_CACHE", str(tmp_path / "cache"))


def call(run, server, out, *more):
    given = ["--labels", "glee, gloom", "--llm", "tiny-writer", "--url", server.url, "--out", out]
    return run("prompts", "generate", *given, *more)


def test_a_file_is_written_with_its_provenance_and_made_again_without_a_request(run, tmp_path):
    out = tmp_path / "mine.yaml"
    with endpoint.serve() as server:
        result = call(run, server, out, "--seed", "4", "--workers", "2")
        assert result.exit_code == 0, result.stderr
        first = out.read_text()
        assert call(run, server, out, "--seed", "4").exit_code == 2  # it exists
        again = call(run, server, out, "--seed", "4", "--force")
        assert "2 kept from before" in again.stderr
        assert out.read_text() == first
        assert len(server.asked) == 2
        assert call(run, server, out, "--seed", "4", "--force", "--fresh").exit_code == 0
        assert len(server.asked) == 4
    assert result.stdout == ""
    labels = load_label_set(out)
    assert labels.names == ("glee", "gloom")
    assert labels.name == "mine"
    for told in ("model tiny-writer", "instructions_sha256", "seed 4", "temperature 0.7", "date 20", "vlfer 0"):
        assert told in labels.origin
    shown = run("labels", "show", out, "--format", "json")
    assert json.loads(shown.stdout)["labels"][0]["dynamics"]


def test_labels_that_fail_are_named_and_nothing_is_written_unless_asked(run, tmp_path):
    def say(body, count):
        if endpoint.label_of(body) == "glee":
            return endpoint.completion("I cannot do that.")
        return endpoint.well_behaved(body, count)

    out = tmp_path / "mine.yaml"
    with endpoint.serve(say) as server:
        result = call(run, server, out)
        assert result.exit_code == 1
        assert "'glee' failed 3 times, last by refusal" in result.stderr
        assert not out.exists()
        result = call(run, server, out, "--partial")
        assert result.exit_code == 1
    assert load_label_set(out).labels[0].descriptors == ()
    assert len(load_label_set(out).labels[1].descriptors) > 8


def test_a_dead_endpoint_ends_the_command_with_the_way_out(run, tmp_path):
    with endpoint.serve() as server:
        pass
    result = call(run, server, tmp_path / "mine.yaml")
    assert result.exit_code == 3
    assert "does not answer" in result.stderr
    assert "ollama serve" in result.stderr


def test_the_key_comes_from_the_environment_and_is_told_to_nobody(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-hidden")
    out = tmp_path / "mine.yaml"
    with endpoint.serve() as server:
        result = call(run, server, out, "--key-env", "MY_KEY")
    assert server.headers[0]["authorization"] == "Bearer sk-hidden"
    assert "sk-hidden" not in result.stderr + result.stdout + out.read_text()


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--labels", "glee, gloom", "--llm", "m", "--out", "x.json"], "no YAML file", 2),
        (["--labels", "glee, , gloom", "--llm", "m", "--out", "x.yaml"], "Label 2 is empty", 2),
        (["--labels", "glee, gloom", "--llm", "http://h:1/v1", "--out", "x.yaml"], "--url http://h:1/v1", 2),
        (["--labels", "glee, gloom", "--llm", "m", "--url", "nowhere", "--out", "x.yaml"], "no URL", 3),
    ],
)
def test_mistakes_are_told(run, tmp_path, monkeypatch, arguments, words, code):
    monkeypatch.chdir(tmp_path)
    result = run("prompts", "generate", *arguments)
    assert words in result.stderr
    assert result.exit_code == code
    assert not list(tmp_path.glob("x.*"))
