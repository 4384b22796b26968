# SPDX-License-Identifier: Apache-2.0
"""What RESULTS.md shows: for each committed run file its tables, claims and pictures.

`tables` reads run files as `views` ask, `claims` has the vocabulary, `losses` and `training` the
entries, `decisions` the questions that a reader comes with and `answers` their answers; `sources`
reads configs, `sentences` checks numbers in words, `pages` and `pictures` write it all down.
"""

from experiments.reproductions.losses import LOSSES
from experiments.reproductions.training import TRAINING

#: Name of a run file without its ending -> what to show of it.
REPRODUCTIONS = LOSSES | TRAINING
