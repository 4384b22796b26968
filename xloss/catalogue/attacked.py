# SPDX-License-Identifier: Apache-2.0
"""The rows of the losses that read logits at attacked inputs."""

from xloss import adversarial
from xloss.catalogue.rows import AUTHORS_CODE, DERIVED, Entry

ATTACKED: tuple[Entry, ...] = (
    Entry(
        name="smooth_adversarial_comp_sum",
        function=adversarial.smooth_adversarial_comp_sum,
        family="adversarial",
        title="Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
        arxiv="2304.07288",
        needs=("logits", "adversarial_logits"),
        evidence=DERIVED,
        temporaries=2.26,
        slug="comp_sum",
    ),
    Entry(
        name="adversarial_rho_margin",
        function=adversarial.adversarial_rho_margin,
        family="adversarial",
        title="Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
        arxiv="2304.07288",
        needs=("candidate_logits",),
        evidence=DERIVED,
        temporaries=2.01,
        slug="comp_sum",
    ),
    Entry(
        name="trades",
        function=adversarial.trades,
        family="adversarial",
        title="Theoretically Principled Trade-off between Robustness and Accuracy",
        arxiv="1901.08573",
        needs=("logits", "adversarial_logits"),
        evidence=AUTHORS_CODE,
        temporaries=6.02,
        slug="adversarial_attacks",
    ),
    Entry(
        name="mart",
        function=adversarial.mart,
        family="adversarial",
        title="Improving Adversarial Robustness Requires Revisiting Misclassified Examples",
        arxiv=None,
        needs=("logits", "adversarial_logits"),
        evidence=AUTHORS_CODE,
        temporaries=11.51,
        slug="adversarial_attacks",
    ),
    Entry(
        name="madry",
        function=adversarial.madry,
        family="adversarial",
        title="Towards Deep Learning Models Resistant to Adversarial Attacks",
        arxiv="1706.06083",
        needs=("adversarial_logits",),
        evidence=DERIVED,
        slug="adversarial_attacks",
    ),
)
