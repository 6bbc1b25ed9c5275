"""`vlfer prompts check` from the command line."""

from __future__ import annotations

import json

import pytest

GOOD = """
name: mine
labels:
  - name: weeping
    descriptors:
      - Tears run down the cheeks.
      - The chin trembles below a square mouth.
      - Lids pressed shut and brows drawn up in the middle.
      - The head sinks and the shoulders shake.
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_sound_file(run, file):
    result = run("prompts", "check", file(GOOD), "--backbone", "none")
    assert result.exit_code == 0
    assert "1 labels, 0 errors, 0 warnings" in result.stdout


def test_findings_say_where_what_and_what_to_do(run, file):
    path = file(GOOD + "      - A young woman with a broad smile.\n")
    result = run("prompts", "check", path, "--backbone", "none")
    assert result.exit_code == 1
    assert 'error identity descriptors: "A young woman with a broad smile."' in result.stdout
    assert "To do: describe the muscles" in result.stdout
    report = json.loads(run("prompts", "check", path, "--backbone", "none", "--format", "json").stdout)
    assert (report["errors"], report["warnings"]) == (1, 0)
    assert report["findings"][0]["rule"] == "identity"


def test_warnings_fail_only_if_asked(run, file):
    path = file(GOOD + "      - The face of someone who feels low.\n")
    assert run("prompts", "check", path, "--backbone", "none").exit_code == 0
    assert run("prompts", "check", path, "--backbone", "none", "--strict").exit_code == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "      - ''\n", "descriptors[5]"),
        (GOOD.replace("descriptors", "descriptor"), "Did you mean 'descriptors'"),
        (GOOD + '      - "unclosed\n', "not valid YAML"),
        (GOOD + f"      - {'word ' * 61}\n", "61 words"),
        ("", "empty, not a prompt file"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_finding(run, file, text, words):
    result = run("prompts", "check", file(text), "--backbone", "none")
    assert result.exit_code == 1
    assert "error format" in result.stdout
    assert words in result.stdout


def test_a_missing_file_is_a_mistake_of_usage(run, tmp_path):
    result = run("prompts", "check", tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert "no prompt file" in result.stderr


@pytest.mark.slow
def test_the_text_tower_counts_tokens_and_finds_what_strays(run, file):
    # 60 rare words are within the limit of the format, and far over that of CLIP
    text = (
        GOOD
        + f"      - The mouth {'zygomaticus ' * 40}.\n"
        + (
            "  - name: laughing\n    descriptors:\n      - The lip corners are drawn up and the teeth show.\n"
            "      - Cheeks bunched high in a hearty laugh.\n      - A broad grin with shining eyes.\n"
            "      - Tears run down the cheeks, the mouth is square and the chin trembles.\n"
        )
    )
    report = json.loads(run("prompts", "check", file(text), "--format", "json").stdout)
    found = {(f["rule"], f["label"]) for f in report["findings"]}
    assert ("too-long", "weeping") in found
    assert ("reads-as-other", "laughing") in found
