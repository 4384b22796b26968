# SPDX-License-Identifier: Apache-2.0
"""What the run files about optimizers, schedules and output layers show, as in `losses.py`."""

from experiments.reproductions.claims import Claim, Panel, Reproduction, versus
from experiments.reproductions.views import Column, Quoted, View

_WORDS = tuple(
    Column(f"not in the first {k}, %", f"test error {k}", True) for k in (1, 5, 10, 20, 50)
)
_Z_LOSS = "Z-loss, a 0.1, b 28"
_PLAIN = "log_partition=0.0, qk_norm=False"
_SIDES = ("left %", "right %")

TRAINING: dict[str, Reproduction] = {
    "char_lm": Reproduction(
        tables=(
            View(
                "optimizers",
                "Nats per character, and bytes of the optimizer's state",
                (
                    Column("test loss", "test loss", True),
                    Column("bytes of state", "test optimizer state bytes", True),
                ),
                ("optimizer.name", "optimizer.density", "optimizer.state_free"),
                "-validation loss",
                where={"steps": None, "optimizer.schedule": None},
                baseline="adamw",
            ),
            View(
                "schedules",
                "Nats per character where a schedule ends",
                (Column("test loss", "test loss", True),),
                ("optimizer.schedule",),
                "-validation loss",
                where={"optimizer.name": None, "task.log_partition": None},
                across=("steps", "{:g} steps"),
                baseline="cosine",
            ),
            Quoted(
                "sensitivity",
                "Validation loss over the learning rate, and what a wrong one costs",
                "setting",
                place=1,
                less=True,
                baseline=_PLAIN,
            ),
        ),
        claims=(
            Claim(
                "frugal",
                "close to AdamW with moments for a quarter, ahead of freezing the rest",
                (
                    *versus("optimizers", "frugal", "frugal, state_free none", "test loss"),
                    *versus("optimizers", "frugal", "frugal, density 0.0", "test loss"),
                ),
                versus("optimizers", "frugal", "adamw", "test loss", "bytes of state"),
            ),
            Claim(
                "wsd_s",
                "ahead of branches of a WSD run, as good as a cosine for each end",
                (
                    *versus("schedules", "wsd_s", "wsd", "400 steps", "800 steps"),
                    *versus("schedules", "wsd_s", "cosine", "200 steps", "400 steps", "800 steps"),
                ),
            ),
            Claim(
                "log_partition_penalty",
                "makes training less sensitive to the learning rate",
                versus(
                    "sensitivity",
                    "log_partition=0.0001, qk_norm=False",
                    _PLAIN,
                    "sensitivity",
                ),
                versus(
                    "sensitivity",
                    "log_partition=0.0, qk_norm=True",
                    _PLAIN,
                    "sensitivity",
                ),
            ),
        ),
        curves=("sensitivity", "learning rate", "validation loss"),
    ),
    "harmonic_fashion": Reproduction(
        tables=(
            View(
                "heads",
                "Test accuracy and cross-entropy of each output layer",
                (
                    Column("test accuracy, %", "test accuracy"),
                    Column("test cross-entropy", "test cross-entropy", True),
                ),
                ("model.head", "model.distance"),
                "validation accuracy",
                baseline="linear",
            ),
        ),
        claims=(
            Claim(
                "pairwise_distance",
                "cosine has the best trade-off of accuracy and emissions (accuracy alone here)",
                versus("heads", "cosine", "linear", "test accuracy, %"),
                versus("heads", "cosine", "euclidean", "test accuracy, %"),
            ),
        ),
        panels=(Panel("heads", "test accuracy, %"),),
    ),
    "harmonic_modular_addition": Reproduction(
        tables=(
            View(
                "heads",
                "Every head at every rate: accuracy, and how concentrated the embedding is",
                (
                    Column("first two components explain, %", "test explained variance 2"),
                    Column("test accuracy, %", "test accuracy"),
                    Column("effective rank", "test effective rank", True),
                ),
                ("model.head", "model.distance", "model.exponent", "optimizer.learning_rate"),
                "validation accuracy",
                baseline="dot_product, learning_rate 0.006",
            ),
        ),
        claims=(
            Claim(
                "harmonic",
                "two principal components explain nearly all, and no grokking (steps are not in "
                "the run file)",
                tuple(
                    part
                    for rate in ("0.002", "0.006")
                    for part in versus(
                        "heads",
                        f"exponent 1.0, learning_rate {rate}",
                        f"dot_product, learning_rate {rate}",
                        "first two components explain, %",
                    )
                ),
                also=("harmonic_logits",),
            ),
        ),
        panels=(Panel("heads", "first two components explain, %"),),
    ),
    "multi_task_fashion": Reproduction(
        tables=(
            Quoted(
                "methods",
                "Accuracy of both tasks, conflicts, and the change against single tasks",
                "method",
                baseline="plain linear",
            ),
        ),
        claims=(
            Claim(
                "sam_multitask",
                "splitting is better than the aggregator alone and than aggregating SAM gradients",
                (
                    *versus("methods", "split mgda", "direct mgda", "Delta-m %"),
                    *versus("methods", "split cagrad", "direct cagrad", "Delta-m %"),
                    *versus("methods", "split mgda", "plain mgda", "Delta-m %"),
                ),
                versus("methods", "plain mgda", "single tasks", *_SIDES),
            ),
        ),
        panels=(Panel("methods", "Delta-m %"),),
    ),
    "noisy_fashion_sam": Reproduction(
        tables=(
            View(
                "sharpness",
                "Test accuracy, and how many wrong training labels are learnt by heart",
                (
                    Column("test accuracy, %", "test accuracy"),
                    Column("training accuracy, %", "test train accuracy"),
                ),
                ("optimizer.sharpness",),
                "validation accuracy",
                otherwise="sgd",
                baseline="sgd",
            ),
        ),
        claims=(
            Claim(
                "sam",
                "better than SGD, and robust to wrong labels",
                versus("sharpness", "sam", "sgd", "test accuracy, %"),
            ),
            Claim(
                "asam", "better than SAM", versus("sharpness", "asam", "sam", "test accuracy, %")
            ),
            Claim(
                "gsam", "better than SAM", versus("sharpness", "gsam", "sam", "test accuracy, %")
            ),
            Claim(
                "look_sam",
                "as good as SAM at a fraction of its price",
                versus("sharpness", "look_sam", "sam", "test accuracy, %"),
                versus("sharpness", "look_sam", "sgd", "test accuracy, %"),
            ),
        ),
        panels=(Panel("sharpness", "test accuracy, %"),),
    ),
    "tf_bind_8": Reproduction(
        tables=(
            View(
                "designs",
                "True scores of the designs found, at three percentiles, and the surrogate's "
                "sharpness",
                (
                    Column("score at 100", "test score 100"),
                    Column("score at 80", "test score 80"),
                    Column("score at 50", "test score 50"),
                    Column("gradient norm", "validation sharpness norm", True),
                ),
                ("task.method", "task.adapt"),
                "-validation loss",
                baseline="gradient_ascent",
            ),
        ),
        claims=(
            Claim(
                "ignite",
                "finds better designs than the same method without it",
                versus(
                    "designs",
                    "ignite",
                    "gradient_ascent",
                    "score at 100",
                    "score at 80",
                    "score at 50",
                ),
                versus("designs", "ignite", "gradient_ascent", "gradient norm"),
            ),
        ),
        panels=(Panel("designs", "score at 100"), Panel("designs", "score at 50")),
    ),
    "wikitext_zloss": Reproduction(
        tables=(
            View(
                "words",
                "How often the test word is not among the first k (settings were chosen with one "
                "seed: the run file's tuning tables)",
                _WORDS,
                ("task.output", "loss.a", "loss.b"),
                "-validation error 10",
                names={
                    "streaming": "cross-entropy",
                    "sampled": "sampled softmax",
                    "spherical, a 0.1, b 28.0": "Z-loss, a 0.1, b 28",
                    "spherical, a 0.5, b 10.0": "Z-loss, a 0.5, b 10",
                },
                baseline="cross-entropy",
            ),
        ),
        claims=(
            Claim(
                "z_loss",
                "better than the log-softmax on top k for k above 1",
                versus(
                    "words",
                    _Z_LOSS,
                    "cross-entropy",
                    *(column.title for column in _WORDS[1:]),
                ),
                versus("words", _Z_LOSS, "cross-entropy", _WORDS[0].title),
            ),
        ),
        panels=tuple(Panel("words", _WORDS[i].title) for i in (0, 2, 4)),
    ),
}
