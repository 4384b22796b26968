# SPDX-License-Identifier: Apache-2.0
"""Adversarial training: attacks that find the worst input nearby, losses that train against it.

    adversarial = pgd(apply, x, labels, key=key, radius=8 / 255).x_adv
    losses = trades(apply(x), apply(adversarial), labels, beta=6.0)

Attacks take ``apply_fn(inputs) -> logits``; their result is a constant for differentiation. Losses
take the logits at the clean and at the attacked inputs and keep the loss contract. To evaluate a
trained model::

    print(robust_accuracy(apply, x, labels, key=key, radius=8 / 255))

Adversarial perturbation of weights is :func:`xloss.optim.awp_perturb`.
"""

from xloss.adversarial.apgd import APGDResult, apgd, checkpoints
from xloss.adversarial.dlr import dlr
from xloss.adversarial.madry import madry
from xloss.adversarial.mart import mart
from xloss.adversarial.pgd import PGDResult, pgd
from xloss.adversarial.rho_margin import adversarial_rho_margin
from xloss.adversarial.robust_accuracy import RobustnessReport, robust_accuracy
from xloss.adversarial.score_displacement import maximize_score_displacement
from xloss.adversarial.smooth_comp_sum import smooth_adversarial_comp_sum
from xloss.adversarial.square import SquareResult, square, window_shares
from xloss.adversarial.trades import trades

__all__ = [
    "APGDResult",
    "PGDResult",
    "RobustnessReport",
    "SquareResult",
    "adversarial_rho_margin",
    "apgd",
    "checkpoints",
    "dlr",
    "madry",
    "mart",
    "maximize_score_displacement",
    "pgd",
    "robust_accuracy",
    "smooth_adversarial_comp_sum",
    "square",
    "trades",
    "window_shares",
]
