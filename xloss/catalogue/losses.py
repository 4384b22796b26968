# SPDX-License-Identifier: Apache-2.0
"""The rows of the losses, by family. See `xloss.catalogue` for what drives on them."""

from xloss import adversarial, classification
from xloss.catalogue.rows import AUTHORS_CODE, DERIVED, Entry

LOSSES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="cross_entropy",
            function=classification.cross_entropy,
            family="classification",
            title="Rethinking the Inception Architecture for Computer Vision",
            arxiv="1512.00567",
            needs=("log_odds", "centred"),
            evidence=DERIVED,
        ),
        Entry(
            name="soft_cross_entropy",
            function=classification.soft_cross_entropy,
            family="classification",
            title="mixup: Beyond Empirical Risk Minimization",
            arxiv="1710.09412",
            needs=("logits", "probabilities"),
            evidence=DERIVED,
        ),
        Entry(
            name="comp_sum",
            function=classification.comp_sum,
            family="classification",
            title="Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
            arxiv="2304.07288",
            needs=("log_odds",),
            evidence=DERIVED,
            slug="comp_sum",
        ),
        Entry(
            name="generalized_cross_entropy",
            function=classification.generalized_cross_entropy,
            family="classification",
            title=(
                "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels"
            ),
            arxiv="1805.07836",
            needs=("log_odds",),
            evidence=DERIVED,
        ),
        Entry(
            name="focal",
            function=classification.focal,
            family="classification",
            title="Focal Loss for Dense Object Detection",
            arxiv="1708.02002",
            needs=("log_odds",),
            evidence=DERIVED,
        ),
        Entry(
            name="log_partition_penalty",
            function=classification.log_partition_penalty,
            family="classification",
            title=("Small-scale proxies for large-scale Transformer training instabilities"),
            arxiv="2309.14322",
            needs=("log_odds", "target"),
            evidence=DERIVED,
            slug="logit_stability",
        ),
        Entry(
            name="margin_loss",
            function=classification.margin_loss,
            family="classification",
            title="Convexity, Classification, and Risk Bounds",
            arxiv=None,
            needs=("log_odds",),
            evidence=DERIVED,
        ),
        Entry(
            name="ensloss",
            function=classification.ensloss,
            family="classification",
            title=(
                "EnsLoss: Stochastic Calibrated Loss Ensembles for Preventing Overfitting in "
                "Classification"
            ),
            arxiv="2409.00908",
            needs=("log_odds", "key"),
            evidence=AUTHORS_CODE,
            exact_gradient=False,
            slug="ensloss",
        ),
        Entry(
            name="z_loss",
            function=classification.z_loss,
            family="classification",
            title=(
                "The Z-loss: a shift and scale invariant classification loss belonging to the "
                "Spherical Family"
            ),
            arxiv="1604.08859",
            needs=("centred", "variance"),
            evidence=DERIVED,
            slug="z_loss",
        ),
        Entry(
            name="taylor_softmax",
            function=classification.taylor_softmax,
            family="classification",
            title=("An Exploration of Softmax Alternatives Belonging to the Spherical Loss Family"),
            arxiv="1511.05042",
            needs=("target", "centred", "variance", "class_count"),
            evidence=DERIVED,
            slug="z_loss",
        ),
        Entry(
            name="spherical_softmax",
            function=classification.spherical_softmax,
            family="classification",
            title=("An Exploration of Softmax Alternatives Belonging to the Spherical Loss Family"),
            arxiv="1511.05042",
            needs=("target", "centred", "variance", "class_count"),
            evidence=DERIVED,
            slug="z_loss",
        ),
        Entry(
            name="harmonic",
            function=classification.harmonic,
            family="classification",
            title="Harmonic Loss Trains Interpretable AI Models",
            arxiv="2502.01628",
            needs=("distances",),
            evidence=AUTHORS_CODE,
            slug="harmonic",
        ),
        Entry(
            name="smooth_adversarial_comp_sum",
            function=adversarial.smooth_adversarial_comp_sum,
            family="adversarial",
            title="Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
            arxiv="2304.07288",
            needs=("logits", "adversarial_logits"),
            evidence=DERIVED,
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
}
