import pytest
import torch
from torch import nn

from vlfer.errors import AdapterError, ConfigError, ShapeError
from vlfer.models.temporal import (
    TemporalAdapter,
    load_temporal,
    pool_attention,
    pool_ema,
    pool_mean,
    pool_topk,
    save_temporal,
)

D = 24
POOLERS = [pool_mean, pool_attention, pool_topk, pool_ema]


def clips(n=6, t=10, seed=0):
    return nn.functional.normalize(torch.randn(n, t, D, generator=torch.Generator().manual_seed(seed)), dim=-1)


def trained(layers=2):
    """An adapter whose zeros have become something, as after training."""
    torch.manual_seed(1)
    adapter = TemporalAdapter(D, layers=layers, max_frames=16)
    nn.init.normal_(adapter.head.weight, std=0.2)
    return adapter.eval()


MODELS = [*POOLERS, trained(), trained(layers=4)]


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_an_untrained_adapter_is_mean_pooling_bit_for_bit(layers):
    vectors, mask = clips(), torch.rand(6, 10, generator=torch.Generator().manual_seed(2)) < 0.6
    mask[:, 3] = True
    adapter = TemporalAdapter(D, layers=layers)
    assert torch.equal(adapter(vectors, mask), pool_mean(vectors, mask))
    assert torch.equal(adapter(vectors), pool_mean(vectors))


@pytest.mark.parametrize("model", MODELS)
def test_results_are_unit_vectors(model):
    torch.testing.assert_close(model(clips()).norm(dim=-1), torch.ones(6))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("where", ["behind", "before", "between"])
def test_padding_changes_nothing_whatever_it_holds(model, where):
    vectors = clips(t=6)
    real = {"behind": range(6), "before": range(5, 11), "between": [0, 2, 3, 7, 8, 10]}[where]
    padded = torch.full((6, 11, D), float("nan"))
    padded[:, list(real)] = vectors
    mask = torch.zeros(6, 11, dtype=torch.bool)
    mask[:, list(real)] = True
    torch.testing.assert_close(model(padded, mask), model(vectors), atol=1e-5, rtol=0)


@pytest.mark.parametrize("model", MODELS)
def test_batches_and_their_order_change_nothing(model):
    vectors = clips()
    whole = model(vectors)
    order = torch.tensor([4, 1, 5, 0, 3, 2])
    torch.testing.assert_close(model(vectors[order]), whole[order], atol=1e-5, rtol=0)
    chunked = torch.cat([model(part) for part in vectors.split(4)])
    torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("model", MODELS)
def test_a_clip_of_one_frame_is_possible(model):
    out = model(clips(t=1))
    assert out.shape == (6, D)
    if model in POOLERS:
        torch.testing.assert_close(out, clips(t=1)[:, 0])


def order_clips(n, seed):
    """Half the clips go from neutral to happy, half from happy to neutral: the same frames, the other way round."""
    generator = torch.Generator().manual_seed(seed)
    neutral, happy = torch.eye(D)[0], torch.eye(D)[1]
    share = torch.linspace(0, 1, 8)[None, :, None]
    forwards = neutral * (1 - share) + happy * share
    noise = 0.3 * torch.randn(n, 8, D, generator=generator) / D**0.5
    rising = nn.functional.normalize(forwards + noise, dim=-1)
    return torch.cat([rising, rising.flip(1)]), torch.arange(2).repeat_interleave(n)


def test_order_is_read_by_the_adapter_and_by_no_pooler():
    vectors, labels = order_clips(24, seed=0)
    fresh, truth = order_clips(24, seed=1)
    for pooler in (pool_mean, pool_attention, pool_topk):
        rising, falling = pooler(fresh).chunk(2)
        torch.testing.assert_close(rising, falling, atol=1e-5, rtol=0)  # the same vector for both: nothing to tell by
    torch.manual_seed(0)
    adapter, prompts = TemporalAdapter(D, layers=1, max_frames=8), torch.eye(D)[[2, 3]]
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=3e-3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(adapter(vectors) @ prompts.T / 0.1, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = ((adapter.eval()(fresh) @ prompts.T).argmax(dim=1) == truth).float().mean()
    assert right >= 0.95


def test_attention_trusts_the_frames_that_agree():
    vectors = torch.eye(D)[[0, 0, 0, 0, 1]][None]
    assert float(pool_attention(vectors)[0, 1]) < 0.25 * float(pool_mean(vectors)[0, 1])


def test_top_k_takes_the_peak():
    vectors = torch.eye(D)[[0, 0, 1, 0, 2]][None]
    salience = torch.tensor([[0.1, 0.2, 0.9, 0.3, 0.8]])
    mean = pool_topk(vectors, salience=salience, k=2)
    torch.testing.assert_close(mean[0, :3], torch.tensor([0.0, 0.5**0.5, 0.5**0.5]))
    masked = pool_topk(vectors, torch.tensor([[True, True, False, True, True]]), salience=salience, k=1)
    torch.testing.assert_close(masked[0], torch.eye(D)[2])


def test_smoothing_forgets_by_half_in_a_half_life():
    vectors = torch.eye(D)[[0, 1]][None]
    out = pool_ema(vectors, times_s=torch.tensor([[0.0, 0.4]]), half_life_s=0.4)
    assert float(out[0, 0] / out[0, 1]) == pytest.approx(0.5)


def test_saved_and_loaded_is_the_same(tmp_path):
    adapter = trained()
    again = load_temporal(save_temporal(adapter, tmp_path / "temporal.safetensors"))
    assert again.config == adapter.config
    assert torch.equal(again(clips()), adapter(clips()))
    assert not again.training


def test_what_is_no_adapter_is_refused(tmp_path):
    from safetensors.torch import save_file

    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no tensors")
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, other)
    cut = save_temporal(trained(), tmp_path / "cut.safetensors")
    cut.write_bytes(cut.read_bytes()[:-100])
    for path in (broken, other, cut, tmp_path / "missing.safetensors"):
        with pytest.raises(AdapterError, match=path.name):
            load_temporal(path)


def test_diverged_weights_are_not_written(tmp_path):
    adapter = trained()
    adapter.head.weight.data[0, 0] = float("nan")
    with pytest.raises(AdapterError, match=r"head\.weight"):
        save_temporal(adapter, tmp_path / "temporal.safetensors")
    assert not list(tmp_path.iterdir())


def test_mistakes_are_told():
    adapter = TemporalAdapter(D, max_frames=4)
    with pytest.raises(ShapeError, match="10 frames"):
        adapter(clips())
    with pytest.raises(ShapeError, match="7 dimensions"):
        adapter(torch.ones(1, 2, 7))
    with pytest.raises(ShapeError, match="no frame that counts"):
        adapter(clips(t=3), torch.zeros(6, 3, dtype=torch.bool))
    with pytest.raises(ShapeError, match="mask"):
        pool_mean(clips(), torch.ones(6, 3, dtype=torch.bool))
    for settings in ({"layers": 5}, {"layers": 0}, {"heads": 5}, {"max_frames": 0}):
        with pytest.raises(ConfigError):
            TemporalAdapter(D, **settings)
    for call in (
        lambda: pool_topk(clips(), k=0),
        lambda: pool_attention(clips(), temperature=0),
        lambda: pool_ema(clips(), half_life_s=0),
    ):
        with pytest.raises(ConfigError):
            call()
