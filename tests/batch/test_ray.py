"""Ray: a real cluster of two nodes on this machine, a node lost on the way, files that kill their actor."""

import functools
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vlfer.errors import ConfigError, EnvironmentProblem
from vlfer.evaluation.embed import Clip, EmbeddingStore
from vlfer.evaluation.encode import encode_rows
from vlfer.evaluation.manifest import Row
from vlfer.evaluation.media import Recipe
from vlfer.models.encoder import load_encoder

pytest.importorskip("ray", reason="Ray is not installed: uv sync --extra ray")
pytestmark = pytest.mark.slow

RECIPE = Recipe(size=32, faces="whole", frames=4)
FAST_DEATH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def cluster():
    """A head and a second node with one processor each; the driver is connected."""
    from vlfer.batch.cluster import import_ray

    ray = import_ray()
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": FAST_DEATH},
    )
    made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Images, folders of frames, a broken file and a missing one."""
    folder = tmp_path_factory.mktemp("media")
    paths = []
    for i in range(60):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        path = folder / f"{i}.png"
        if i % 5 == 4:
            path = folder / f"clip{i}"
            path.mkdir()
            for t in range(6):
                Image.fromarray(np.roll(pixels, t, axis=1)).save(path / f"{t}.png")
        else:
            Image.fromarray(pixels).save(path)
        paths.append(path)
    paths[7].write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    paths[21].unlink()
    return [Row(str(path), "anger") for path in paths]


@pytest.fixture(scope="module")
def encode(tiny_backbone_name, tiny_backbone, rows):
    """Encode the rows with an engine; return the engine's result and the bytes of each row's vectors."""

    def go(folder, engine):
        store = EmbeddingStore(folder)
        build = functools.partial(load_encoder, tiny_backbone_name, device="cpu")
        result = encode_rows(
            rows, encoder=tiny_backbone, recipe=RECIPE, store=store, build_encoder=build, engine=engine, batch_size=2
        )
        content = [store.vectors(p).tobytes() if isinstance(p, Clip) else (p.status, p.error_type, p.message)
                   for p in result.places]  # fmt: skip
        return result, content

    return go


@pytest.fixture(scope="module")
def local(encode, tmp_path_factory):
    """What the local engine gives, with one thread in the tower as an actor has."""
    import torch

    from vlfer.batch.local import LocalEngine

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    _, content = encode(tmp_path_factory.mktemp("local"), LocalEngine(workers=2))
    torch.set_num_threads(before)
    return content


def test_a_cluster_gives_the_same_bytes(cluster, encode, local, tmp_path):
    from vlfer.batch.ray import RayEngine

    result, content = encode(tmp_path, RayEngine())
    assert content == local
    assert sum(isinstance(place, Clip) for place in result.places) == 58


def test_the_command_writes_the_same_predictions(cluster, rows, tiny_backbone_name, tmp_path):
    import torch
    from typer.testing import CliRunner

    from vlfer.cli.main import app

    (tmp_path / "m.csv").write_text("path,label\n" + "".join(f"{row.path},anger\n" for row in rows[:30]))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for engine in ("local", "ray"):
        given = [
            "eval", "manifest", "--manifest", tmp_path / "m.csv", "--faces", "whole", "--backbone", tiny_backbone_name,
            "--device", "cpu", "--engine", engine, "--cache", tmp_path / f"cache-{engine}", "--out", tmp_path / engine,
        ]  # fmt: skip
        result = CliRunner().invoke(app, [str(one) for one in given])
        assert result.exit_code == 1, result.stderr  # two rows failed
        assert "2 of 30 rows failed" in result.stderr
    torch.set_num_threads(threads)
    written = [(tmp_path / engine / "predictions.csv").read_bytes() for engine in ("local", "ray")]
    assert written[0] == written[1]


def test_rows_that_kill_their_actor(cluster):
    """Rows are Python expressions and reading one is evaluating it."""
    from vlfer.batch.ray import RayEngine

    blocks = [[f"{10 * i} + {j}" for j in range(3)] for i in range(6)]
    blocks[2][1] = "__import__('os')._exit(3)"
    steps = SimpleNamespace(
        build_reader=functools.partial(functools.partial, eval),
        build_tower=functools.partial(functools.partial, sum),
        lost=lambda row, reason: -1000,
    )
    found = dict(RayEngine()(blocks, steps))
    assert found == {i: 30 * i + 3 if i != 2 else 20 + 22 - 1000 for i in range(6)}


def test_a_mistake_is_raised_and_not_tried_again(cluster):
    from vlfer.batch.ray import RayEngine

    def refuse():
        raise ConfigError("This cannot work.")

    steps = SimpleNamespace(build_reader=refuse, build_tower=refuse, lost=None)
    with pytest.raises(ConfigError, match="cannot work"):
        list(RayEngine()([["1"]], steps))


def test_a_node_is_lost_on_the_way_and_the_bytes_stay_the_same(cluster, encode, local, tmp_path):
    import ray

    from vlfer.batch.ray import RayEngine

    second = next(node for node in cluster.list_all_nodes() if node is not cluster.head_node)

    def losing(blocks, steps):
        # One actor decodes on one node, one encodes on the other: a result needs both, and either may be the lost one.
        for count, result in enumerate(RayEngine(encoders=1)(blocks, steps)):
            if count == 0:
                cluster.remove_node(second, allow_graceful=False)
            yield result

    result, content = encode(tmp_path, losing)
    assert content == local
    assert result.encoded == 59
    until = time.monotonic() + 30
    while sum(node["Alive"] for node in ray.nodes()) > 1 and time.monotonic() < until:
        time.sleep(0.2)
    assert sum(node["Alive"] for node in ray.nodes()) == 1


def test_a_cluster_that_is_not_there_is_told():
    import ray

    from vlfer.batch.ray import RayEngine

    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(EnvironmentProblem, match="cannot be reached"):
        list(RayEngine(address="127.0.0.1:1")([["1"]], None))
