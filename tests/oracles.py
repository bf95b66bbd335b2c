"""The optimisers and the clipping again, in float64, as in their sources; slow and plain."""

import numpy as np

BETA_1, BETA_2 = 0.9, 0.999


class Adam:
    """Kingma & Ba 2015, Algorithm 1: ε is added to the corrected root."""

    def __init__(self, learning_rate, epsilon):
        self.learning_rate, self.epsilon = learning_rate, epsilon
        self.t, self.m, self.v = 0, {}, {}
        self.weight_decay = 0.0

    def step(self, parameters, gradients):
        """New parameters, by name, float64."""
        self.t += 1
        kept = 1 - self.learning_rate * self.weight_decay
        return {name: kept * p - self.move(name, gradients[name].astype(np.float64)) for name, p in parameters.items()}

    def move(self, name, g):
        m, v = self.moments(name, g)
        corrected_m, corrected_v = m / (1 - BETA_1**self.t), v / (1 - BETA_2**self.t)
        return self.learning_rate * corrected_m / (np.sqrt(corrected_v) + self.epsilon)

    def moments(self, name, g):
        self.m[name] = BETA_1 * self.m.get(name, 0.0) + (1 - BETA_1) * g
        self.v[name] = BETA_2 * self.v.get(name, 0.0) + (1 - BETA_2) * g * g
        return self.m[name], self.v[name]


class KerasAdam(Adam):
    """The form just before section 2.1 of the same paper, which is Keras': ε is added to the root as it is."""

    def move(self, name, g):
        m, v = self.moments(name, g)
        alpha = self.learning_rate * np.sqrt(1 - BETA_2**self.t) / (1 - BETA_1**self.t)
        return alpha * m / (np.sqrt(v) + self.epsilon)


class RAdam(Adam):
    """Liu et al. 2020, Algorithm 2, rectified from ρ > 5 on as its authors' program does; ε is added to the root."""

    def move(self, name, g):
        m, v = self.moments(name, g)
        decayed = BETA_2**self.t
        most = 2 / (1 - BETA_2) - 1
        rho = most - 2 * self.t * decayed / (1 - decayed)
        corrected_m = m / (1 - BETA_1**self.t)
        if rho <= 5:
            return self.learning_rate * corrected_m
        rectified = np.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
        return self.learning_rate * corrected_m * rectified * np.sqrt(1 - decayed) / (np.sqrt(v) + self.epsilon)


class CentredRMSProp:
    """Graves 2013, eqs. 38–45, without momentum: ε is inside the root."""

    def __init__(self, learning_rate, epsilon, decay):
        self.learning_rate, self.epsilon, self.decay = learning_rate, epsilon, decay
        self.mean, self.square = {}, {}
        self.weight_decay = 0.0

    def step(self, parameters, gradients):
        """New parameters, by name, float64."""
        kept = 1 - self.learning_rate * self.weight_decay
        return {name: kept * p - self.move(name, gradients[name].astype(np.float64)) for name, p in parameters.items()}

    def move(self, name, g):
        rho = self.decay
        self.mean[name] = rho * self.mean.get(name, 0.0) + (1 - rho) * g
        self.square[name] = rho * self.square.get(name, 0.0) + (1 - rho) * g * g
        return self.learning_rate * g / np.sqrt(self.square[name] - self.mean[name] ** 2 + self.epsilon)


def make_optimiser(config):
    """The oracle of an `OptimiserConfig`; weight decay as Loshchilov & Hutter 2019, Algorithm 2."""
    if config.name == "centred_rmsprop":
        optimiser = CentredRMSProp(config.learning_rate, config.epsilon, config.decay)
    else:
        adams = {"adam": Adam, "keras_adam": KerasAdam, "radam": RAdam}
        optimiser = adams[config.name](config.learning_rate, config.epsilon)
    optimiser.weight_decay = config.weight_decay
    return optimiser


def clip_by_norm(gradient, norm):
    """Keras' `clip_by_norm`: g · c / max(‖g‖, c)."""
    return gradient * norm / max(float(np.sqrt(np.sum(np.square(gradient, dtype=np.float64)))), norm)


def clip_by_global_norm(gradients, norm):
    """Pascanu et al. 2013, Algorithm 1: all gradients times c / ‖all‖ if that norm exceeds c."""
    total = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in gradients.values()))
    return {name: g * norm / total if total > norm else g for name, g in gradients.items()}


def clip(config, gradients):
    """What an `OptimiserConfig` asks of gradients by name."""
    if config.clip == "per_variable":
        return {name: clip_by_norm(g, config.clip_norm) for name, g in gradients.items()}
    if config.clip == "global":
        return clip_by_global_norm(gradients, config.clip_norm)
    return gradients


def relative_error(start, got, wanted):
    """Of tensors by name that moved, as a share of the whole way from the start: a step not made counts as 1."""

    def way(begin, end):
        return sum(float((end[name].double() - begin[name].double()).square().sum()) for name in begin)

    return (way(wanted, got) / way(start, wanted)) ** 0.5


def screens(rng, count):
    """Observations somewhat like a game's: black, with a few bright rectangles; [count, 4, 84, 84] uint8."""
    obs = np.zeros((count, 4, 84, 84), np.uint8)
    for planes in obs:
        for _ in range(6):
            top, left = rng.integers(0, 70, 2)
            height, width = rng.integers(2, 14, 2)
            planes[rng.integers(0, 4), top : top + height, left : left + width] = rng.integers(40, 256)
    return obs


def kink_distance(network, obs):
    """How near any ReLU comes to 0: its smallest input, as a share of its layer's largest.

    Where that is less than float32's rounding, two programs may see different sides of the kink, and their gradients
    differ for no fault of theirs.
    """
    shares = []

    def look(module, inputs, output):
        sizes = output.detach().abs()
        shares.append((sizes[sizes > 0].min() / sizes.max()).item())

    layers = [*network.torso.layers[::2], network.head.hidden]
    hooks = [layer.register_forward_hook(look) for layer in layers]
    network.q_values(obs)
    for hook in hooks:
        hook.remove()
    return min(shares)
