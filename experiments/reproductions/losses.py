# SPDX-License-Identifier: Apache-2.0
"""What the run files about losses show, and what the papers claim of them.

No number of a run stands here. Those in a sentence are checked against the run file.
"""

from collections.abc import Mapping

from experiments.reproductions.claims import Claim, Panel, Reproduction, Tally, Versus, versus
from experiments.reproductions.views import Column, Quoted, View

_LOSS = ("loss.name",)
_ACCURACY = (Column("test accuracy, %", "test accuracy"),)

_MULTI_LABEL = Reproduction(
    tables=(
        View(
            "precision",
            "Precision at k, and weighted by propensity",
            (
                Column("P@1, %", "test precision 1"),
                Column("P@5, %", "test precision 5"),
                Column("PSP@1, %", "test propensity precision 1"),
                Column("PSP@5, %", "test propensity precision 5"),
            ),
            _LOSS,
            "validation precision 5",
            baseline="cross_entropy",
        ),
    ),
    claims=(
        Claim(
            "decoupled_softmax",
            "better than a softmax over all labels and than binary cross-entropy",
            (
                *versus("precision", "decoupled_softmax", "soft_cross_entropy", "P@1, %", "P@5, %"),
                *versus("precision", "decoupled_softmax", "cross_entropy", "P@1, %", "P@5, %"),
            ),
        ),
        Claim(
            "soft_top_k_loss",
            "optimises the top k",
            (
                *versus("precision", "soft_top_k_loss", "soft_cross_entropy", "P@5, %"),
                *versus("precision", "soft_top_k_loss", "decoupled_softmax", "P@5, %"),
            ),
        ),
    ),
    panels=(Panel("precision", "P@1, %"), Panel("precision", "P@5, %")),
)


#: A mean of a loss, by default cross-entropy; balanced: with weights of the classes.
_OBJECTIVES = {
    "mean": "cross_entropy",
    "mean, focal": "focal",
    "balanced": "cross_entropy, balanced",
}


def _imbalanced(heading: str) -> tuple[View, View]:
    by = ("task.objective", "loss.name", "task.metric", "task.steepness")
    return (
        View(
            heading,
            f"F1 on {heading}, each at the rate whose F1 on validation is best",
            (
                Column("F1, %", "test f1"),
                Column("F1 at a tuned threshold, %", "test f1 tuned"),
                Column("average precision, %", "test average precision"),
            ),
            by,
            "validation f1",
            heading=heading,
            names=_OBJECTIVES,
            baseline="cross_entropy",
        ),
        View(
            f"{heading}-balanced",
            f"Balanced accuracy on {heading}, each at the rate that is best for it on validation",
            (Column("balanced accuracy, %", "test balanced accuracy"),),
            by,
            "validation balanced accuracy",
            heading=heading,
            names=_OBJECTIVES,
            baseline="cross_entropy",
        ),
    )


def _noise(name: str, title: str, where: Mapping[str, str | None]) -> View:
    return View(
        name, title, _ACCURACY, _LOSS, "validation accuracy", where=where,
        across=("data.label_noise", "{:.0%} wrong"), baseline="cross_entropy",
    )  # fmt: skip


def _noise_claims(table: str) -> tuple[Claim, ...]:
    levels = ("30% wrong", "60% wrong")

    def over(loss: str) -> tuple[Versus, ...]:
        return versus(table, loss, "cross_entropy", *levels)

    others = versus(table, "aldr_kl", "generalized_cross_entropy", *levels)
    return (
        Claim("aldr_kl", "robust to wrong labels, the best of many", (*over("aldr_kl"), *others)),
        *(
            Claim(loss, "robust to wrong labels", over(loss))
            for loss in ("ldr_kl", "active_passive", "generalized_cross_entropy", "jensen_shannon")
        ),
    )


_DRAWS = tuple(Column(f"pass@{k}, %", f"test pass {k}") for k in (1, 4, 16, 64, 256))

LOSSES: dict[str, Reproduction] = {
    "adversarial_digits": Reproduction(
        tables=(
            View(
                "robust",
                "Accuracy under attack and without",
                (
                    Column("under PGD, %", "test robust accuracy"),
                    Column("clean, %", "test accuracy"),
                ),
                _LOSS,
                "validation robust accuracy",
                baseline="madry",
            ),
        ),
        claims=(
            Claim(
                "smooth_adversarial_comp_sum",
                "more robust than TRADES",
                versus("robust", "smooth_adversarial_comp_sum", "trades", "under PGD, %"),
                versus("robust", "smooth_adversarial_comp_sum", "madry", "under PGD, %"),
            ),
        ),
        panels=(Panel("robust", "under PGD, %"), Panel("robust", "clean, %")),
    ),
    "adversarial_fashion": Reproduction(
        tables=(
            View(
                "robust",
                "Accuracy under attack and without",
                (
                    Column("worst case, %", "test worst case accuracy"),
                    Column("under PGD, %", "test robust accuracy"),
                    Column("clean, %", "test accuracy"),
                ),
                _LOSS,
                "validation robust accuracy",
                baseline="madry",
            ),
        ),
        claims=(
            Claim(
                "smooth_adversarial_comp_sum",
                "more robust than TRADES",
                versus(
                    "robust",
                    "smooth_adversarial_comp_sum",
                    "trades",
                    "worst case, %",
                    "under PGD, %",
                ),
            ),
            Claim(
                "trades",
                "more robust than adversarial training as Madry et al. do it",
                versus("robust", "trades", "madry", "worst case, %", "under PGD, %"),
                versus("robust", "trades", "madry", "clean, %"),
            ),
            Claim(
                "mart",
                "more robust than adversarial training as Madry et al. do it",
                versus("robust", "mart", "madry", "worst case, %", "under PGD, %"),
            ),
        ),
        panels=(Panel("robust", "worst case, %"), Panel("robust", "clean, %")),
    ),
    "bibtex": _MULTI_LABEL,
    "delicious": _MULTI_LABEL,
    "comp_sum_tau": Reproduction(
        tables=tuple(
            View(
                name,
                f"{heading}: accuracy over tau",
                _ACCURACY,
                ("loss.tau",),
                "validation accuracy",
                heading=heading,
                baseline="tau 1.0",
            )
            for name, heading in (("digits", "digits"), ("omniglot", "Omniglot"))
        ),
        claims=(
            Claim(
                "comp_sum",
                "tau above 1 suffers with many classes (cross-entropy is tau 1)",
                versus("omniglot", "tau 1.0", "tau 2.0", "test accuracy, %"),
                (
                    *versus("omniglot", "tau 1.0", "tau 1.5", "test accuracy, %"),
                    *versus("digits", "tau 1.0", "tau 2.0", "test accuracy, %"),
                ),
            ),
        ),
        panels=(Panel("digits", "test accuracy, %"), Panel("omniglot", "test accuracy, %")),
    ),
    "ensloss_tabular": Reproduction(
        tables=(
            Quoted("wins", "Problems won, tied and lost by EnsLoss", "ensloss against"),
            Quoted("problems", "Test accuracy on each problem", "problem"),
        ),
        claims=(
            Claim(
                "ensloss",
                "better than fixed losses on most problems",
                tuple(
                    Tally("wins", row)
                    for row in ("cross_entropy", "margin_loss exponential", "margin_loss hinge")
                ),
            ),
        ),
    ),
    "excess": Reproduction(
        tables=tuple(
            Quoted(name, f"{title}: the bound and what it bounds", "loss", place, keys=2)
            for place, (name, title) in enumerate(
                {"digits": "Digits", "breast-cancer": "Breast cancer"}.items()
            )
        ),
    ),
    "imbalanced": Reproduction(
        tables=(*_imbalanced("mammography"), *_imbalanced("oil-spill")),
        claims=tuple(
            Claim(
                method,
                "a better F1 than cross-entropy where positives are rare",
                tuple(
                    Versus(heading, "F1, %", row, "cross_entropy")
                    for heading in ("mammography", "oil-spill")
                ),
                tuple(
                    Versus(heading, column, row, "cross_entropy")
                    for heading in ("mammography", "oil-spill")
                    for column in ("F1 at a tuned threshold, %", "average precision, %")
                ),
            )
            for method, row in (
                ("dice", "dice"),
                ("anyloss", "anyloss, f_beta, steepness 10.0"),
            )
        ),
        panels=(
            Panel("mammography", "F1, %"),
            Panel("mammography", "F1 at a tuned threshold, %"),
            Panel("mammography", "average precision, %"),
        ),
    ),
    "label_noise": Reproduction(
        tables=(_noise("noise", "Test accuracy in %, by how many labels are wrong", {}),),
        claims=(
            *_noise_claims("noise"),
            Claim(
                "truncated_generalized_cross_entropy",
                "robust to wrong labels",
                versus(
                    "noise",
                    "truncated_generalized_cross_entropy",
                    "cross_entropy",
                    "30% wrong",
                    "60% wrong",
                ),
            ),
        ),
        panels=tuple(Panel("noise", f"{level}% wrong") for level in (0, 30, 60)),
    ),
    "label_noise_fashion": Reproduction(
        tables=(
            _noise(
                "one-rate",
                "Test accuracy in %, by how many labels are wrong, all losses at "
                "the one learning rate that all were given",
                {"optimizer.learning_rate": "0.001"},
            ),
            _noise(
                "noise",
                "As above, with the second rate that only losses without a "
                "hyperparameter were given",
                {},
            ),
        ),
        claims=_noise_claims("one-rate"),
        panels=tuple(Panel("one-rate", f"{level}% wrong") for level in (0, 30, 60)),
    ),
    "pass_at_n": Reproduction(
        tables=(
            View(
                "one-rate",
                "Correct within k draws, all trained at one learning rate",
                _DRAWS,
                ("task.num_samples",),
                "validation pass own",
                where={"optimizer.learning_rate": "0.001"},
                baseline="num_samples 1",
            ),
            View(
                "own-rate",
                "Each at the rate whose pass@N for its own N is best on validation",
                _DRAWS,
                ("task.num_samples",),
                "validation pass own",
                baseline="num_samples 1",
            ),
        ),
        claims=(
            Claim(
                "direct_coverage",
                "trained for N draws, best at about N draws",
                tuple(
                    Versus("one-rate", f"pass@{n}, %", f"num_samples {n}", "num_samples 1")
                    for n in (4, 16, 64, 256)
                ),
            ),
        ),
        panels=tuple(Panel("one-rate", f"pass@{k}, %") for k in (1, 4, 16, 64)),
    ),
    "sample_complexity": Reproduction(
        tables=(
            Quoted(
                "simulation",
                "Examples needed to come within the error given in the run file, by features",
                "features",
                less=True,
                turned=True,
                baseline="m of logistic regression, mean",
            ),
            *(
                Quoted(
                    name,
                    f"{name}: test error in %, by examples a class",
                    "examples a class",
                    place,
                    less=True,
                    turned=True,
                    baseline="logistic regression, error in %",
                )
                for place, name in enumerate(("digits", "fashion-mnist"))
            ),
        ),
        claims=(
            Claim(
                "gaussian_nb_logits",
                "naive Bayes needs far fewer examples, and is ahead with few",
                (
                    *versus(
                        "simulation",
                        "m of naive Bayes, seeds",
                        "m of logistic regression, seeds",
                        "20",
                        "400",
                    ),
                    *versus(
                        "digits",
                        "naive Bayes, error in %",
                        "logistic regression, error in %",
                        "1",
                        "10",
                    ),
                ),
                also=("logistic_regression",),
            ),
        ),
    ),
}
