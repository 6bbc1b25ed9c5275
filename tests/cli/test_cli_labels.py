import json


def test_sets_are_listed(run):
    rows = json.loads(run("labels", "list", "--format", "json").stdout)
    sizes = {row["name"]: len(row["labels"]) for row in rows}
    assert sizes["ekman7"] == 7
    assert sizes["ferplus8"] == 8
    assert "ekman7" in run("labels", "list").stdout


def test_a_set_is_shown_with_its_sentences(run):
    shown = json.loads(run("labels", "show", "ekman7", "--format", "json").stdout)
    assert all(len(label["descriptors"]) >= 8 for label in shown["labels"])
    table = run("labels", "show", "ekman7").stdout
    assert shown["labels"][0]["descriptors"][0][:40] in table


def test_typed_words_are_shown_as_typed(run):
    shown = json.loads(run("labels", "show", "awe, polite smile", "--format", "json").stdout)
    assert [label["name"] for label in shown["labels"]] == ["awe", "polite smile"]


def test_an_unknown_set_names_the_near_one(run):
    done = run("labels", "show", "ekman")
    assert done.exit_code == 2
    assert "Did you mean 'ekman7'" in done.stderr


def test_backbones_are_listed(run):
    rows = json.loads(run("backbones", "list", "--format", "json").stdout)
    names = [row["name"] for row in rows]
    assert names[0] == "bundled"
    assert "ViT-B-16/openai" in names
    table = run("backbones", "list")
    assert table.exit_code == 0
    assert "ViT-B-16/openai" in table.stdout
