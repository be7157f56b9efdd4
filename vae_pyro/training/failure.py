"""What a loss, a gradient or a weight that is not finite means: the likely cause and the way out."""

from math import isfinite

from torch import Tensor

from vae_pyro.models.vae import VAE


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite; the message names the step, the likely cause and the last good checkpoint."""


def require_finite_weights(vae: VAE, epoch: int, rate: float, way_out: str) -> None:
    """Refuse to go on with, or to keep, weights that are not finite.

    The loss is checked before a step; what the last step did to the weights shows only in them.

    Args:
        vae: after a step.
        epoch: epochs that are complete.
        rate: learning rate of the last step.
        way_out: end of the message.

    Raises:
        NonFiniteLossError: a weight is not finite.
    """
    for name, value in vae.named_parameters():
        if not bool(value.isfinite().all()):
            raise NonFiniteLossError(
                f"the weights are not finite after epoch {epoch} ({name} first); likely cause: the last step was too "
                f"long: lower the learning rate ({rate:g}) or set clip_norm{way_out}"
            )


def likely_cause(vae: VAE, x: Tensor, metrics: dict[str, float], rate: float) -> str:
    """Why a step gave a loss or a gradient that is not finite, in words.

    Args:
        vae: as it is; the step was not taken.
        x: the batch, as the programs observed it.
        metrics: of the step, ``kl`` and ``reconstruction`` among them.
        rate: learning rate.
    """
    diverged = [name for name, value in vae.named_parameters() if not bool(value.isfinite().all())]
    if not bool(x.isfinite().all()):
        return "the batch holds values that are not finite and that no mask hides"
    if diverged:
        return f"the weights diverged ({diverged[0]} first): lower the learning rate ({rate:g}) or set clip_norm"
    if not isfinite(metrics["kl"]):
        return (
            f"the KL is {metrics['kl']}: a posterior scale overflowed; lower the learning rate ({rate:g}), set "
            "clip_norm, or warm up the rate"
        )
    if not isfinite(metrics["reconstruction"]):
        return (
            f"log p(x | z) is {metrics['reconstruction']}: a scale or rate of the likelihood "
            f"{vae.config.likelihood.name!r} under- or overflowed; scale the data or raise its lower bound"
        )
    return f"a gradient overflowed: lower the learning rate ({rate:g}) or set clip_norm"
