"""The rapid pipeline's models under their own names: shapes, clips, and speakers."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stillwave.models.personalized_model import PersonalizedModel
from stillwave.models.simple_audio_classifier import SimpleAudioClassifier


@pytest.fixture(scope="module")
def basic() -> SimpleAudioClassifier:
    return SimpleAudioClassifier(num_classes=4).eval()


def audio(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_three_convolutions_and_a_dense_head(basic: SimpleAudioClassifier) -> None:
    kinds = [type(module) for module in basic.modules()]
    assert kinds.count(nn.Conv1d) == 3
    assert kinds.count(nn.Linear) == 2
    assert sum(p.numel() for p in basic.parameters()) == 511_492  # the same for every size of input
    assert basic(audio(3, 16000)).shape == (3, 4)
    assert all(p.requires_grad for p in basic.parameters())


def test_a_channel_axis_is_allowed_and_other_shapes_are_not(basic: SimpleAudioClassifier) -> None:
    x = audio(2, 16000)
    torch.testing.assert_close(basic(x[:, None]), basic(x))
    for shape in ((16000,), (2, 2, 16000), (2, 0)):
        with pytest.raises(ValueError, match=r"audio is \("):
            basic(torch.zeros(shape))


def test_audio_is_cut_or_padded_to_the_input_size(basic: SimpleAudioClassifier) -> None:
    x = audio(2, 20000)
    torch.testing.assert_close(basic(x), basic(x[:, :16000]))
    padded = torch.cat([x[:, :9000], torch.zeros(2, 7000)], 1)
    torch.testing.assert_close(basic(x[:, :9000]), basic(padded))
    half = SimpleAudioClassifier(4, input_size=8000).eval()
    torch.testing.assert_close(half(x), half(x[:, :8000]))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0,), "num_classes is 0; it must be 1 or more"),
        ((2, 0), "input_size is 0; it must be 434 or more"),
        ((2, 433), "input_size is 433; it must be 434 or more"),
    ],
)
def test_sizes_that_make_no_model_are_named(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimpleAudioClassifier(*sizes)


def test_the_shortest_clip_gives_one_frame() -> None:
    encoder = SimpleAudioClassifier(2, 434).encoders["frames"]
    assert encoder.num_frames(1) == 1
    assert encoder.frames_of(433) == 0


def test_the_seed_draws_the_weights_and_leaves_torchs_generator() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, same, other = (SimpleAudioClassifier(4, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(
        one["encoders.frames.layers.0.conv.weight"], other["encoders.frames.layers.0.conv.weight"]
    )
    assert not torch.equal(one["head.mlp.0.weight"], other["head.mlp.0.weight"])


def test_personalised_starts_as_the_basic_model_and_leaves_it(basic: SimpleAudioClassifier) -> None:
    model = PersonalizedModel(basic, num_speakers=3).eval()
    x = audio(3, 16000)
    torch.testing.assert_close(model(x, torch.tensor([0, 1, 3])), basic(x))
    nn.init.normal_(model.head.up.weight)
    nn.init.normal_(model.head.output.weight)
    assert not torch.allclose(model(x, torch.tensor([0, 1, 3])), basic(x))
    assert torch.equal(PersonalizedModel(basic).head.output.weight, basic.head.output.weight)


def test_speakers_beyond_the_table_are_the_unknown_one(basic: SimpleAudioClassifier) -> None:
    model = PersonalizedModel(basic, num_speakers=3).eval()
    nn.init.normal_(model.head.up.weight)
    x = audio(1, 16000).expand(6, -1)
    logits = model(x, torch.tensor([0, -1, 4, 99, 1, 2]))
    stranger = model(x[:1])
    torch.testing.assert_close(logits[:4], stranger.expand(4, -1))
    assert not torch.allclose(logits[4], stranger[0], atol=1e-3)
    assert not torch.allclose(logits[4], logits[5], atol=1e-3)


def test_both_train_and_save_as_safetensors(basic: SimpleAudioClassifier, tmp_path) -> None:
    model = PersonalizedModel(basic, num_speakers=2).train()
    x, labels = audio(8, 16000), torch.arange(8) % 4
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x, torch.arange(8) % 3), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert model.encoders["frames"].layers[0].norm.num_batches_tracked == 4
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = PersonalizedModel(SimpleAudioClassifier(4, seed=3), num_speakers=2)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    speakers = torch.arange(8) % 3
    torch.testing.assert_close(other.eval()(x, speakers), model.eval()(x, speakers))
