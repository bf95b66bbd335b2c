"""The algorithms again, from the networks' outputs to the loss: plain loops in float64."""

import copy

import numpy as np
import torch
from scipy import special

import loss_oracles as oracles
from pixelq.config import C51Config, DQNConfig, IQNConfig, MunchausenConfig, PQNConfig, QRConfig


class ByHand:
    """The losses as their papers have them; each gives losses, values and errors.

    Chance is drawn in this order: noise of the target network, its fractions; noise of the online network that selects;
    noise of the online network that learns, its fractions.
    """

    def __init__(self, config, online, target, batch, chance):
        self.config, self.batch, self.chance = config, batch, chance
        self.online, self.target = copy.deepcopy(online), copy.deepcopy(target)

    @torch.no_grad()
    def says(self, network, obs, *tau):
        return network(obs, *tau).double()

    @torch.no_grad()
    def values(self, network, obs):
        return network.q_values(obs).double()

    def fractions(self, count):
        return torch.rand(len(self.batch.a_tm1), count, generator=self.chance)

    def selection(self, otherwise):
        """What chooses the next action."""
        if not self.config.double:
            return otherwise()
        self.online.redraw_noise(self.chance)
        return self.values(self.online, self.batch.obs_t)

    def step(self):
        return self.batch.a_tm1, self.batch.r_t, self.batch.discount_t

    def penalties(self, errors):
        errors = np.array(errors)
        size = np.abs(errors)
        huber = np.where(size <= 1, errors**2 / 2, size - 0.5)
        return {"huber": huber, "mse": errors**2, "half_mse": errors**2 / 2}[self.config.loss]

    def policy(self):
        return self.config.munchausen_temperature, self.config.munchausen_alpha, self.config.munchausen_clip

    def dqn(self):
        self.target.redraw_noise(self.chance)
        q_t = self.values(self.target, self.batch.obs_t)
        selector = self.selection(lambda: q_t)
        self.online.redraw_noise(self.chance)
        q_tm1 = self.values(self.online, self.batch.obs_tm1)
        errors = oracles.double_q_learning(q_tm1, *self.step(), q_t, selector)
        return self.penalties(errors), q_tm1, errors

    def munchausen(self):
        self.target.redraw_noise(self.chance)
        q_t, old = (self.values(self.target, obs) for obs in (self.batch.obs_t, self.batch.obs_tm1))
        self.online.redraw_noise(self.chance)
        q_tm1 = self.values(self.online, self.batch.obs_tm1)
        errors = oracles.munchausen_q_learning(q_tm1, *self.step(), q_t, old, *self.policy())
        return self.penalties(errors), q_tm1, errors

    def c51(self):
        config = self.config
        atoms = torch.linspace(config.v_min, config.v_max, config.atoms, dtype=torch.float64)
        self.target.redraw_noise(self.chance)
        logits_t = self.says(self.target, self.batch.obs_t)
        means_t = torch.from_numpy(special.softmax(logits_t.numpy(), axis=2) @ atoms.numpy())
        selector = self.selection(lambda: means_t)
        self.online.redraw_noise(self.chance)
        logits = self.says(self.online, self.batch.obs_tm1)
        losses = oracles.categorical_double_q_learning(atoms, logits, *self.step(), atoms, logits_t, selector)
        return losses, special.softmax(logits.numpy(), axis=2) @ atoms.numpy(), losses

    def qr(self):
        count = self.config.quantiles
        self.target.redraw_noise(self.chance)
        quantiles_t = self.says(self.target, self.batch.obs_t)
        selector = self.selection(lambda: quantiles_t.mean(dim=1))[:, None]
        self.online.redraw_noise(self.chance)
        quantiles = self.says(self.online, self.batch.obs_tm1)
        tau = torch.tensor([[(2 * i + 1) / (2 * count) for i in range(count)]] * len(quantiles), dtype=torch.float64)
        losses = oracles.quantile_q_learning(quantiles, tau, *self.step(), selector, quantiles_t, self.config.kappa)
        return losses, quantiles.mean(dim=1), losses

    def iqn(self):
        config, batch = self.config, self.batch
        self.target.redraw_noise(self.chance)
        quantiles_t = self.says(self.target, batch.obs_t, self.fractions(config.target_quantiles))
        selector = self.selection(lambda: self.values(self.target, batch.obs_t))[:, None]
        old = self.values(self.target, batch.obs_tm1)
        self.online.redraw_noise(self.chance)
        tau = self.fractions(config.quantiles)
        quantiles = self.says(self.online, batch.obs_tm1, tau)
        step = (quantiles, tau, *self.step())
        if config.munchausen:
            losses = oracles.munchausen_quantile_q_learning(*step, quantiles_t, old, *self.policy(), config.kappa)
        else:
            losses = oracles.quantile_q_learning(*step, selector, quantiles_t, config.kappa)
        return losses, quantiles.mean(dim=1), losses

    def pqn(self):
        self.online.redraw_noise(self.chance)
        q_tm1 = self.values(self.online, self.batch.obs_tm1)
        errors = self.batch.return_t.double().numpy() - q_tm1.numpy()[range(len(q_tm1)), self.batch.a_tm1]
        return self.penalties(errors), q_tm1, errors


BY_HAND = {
    DQNConfig: ByHand.dqn,
    MunchausenConfig: ByHand.munchausen,
    C51Config: ByHand.c51,
    QRConfig: ByHand.qr,
    IQNConfig: ByHand.iqn,
    PQNConfig: ByHand.pqn,
}


def expected(config, online, target, batch, chance):
    """Losses [B], values [B, A] and errors [B]; the networks stay as they are."""
    return BY_HAND[type(config)](ByHand(config, online, target, batch, chance))
