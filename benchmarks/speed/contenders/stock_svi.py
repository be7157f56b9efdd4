"""`pyro.infer.SVI` on the VAE of `vae_pyro`."""

from typing import Any

from benchmarks.speed.contenders.torch_scripts import TorchContender, batches, binarize, reset, set_weights
from benchmarks.speed.task import BETAS, LEARNING_RATE, PIXELS, eps_for_sum


class VAEContender(TorchContender):
    """Base of the contenders on `vae_pyro.VAE`: the model and the guide."""

    def vae(self) -> Any:
        from vae_pyro import VAE, VAEConfig

        net = self.task.network
        config = VAEConfig(
            x_shape=(PIXELS,),
            latent_dim=net.latent,
            likelihood="bernoulli",
            encoder={"name": "mlp", "hidden": list(net.hidden), "activation": net.activation},
        )
        vae = VAE(config, seed=self.task.seed)
        set_weights(layers_of(vae), self.task)
        return vae.to(self.device)


def layers_of(vae: Any) -> list[Any]:
    """A VAE's dense layers in the order of `benchmarks.speed.task.Net.layers`."""
    from torch import nn

    return [layer for half in (vae.guide, vae.model) for layer in half.modules() if isinstance(layer, nn.Linear)]


class StockSVI(VAEContender):
    """Pyro's own SVI."""

    about = "`pyro.infer.SVI`, `Trace_ELBO`, `pyro.optim.Adam`, validation on, bytes in memory"

    def build(self) -> None:
        import pyro
        from pyro.infer import SVI, Trace_ELBO

        pyro.clear_param_store()
        pyro.enable_validation(True)
        self.pair = self.vae()
        optimizer = pyro.optim.Adam({"lr": LEARNING_RATE, "betas": BETAS, "eps": eps_for_sum(self.task.batch)})
        self.svi = SVI(self.pair.model, self.pair.guide, optimizer, Trace_ELBO())
        self.images = self.resident()

    def warm_up(self, steps: int) -> None:
        for pixels in batches(self.images[: steps * self.task.batch], self.task.batch):
            self.svi.step(binarize(pixels))
        set_weights(layers_of(self.pair), self.task)
        for optimizer in self.svi.optim.optim_objs.values():
            reset(optimizer)

    def epoch(self) -> float:
        total = sum(self.svi.step(binarize(pixels)) for pixels in batches(self.images, self.task.batch))
        return float(total) / (self.task.steps * self.task.batch)
