"""NumPyro's SVI, with the whole epoch in one compiled loop."""

from time import perf_counter
from typing import Any

from benchmarks.speed.contenders.base import Contender, NotInstalledError
from benchmarks.speed.task import (
    BETAS,
    LEARNING_RATE,
    PIXELS,
    Task,
    eps_for_sum,
    initial_weights,
    training_images,
)


class NumPyro(Contender):
    """NumPyro in its fastest form."""

    about = "NumPyro `SVI`, `Trace_ELBO`, the whole epoch in one jitted `fori_loop`, bytes on the device"
    compiles = True
    loads_torch = False

    def setup(self, task: Task) -> float:
        try:
            import jax
            import jax.numpy as jnp
            import numpyro
            from jax import lax, random
            from numpyro import distributions as dist
            from numpyro import optim
            from numpyro.infer import SVI, Trace_ELBO
        except ImportError as error:
            raise NotInstalledError(f"{error}; pip install 'vae_pyro[bench]'") from error
        if task.device.startswith("cuda") and jax.default_backend() != "gpu":
            raise NotInstalledError("this jax has no GPU")

        jax.config.update("jax_default_matmul_precision", "highest")
        self.task, self.jax, net = task, jax, task.network
        self.images = jnp.asarray(training_images(task))
        start = [(jnp.asarray(weight.T), jnp.asarray(bias)) for weight, bias in initial_weights(net, task.seed)]
        half = len(net.hidden) + 1
        activation = jax.nn.relu if net.activation == "relu" else jnp.tanh

        def dense(layers: Any, h: Any) -> Any:
            for weight, bias in layers[:-1]:
                h = activation(h @ weight + bias)
            weight, bias = layers[-1]
            return h @ weight + bias

        def model(x: Any) -> None:
            decoder = numpyro.param("decoder", start[half:])
            with numpyro.plate("data", len(x)):
                z = numpyro.sample("z", dist.Normal(jnp.zeros(net.latent), 1.0).to_event(1))
                numpyro.sample("x", dist.Bernoulli(logits=dense(decoder, z)).to_event(1), obs=x)

        def guide(x: Any) -> None:
            encoder = numpyro.param("encoder", start[:half])
            with numpyro.plate("data", len(x)):
                loc, log_scale = jnp.split(dense(encoder, x), 2, axis=-1)
                numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

        adam = optim.Adam(LEARNING_RATE, b1=BETAS[0], b2=BETAS[1], eps=eps_for_sum(task.batch))
        svi = SVI(model, guide, adam, Trace_ELBO())

        def epoch(state: Any, key: Any, images: Any) -> Any:
            order_key, noise_key = random.split(key)
            order = random.permutation(order_key, task.num_images)

            def step(number: Any, carried: Any) -> Any:
                state, total = carried
                rows = lax.dynamic_slice_in_dim(order, number * task.batch, task.batch)
                x = random.bernoulli(random.fold_in(noise_key, number), images[rows] / 255.0).astype(jnp.float32)
                state, loss = svi.update(state, x)
                return state, total + loss

            return lax.fori_loop(0, task.steps, step, (state, 0.0))

        began = perf_counter()
        self.key = random.key(task.seed)
        self.state = svi.init(self.key, jnp.zeros((task.batch, PIXELS)))
        self.compiled = jax.jit(epoch).lower(self.state, self.key, self.images).compile()
        seconds = perf_counter() - began
        # A first run fills pools and caches; its result is discarded, so that the weights remain the initial ones.
        jax.block_until_ready(self.compiled(self.state, self.key, self.images))
        return seconds

    def epoch(self) -> float:
        self.key, key = self.jax.random.split(self.key)
        self.state, total = self.compiled(self.state, key, self.images)
        return float(total) / (self.task.steps * self.task.batch)

    def synchronize(self) -> None:
        self.jax.block_until_ready(self.state)

    def device_memory(self) -> int | None:
        statistics = self.jax.devices()[0].memory_stats()
        return statistics.get("peak_bytes_in_use") if statistics else None
