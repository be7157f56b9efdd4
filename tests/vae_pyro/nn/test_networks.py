import pytest
import torch

from vae_pyro.core.isolation import seeded
from vae_pyro.nn import DECODERS, ENCODERS, Decoder, Encoder
from vae_pyro.nn.layers import ACTIVATIONS

IMAGES = [(1, 28, 28), (3, 32, 32), (28, 28), (1, 7, 9), (2, 5, 64), (1, 1, 1)]


def build(name: str, shape: tuple[int, ...], **options: object) -> tuple[Encoder, Decoder]:
    with seeded(0):
        encoder = ENCODERS.build(ENCODERS.resolve({"name": name, **options}), shape)
        decoder = DECODERS.build(DECODERS.resolve({"name": name, **options}), 3, (2, *shape))
    return encoder, decoder


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("name", ["mlp", "conv", "resnet"])
def test_any_image_size_and_any_batch_dimensions(name: str, shape: tuple[int, ...]) -> None:
    encoder, decoder = build(name, shape)
    with seeded(0):
        x, z = torch.randn(4, 3, *shape), torch.randn(4, 3, 3)
    assert encoder(x).shape == (4, 3, encoder.width)
    assert decoder(z).shape == (4, 3, 2, *shape)
    # Every datum is on its own: no normalisation over the batch.
    torch.testing.assert_close(decoder(z)[1, 2], decoder(z[1, 2]))
    torch.testing.assert_close(encoder(x)[1, 2], encoder(x[1, 2]))


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "gated"])
def test_every_activation_and_depth_of_the_mlp(activation: str) -> None:
    for hidden in ([], [5], [7, 6, 5]):
        encoder, decoder = build("mlp", (2, 3), hidden=hidden, activation=activation)
        assert encoder.width == (hidden[-1] if hidden else 6)
        with seeded(0):
            z = torch.randn(4, 3, requires_grad=True)
        decoder(z).sum().backward()
        assert z.grad is not None
        assert z.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["mlp", "conv", "resnet"])
def test_the_output_bias_can_be_set(name: str) -> None:
    _, decoder = build(name, (3, 6, 6))
    bias = torch.arange(2.0 * 3).reshape(2, 3, 1, 1).expand(2, 3, 6, 6)  # the same within a channel
    before = decoder(torch.zeros(1, 3))
    decoder.set_output_bias(torch.zeros(2, 3, 6, 6))
    zero = decoder(torch.zeros(1, 3))
    decoder.set_output_bias(bias)
    torch.testing.assert_close(decoder(torch.zeros(1, 3)) - zero, bias[None])
    assert not torch.allclose(before, zero)


@pytest.mark.parametrize("name", ["conv", "resnet"])
def test_images_only(name: str) -> None:
    with pytest.raises(ValueError, match=f"network '{name}' requires images.*got \\(30,\\); choose 'mlp'"):
        build(name, (30,))
