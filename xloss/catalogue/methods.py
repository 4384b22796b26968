# SPDX-License-Identifier: Apache-2.0
"""The rows of what is no loss: heads, transforms, aggregators, attacks, and theory's."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from xloss import adversarial, classification, consistency, heads, optim
from xloss.catalogue.measures import MEASURES
from xloss.catalogue.rows import AUTHORS_CODE, DERIVED, Method, of_paper
from xloss.catalogue.runs import RUNS
from xloss.catalogue.several_tasks import SEVERAL_TASKS
from xloss.catalogue.theory import THEORY


def _costs(
    title: str,
    arxiv: str | None,
    slug: str,
    evidence: str,
    functions: Iterable[tuple[str, Callable[..., Any]]],
) -> Iterator[Method]:
    """Rows of one paper's functions, each with its cost before it."""
    for cost, function in functions:
        yield from of_paper(title, arxiv, slug, evidence, (function,), cost)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="pairwise_distance",
            function=heads.pairwise_distance,
            family="heads",
            title="Rethinking the Harmonic Loss via Non-Euclidean Distance Layers",
            arxiv="2603.10225",
            evidence=AUTHORS_CODE,
            slug="harmonic",
        ),
        Method(
            name="harmonic_logits",
            function=heads.harmonic_logits,
            family="heads",
            title="Harmonic Loss Trains Interpretable AI Models",
            arxiv="2502.01628",
            evidence=AUTHORS_CODE,
            slug="harmonic",
        ),
        Method(
            name="linear_statistics",
            function=heads.linear_statistics,
            family="heads",
            title="Cut Your Losses in Large-Vocabulary Language Models",
            arxiv="2411.09009",
            evidence=DERIVED,
            cost="4 products, 1 block of logits",
        ),
        Method(
            name="linear_mean_loss",
            function=heads.linear_mean_loss,
            family="heads",
            title="Liger Kernel: Efficient Triton Kernels for LLM Training",
            arxiv="2410.10989",
            evidence=DERIVED,
            cost="3 products, 2 chunks of logits",
        ),
        Method(
            name="harmonic_statistics",
            function=heads.harmonic_statistics,
            family="heads",
            title="Harmonic Loss Trains Interpretable AI Models",
            arxiv="2502.01628",
            evidence=DERIVED,
            cost="as linear_statistics",
        ),
        *of_paper(
            "Dual-Encoders for Extreme Multi-Label Classification",
            "2310.10636",
            "decoupled_softmax",
            AUTHORS_CODE,
            (classification.soft_top_k, classification.log_soft_top_k),
        ),
        Method(
            name="chunked_decoupled_softmax",
            function=heads.chunked_decoupled_softmax,
            family="heads",
            title="Dual-Encoders for Extreme Multi-Label Classification",
            arxiv="2310.10636",
            evidence=AUTHORS_CODE,
            cost="4 products, 1 chunk of scores",
            slug="decoupled_softmax",
        ),
        *of_paper(
            "Label Distributionally Robust Losses for Multi-class Classification: "
            "Consistency, Robustness and Adaptivity",
            "2112.14869",
            "ldr",
            DERIVED,
            (classification.aldr_lam,),
        ),
        *of_paper(
            "Label Distributionally Robust Losses for Multi-class Classification: "
            "Consistency, Robustness and Adaptivity",
            "2112.14869",
            "ldr",
            AUTHORS_CODE,
            (classification.init_aldr, classification.aldr_kl_step),
        ),
        *of_paper(
            "Rethinking Fine-Tuning when Scaling Test-Time Compute: "
            "Limiting Confidence Improves Mathematical Reasoning",
            "2502.07154",
            "dco",
            DERIVED,
            (
                classification.direct_coverage,
                classification.coverage,
                classification.coverage_nats,
                classification.coverage_weight,
            ),
        ),
        *of_paper(
            "Rethinking Fine-Tuning when Scaling Test-Time Compute: "
            "Limiting Confidence Improves Mathematical Reasoning",
            "2502.07154",
            "dco",
            DERIVED,
            (classification.pass_at_k,),
            "host",
        ),
        *of_paper(
            "Dice Loss for Data-imbalanced NLP Tasks",
            "1911.02855",
            "dice",
            AUTHORS_CODE,
            (classification.dice, classification.tversky, classification.hard_negative_mask),
        ),
        *of_paper(
            "AnyLoss: Transforming Classification Metrics into Loss Functions",
            "2405.14745",
            "anyloss",
            AUTHORS_CODE,
            (classification.anyloss, classification.soft_confusion_matrix),
        ),
        Method(
            name="grad_cache",
            function=heads.grad_cache,
            family="heads",
            title=("Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"),
            arxiv="2101.06983",
            evidence=DERIVED,
            cost="2 forward passes",
            slug="decoupled_softmax",
        ),
        Method(
            name="sampled_softmax",
            function=heads.sampled_softmax,
            family="heads",
            title=("On Using Very Large Target Vocabulary for Neural Machine Translation"),
            arxiv="1412.2007",
            evidence=DERIVED,
            cost="num_samples columns",
        ),
        *_costs(
            "Efficient Exact Gradient Update for training Deep Networks with Very Large Sparse "
            "Targets",
            "1412.7091",
            "z_loss",
            DERIVED,
            (
                ("d^2 a class", heads.spherical_init),
                ("16 d^2 flops an example", heads.spherical_step),
                ("an SVD of d x d", heads.spherical_stabilize),
            ),
        ),
        *_costs(
            "Revisiting Discriminative vs. Generative Classifiers: Theory and Implications",
            "2302.02334",
            "disc_vs_gen",
            AUTHORS_CODE,
            (
                ("", heads.gaussian_nb_init),
                ("3 products", heads.gaussian_nb_update),
                ("1 product", heads.gaussian_nb_logits),
                ("", heads.gaussian_nb_linear),
                ("2 products a step", heads.logistic_regression),
                ("host", consistency.samples_to_reach),
            ),
        ),
        *_costs(
            "DatasetEquity: Are All Samples Created Equal? In The Quest For Equity Within Datasets",
            "2308.09878",
            "dataset_equity",
            AUTHORS_CODE,
            (
                ("host", classification.cluster_likelihood),
                ("host", classification.embedding_likelihood),
                ("", classification.equity_weight),
                ("", classification.likelihood_weighted_focal),
            ),
        ),
        *_costs(
            "Incorporating Surrogate Gradient Norm to Improve Offline Optimization Techniques",
            "2503.04242",
            "ignite",
            DERIVED,
            (("3 gradients", optim.ignite), ("1 gradient", optim.surrogate_sharpness)),
        ),
        Method(
            name="sam",
            function=optim.sam,
            family="optim",
            title="Sharpness-Aware Minimization for Efficiently Improving Generalization",
            arxiv="2010.01412",
            evidence=AUTHORS_CODE,
            cost="2 gradients",
            slug="sam_family",
        ),
        Method(
            name="asam",
            function=optim.asam,
            family="optim",
            title=(
                "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep "
                "Neural Networks"
            ),
            arxiv="2102.11600",
            evidence=AUTHORS_CODE,
            cost="2 gradients",
            slug="sam_family",
        ),
        Method(
            name="sharpness",
            function=optim.sharpness,
            family="optim",
            title="Sharpness-Aware Minimization for Efficiently Improving Generalization",
            arxiv="2010.01412",
            evidence=AUTHORS_CODE,
            cost="1 gradient and 1 loss",
            slug="sam_family",
        ),
        *of_paper(
            "Surrogate Gap Minimization Improves Sharpness-Aware Training",
            "2203.08065",
            "sam_family",
            AUTHORS_CODE,
            (optim.gsam,),
            "2 gradients",
        ),
        *of_paper(
            "Penalizing Gradient Norm for Efficiently Improving Generalization in Deep Learning",
            "2202.03599",
            "sam_family",
            AUTHORS_CODE,
            (optim.gradient_norm_penalty,),
            "2 gradients",
        ),
        *of_paper(
            "Fisher SAM: Information Geometry and Sharpness Aware Minimisation",
            "2206.04920",
            "sam_family",
            DERIVED,
            (optim.fisher_sam,),
            "2 gradients",
        ),
        *of_paper(
            "Towards Efficient and Scalable Sharpness-Aware Minimization",
            "2203.02714",
            "sam_family",
            DERIVED,
            (optim.look_sam,),
            "1 + 1/k gradients",
        ),
        *SEVERAL_TASKS,
        *of_paper(
            "FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for Scalable "
            "Training",
            "2411.07837",
            "frugal",
            AUTHORS_CODE,
            (optim.frugal,),
            "1 gradient",
        ),
        *of_paper(
            "FRUGAL: Memory-Efficient Optimization by Reducing State Overhead for Scalable "
            "Training",
            "2411.07837",
            "frugal",
            DERIVED,
            (optim.optimizer_state_bytes,),
            "host",
        ),
        Method(
            name="pgd",
            function=adversarial.pgd,
            family="adversarial",
            title="Towards Deep Learning Models Resistant to Adversarial Attacks",
            arxiv="1706.06083",
            evidence=AUTHORS_CODE,
            cost="a gradient a step and restart",
            slug="adversarial_attacks",
        ),
        *_costs(
            "Reliable evaluation of adversarial robustness with an ensemble of diverse "
            "parameter-free attacks",
            "2003.01690",
            "adversarial_attacks",
            AUTHORS_CODE,
            (
                ("steps + 1 gradients", adversarial.apgd),
                ("steps + 1 gradients", adversarial.checkpoints),
                ("steps + 1 gradients", adversarial.dlr),
                ("host", adversarial.robust_accuracy),
            ),
        ),
        *of_paper(
            "Square Attack: a query-efficient black-box adversarial attack via random search",
            "1912.00049",
            "adversarial_attacks",
            AUTHORS_CODE,
            (adversarial.square, adversarial.window_shares),
            "queries + 1 forward passes",
        ),
        *of_paper(
            "Adversarial Weight Perturbation Helps Robust Generalization",
            "2004.05884",
            "adversarial_attacks",
            AUTHORS_CODE,
            (optim.awp_perturb,),
            "2 gradients",
        ),
        Method(
            name="maximize_score_displacement",
            function=adversarial.maximize_score_displacement,
            family="adversarial",
            title="Cross-Entropy Loss Functions: Theoretical Analysis and Applications",
            arxiv="2304.07288",
            evidence=DERIVED,
            cost="a gradient a step and restart",
            slug="comp_sum",
        ),
        *RUNS,
        *MEASURES,
        *THEORY,
    )
}
