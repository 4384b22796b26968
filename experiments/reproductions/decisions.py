# SPDX-License-Identifier: Apache-2.0
"""Which loss to use, for the questions that a reader comes with, answered by the tables alone.

A question names tables and the row that everything else has to beat. What is ahead of it, behind
it, or neither, is counted over the named columns; so is the answer "nothing beat it here".
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Where:
    """Columns of a table of a run file, and the row to beat there.

    Attributes:
      file: name of the run file.
      table: of it.
      columns: to count over; () for all.
      baseline: row to beat.
      only: the rows to compare with it; () for all others.
      turned: rows and columns change places first: the table has a row for every problem.
    """

    file: str
    table: str
    columns: tuple[str, ...]
    baseline: str
    only: tuple[str, ...] = ()
    turned: bool = False


@dataclasses.dataclass(frozen=True)
class Decision:
    """A question and where its answer is.

    Attributes:
      question: what the reader has.
      usual: what is done without an answer: the baseline's name in words.
      where: the tables; () where nothing was measured, which the answer then says.
      but: what the tables do not say; no numbers of a run.
    """

    question: str
    usual: str
    where: tuple[Where, ...]
    but: str = ""


_AT_30 = ("30% wrong",)
_AT_60 = ("60% wrong",)
_REGRESSION = "logistic regression, error in %"


def _noise(columns: tuple[str, ...]) -> tuple[Where, ...]:
    return (
        Where("label_noise", "noise", columns, "cross_entropy"),
        Where("label_noise_fashion", "one-rate", columns, "cross_entropy"),
    )


DECISIONS = (
    Decision(
        "Right labels, balanced classes",
        "cross-entropy",
        (
            *_noise(("0% wrong",)),
            Where("comp_sum_tau", "digits", ("test accuracy, %",), "tau 1.0"),
            Where("comp_sum_tau", "omniglot", ("test accuracy, %",), "tau 1.0"),
        ),
        "ALDR-KL's lead is at a rate at which cross-entropy is not at its best: with its own it is "
        "ahead of all.",
    ),
    Decision(
        "A third of the labels wrong",
        "cross-entropy",
        _noise(_AT_30),
        "On Fashion-MNIST cross-entropy at a second rate, which the others were not given, is as "
        "good as any.",
    ),
    Decision("Most labels wrong", "cross-entropy", _noise(_AT_60)),
    Decision(
        "Wrong labels, and twice the time for a step",
        "SGD that ends early",
        (Where("noisy_fashion_sam", "sharpness", ("test accuracy, %",), "sgd"),),
        "One data set; the gain is under a point.",
    ),
    Decision(
        "Rare positives, F1 at probability 1/2",
        "cross-entropy",
        (
            Where("imbalanced", "mammography", ("F1, %",), "cross_entropy"),
            Where("imbalanced", "oil-spill", ("F1, %",), "cross_entropy"),
        ),
        "`anyloss` is ahead on one of the two tables. Tune the threshold instead, see below.",
    ),
    Decision(
        "Rare positives, a threshold tuned on validation, or a ranking",
        "cross-entropy",
        tuple(
            Where(
                "imbalanced",
                heading,
                ("F1 at a tuned threshold, %", "average precision, %"),
                "cross_entropy",
            )
            for heading in ("mammography", "oil-spill")
        ),
    ),
    Decision(
        "Rare positives, balanced accuracy",
        "cross-entropy",
        tuple(
            Where("imbalanced", f"{heading}-balanced", ("balanced accuracy, %",), "cross_entropy")
            for heading in ("mammography", "oil-spill")
        ),
        "`balanced`: with weights of the classes.",
    ),
    Decision(
        "Two classes, small tables",
        "cross-entropy",
        (Where("ensloss_tabular", "problems", (), "cross_entropy", turned=True),),
        "Most of these problems show no difference.",
    ),
    Decision(
        "Few examples of each class",
        "logistic regression",
        tuple(
            Where("sample_complexity", data, ("1", "2", "5", "10"), _REGRESSION)
            for data in ("digits", "fashion-mnist")
        ),
        "Pixels; features of a pre-trained network were not tried.",
    ),
    Decision("A long tail of many classes", "cross-entropy", ()),
    Decision(
        "Several labels an example, precision at 1",
        "binary cross-entropy",
        tuple(
            Where(file, "precision", ("P@1, %", "PSP@1, %"), "cross_entropy")
            for file in ("bibtex", "delicious")
        ),
        "Seed by seed `decoupled_softmax` is ahead of it by a little on both (in the configs).",
    ),
    Decision(
        "Several labels an example, instead of a softmax over all labels",
        "the softmax",
        tuple(
            Where(file, "precision", ("P@1, %", "P@5, %"), "soft_cross_entropy")
            for file in ("bibtex", "delicious")
        ),
    ),
    Decision(
        "Several labels an example, precision at 5",
        "binary cross-entropy",
        tuple(
            Where(file, "precision", ("P@5, %", "PSP@5, %"), "cross_entropy")
            for file in ("bibtex", "delicious")
        ),
    ),
    Decision(
        "Large vocabulary, the first word",
        "cross-entropy",
        (Where("wikitext_zloss", "words", ("not in the first 1, %",), "cross-entropy"),),
        "The spherical layer's step does not grow with the vocabulary (BENCHMARKS.md).",
    ),
    Decision(
        "Large vocabulary, the first 5 to 50",
        "cross-entropy",
        (
            Where(
                "wikitext_zloss",
                "words",
                tuple(f"not in the first {k}, %" for k in (5, 10, 20, 50)),
                "cross-entropy",
            ),
        ),
        "One small text; (a, b) of the Z-loss is a choice of k.",
    ),
    Decision(
        "Attacks, from cross-entropy on clean pictures",
        "cross-entropy",
        (
            Where("adversarial_digits", "robust", ("under PGD, %",), "cross_entropy"),
            Where("adversarial_fashion", "robust", ("worst case, %",), "cross_entropy"),
        ),
    ),
    Decision(
        "Attacks, from adversarial training (`madry`)",
        "adversarial training",
        (
            Where("adversarial_digits", "robust", ("under PGD, %",), "madry"),
            Where("adversarial_fashion", "robust", ("worst case, %",), "madry"),
        ),
        "Small models and short training: larger ones may order them otherwise.",
    ),
    Decision(
        "Several tasks, one network",
        "the sum of the losses",
        (Where("multi_task_fashion", "methods", ("Delta-m %",), "plain linear"),),
    ),
    Decision(
        "Several tasks, and room for a network each",
        "a network for each task",
        (Where("multi_task_fashion", "methods", ("left %", "right %"), "single tasks"),),
    ),
    Decision(
        "Few bytes of optimizer state",
        "freezing what has no moments",
        (
            Where("char_lm", "optimizers", ("test loss",), "frugal, state_free none", ("frugal",)),
            Where("char_lm", "optimizers", ("bytes of state",), "adamw", ("frugal",)),
        ),
        "AdamW itself is ahead of it, see below.",
    ),
    Decision(
        "Enough bytes for AdamW",
        "AdamW",
        (Where("char_lm", "optimizers", ("test loss",), "adamw"),),
    ),
    Decision(
        "A learning rate that cannot be tuned",
        "nothing beside cross-entropy",
        (Where("char_lm", "sensitivity", ("sensitivity",), "log_partition=0.0, qk_norm=False"),),
        "Normalised queries and keys, no loss.",
    ),
    Decision(
        "Many answers drawn, one must be right",
        "cross-entropy (`num_samples 1`)",
        (
            Where(
                "pass_at_n", "one-rate", ("pass@16, %", "pass@64, %", "pass@256, %"),
                "num_samples 1",
            ),
        ),
        "`direct_coverage` for N draws; choose N about as large as the number of draws.",
    ),
    Decision(
        "One answer or four drawn",
        "cross-entropy (`num_samples 1`)",
        (Where("pass_at_n", "own-rate", ("pass@1, %",), "num_samples 1"),
         Where("pass_at_n", "one-rate", ("pass@4, %",), "num_samples 1")),
    ),
    Decision(
        "An output layer that can be read",
        "a linear layer",
        (Where("harmonic_fashion", "heads", ("test accuracy, %",), "linear"),),
        "Accuracy alone was measured on pictures.",
    ),
    Decision(
        "Designs beyond the data",
        "gradient ascent",
        (
            Where(
                "tf_bind_8", "designs", ("score at 100", "score at 80", "score at 50"),
                "gradient_ascent",
            ),
        ),
    ),
)  # fmt: skip
