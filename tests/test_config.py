import pytest

from vlfer.config import PredictConfig, load_config
from vlfer.errors import ConfigError


def test_flags_win_over_the_environment_over_the_file_over_the_defaults(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("top: 2\nfps: 3\nlabels: mafw11\n")
    environment = {"VLFER_TOP": "4", "VLFER_FPS": "6", "OTHER": "x", "VLFER_CACHE": "/somewhere"}
    config = load_config(file, overrides={"fps": 12.0, "margin": None}, environment=environment)
    assert (config.labels, config.top, config.fps, config.margin) == ("mafw11", 4, 12.0, 0.0)


def test_all_mistakes_are_told_at_once_with_the_near_name(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("lables: ekman7\ntop: 0\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides={"fps": -1}, environment={})
    message = str(caught.value)
    assert "'lables' in" in message
    assert "Did you mean 'labels'?" in message
    assert "'top'" in message
    assert "'fps' given is -1" in message


def test_a_window_shorter_than_a_hop_is_refused():
    with pytest.raises(ConfigError, match="at least one hop"):
        load_config(overrides={"window_s": 0.1, "hop_s": 0.2}, environment={})


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content):
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match="The configuration"):
        load_config(file, environment={})


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "nothing.yaml", environment={})


def test_an_empty_file_gives_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(tmp_path / "empty.yaml", environment={}) == PredictConfig()


def test_a_mistyped_variable_is_told():
    with pytest.raises(ConfigError, match="'backbon' in the environment is no setting"):
        load_config(environment={"VLFER_BACKBON": "x"})
