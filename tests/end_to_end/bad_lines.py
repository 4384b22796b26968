# SPDX-License-Identifier: Apache-2.0
"""Wrong command lines of `python -m experiments.run`, and what each one's single line must say."""

SOUND = "{digits} {run}"

#: name -> (command line, what its one line must say). {tmp} is a directory that a fixture fills.
WHOLE: dict[str, tuple[str, list[str]]] = {
    "no config": ("{run}", ["--config", "expected", "--config=digits"]),
    "config without a value": ("{run} --config", ["--config", "expected"]),
    "overrides before the config": (
        "--config.steps=0 {digits} {run}",
        ["--config.steps", "[1, 2**31)", "got 0"],
    ),
    "config empty": ("{run} --config=", ["--config", "expected"]),
    "no workdir": ("{digits}", ["--workdir", "expected a directory"]),
    "no flagfile": ("--flagfile={tmp}/none", ["none"]),
    "unknown shipped config": ("--config=digit {run}", ["--config", "digits", "'digit'"]),
    "no such config file": ("--config={tmp}/none.py {run}", ["--config", "none.py"]),
    "config is a directory": ("--config={tmp} {run}", ["--config", "expected"]),
    "syntax error": ("--config={tmp}/syntax.py {run}", ["--config", "syntax.py", "SyntaxE"]),
    "config that raises": ("--config={tmp}/raises.py {run}", ["raises.py", "no such thing"]),
    "no get_config": ("--config={tmp}/without.py {run}", ["without.py", "get_config"]),
    "get_config of something else": ("--config={tmp}/list.py {run}", ["list.py", "ConfigDict"]),
    "unknown key in the file": ("--config={tmp}/typo.py {run}", ["optimizer.rate", "no such"]),
    "unknown variant": ("--config=digits:fast {run}", ["--config", "quick", "'fast'"]),
    "workdir is a file": ("{digits} --workdir={tmp}/empty.csv", ["--workdir", "empty.csv"]),
    "workdir below a file": ("{digits} --workdir={tmp}/empty.csv/run", ["--workdir", "empty.csv"]),
    "workdir that cannot be written": ("{digits} --workdir=/proc/run", ["--workdir", "/proc/run"]),
    "workdir with a broken config": (
        "{digits} --workdir={tmp}/broken",
        ["--workdir", "config.json", "--overwrite"],
    ),
    "workdir of another config": (
        "{digits} --workdir={tmp}/foreign",
        ["--workdir", "seed: 7 there, 0 here", "--overwrite"],
    ),
    "dry run of a bad config": (
        "{digits} --dry_run --config.steps=0",
        ["--config.steps", "[1, 2**31)"],
    ),
    "compiling a bad config": (
        "{digits} --mode=compile --config.loss.name=foca",
        ["--config.loss.name", "'focal'"],
    ),
    "a section that is none": (
        "--config={tmp}/flat.py {run}",
        ["--config.loss", "ConfigDict", "'focal'"],
    ),
    "evaluating an empty config": (
        "--workdir={tmp}/void --mode=eval",
        ["--config.data", "expected"],
    ),
    "exporting a list": ("--workdir={tmp}/list --mode=export", ["--workdir", "config.json"]),
    "config that ends the program": ("--config={tmp}/exits.py {run}", ["exits.py", "SystemExit"]),
    "config that raises lines": ("--config={tmp}/lines.py {run}", ["lines.py", "one two"]),
    "config that imports nothing": (
        "--config={tmp}/imports.py {run}",
        ["imports.py", "No module named 'no_such_module'"],
    ),
    "get_config of three arguments": ("--config={tmp}/three.py {run}", ["three.py", "'a', 'b'"]),
    "get_config is a number": ("--config={tmp}/number.py {run}", ["number.py", "not callable"]),
    "config is no text": ("--config={tmp}/bytes.py {run}", ["bytes.py", "SyntaxError"]),
    "config without a key": ("--config={tmp}/no_steps.py {run}", ["--config.steps", "got nothing"]),
    "config without a section": (
        "--config={tmp}/no_model.py {run}",
        ["--config.model", "expected a ConfigDict", "None"],
    ),
    "loss without a name": (
        "--config={tmp}/no_name.py {run}",
        ["--config.loss", "expected a loss with a 'name'"],
    ),
    "truth for a number": (
        "--config={tmp}/truth.py {run}",
        ["--config.steps", "an integer", "got True"],
    ),
    "text for a number": ("--config={tmp}/text.py {run}", ["--config.steps", "got '100'"]),
    "a number left open": (
        "--config={tmp}/open.py {run}",
        ["--config.data.batch_size", "an integer", "got None"],
    ),
    "key of no section in the file": ("--config={tmp}/extra.py {run}", ["--config.extra", "known"]),
    "NaN in the file": (
        "--config={tmp}/nan.py {run}",
        ["--config.optimizer.weight_decay", ">= 0", "got nan"],
    ),
    "no npz file of several labels": ("--config=bibtex {run}", ["--config.data.path", "got none"]),
    "npz file that is missing": (
        "--config=bibtex {run} --config.data.path={tmp}/none.npz",
        ["--config.data.path", "none.npz"],
    ),
    "damaged npz file": (
        "--config=bibtex {run} --config.data.path={tmp}/damaged.npz",
        ["damaged.npz", "cannot be read as npz"],
    ),
    "npz file of something else": (
        "--config=bibtex {run} --config.data.path={tmp}/other.npz",
        ["other.npz", "train_indptr"],
    ),
    "text that is none": (
        "--config=char_lm {run} --config.data.path={tmp}/bytes.csv",
        ["bytes.csv", "UTF-8"],
    ),
    "heads that do not divide": (
        "--config=char_lm {run} --config.model.heads=5",
        ["--config.model.heads", "divisor of the width 64", "got 5"],
    ),
    "window longer than the text": (
        "--config=char_lm {run} --config.task.context=100000",
        ["--config.task.context", "less than", "got 100000"],
    ),
}
#: The same, for what is wrong in a line that would be sound without it.
ADDED: dict[str, tuple[str, list[str]]] = {
    "unknown task": (
        "--config.task.name=clasification",
        ["--config.task.name", "did you mean 'classification'"],
    ),
    "unknown flag": ("--max_step=3", ["max_step", "max_steps"]),
    "unknown mode": ("--mode=test", ["mode", "train", "test"]),
    "a machine without compiling": (
        "--topology=v5e:2x4",
        ["--topology", "expected --mode=compile", "--mode=train"],
    ),
    "a machine that nobody makes": (
        "--mode=compile --topology=v5:2x4",
        ["--topology", "did you mean 'v5e:2x4'"],
    ),
    "positional": ("extra", ["expected flags only", "extra"]),
    "steps to stop after": ("--max_steps=0", ["max_steps", "0"]),
    "stop after words": ("--max_steps=many", ["max_steps", "many"]),
    "negative seed": ("--seed=-1", ["seed", "-1"]),
    "seed too large": ("--seed=4294967296", ["seed", "4294967296"]),
    "switch with a number": ("--profile=7", ["profile", "7"]),
    "process without the others": (
        "--process_id=0",
        ["--coordinator_address", "--num_processes", "all three"],
    ),
    "a cluster to find out, and none there": (
        "--coordinator_address=auto",
        ["--coordinator_address", "expected host:port", "'auto'"],
    ),
    "process out of range": (
        "--coordinator_address=localhost:1 --num_processes=2 --process_id=2",
        ["--process_id", "0 to 1", "got 2"],
    ),
    "coordinator without a port": (
        "--coordinator_address=localhost --num_processes=2 --process_id=0",
        ["--coordinator_address", "host:port", "localhost"],
    ),
    "a port of nobody": (
        "--coordinator_port=8476",
        ["--coordinator_port", "expected --coordinator_address=auto", "got none"],
    ),
    "two ports": (
        "--coordinator_port=1 --coordinator_address=localhost:1 --num_processes=2 --process_id=0",
        ["--coordinator_port", "without a port", "localhost:1"],
    ),
    "no such port": ("--coordinator_port=65536", ["coordinator_port", "65536"]),
    "unknown key": ("--config.step=3", ["--config.step", "'steps'"]),
    "unknown data key": ("--config.data.batchsize=8", ["--config.data.batchsize", "batch_size"]),
    "unknown loss key": ("--config.loss.tua=1", ["--config.loss.tua", "loss.tau"]),
    "unknown model key": ("--config.model.width=3", ["--config.model.width", "no such key"]),
    "unknown optimizer key": ("--config.optimizer.lr=3", ["--config.optimizer.lr", "no such key"]),
    "key of a leaf": ("--config.steps.x=3", ["--config.steps.x", "no such key"]),
    "a whole section": ("--config.loss=focal", ["--config.loss", "focal"]),
    "steps in words": ("--config.steps=abc", ["--config.steps", "integer", "abc"]),
    "half a step": ("--config.steps=1.5", ["--config.steps", "integer", "1.5"]),
    "no steps": ("--config.steps=0", ["--config.steps", "[1, 2**31)", "got 0"]),
    "never log": ("--config.log_every=0", ["--config.log_every", ">= 1"]),
    "never evaluate": ("--config.eval_every=-5", ["--config.eval_every", ">= 1"]),
    "keep nothing": ("--config.keep_checkpoints=0", ["--config.keep_checkpoints", ">= 1"]),
    "skip in other words": ("--config.on_nan=skp", ["--config.on_nan", "did you mean 'skip'"]),
    "skip nothing": ("--config.max_skipped=0", ["--config.max_skipped", ">= 1", "got 0"]),
    "keep every step before the first": ("--config.keep_every=-1", ["keep_every", ">= 0", "-1"]),
    "best checkpoints that are never evaluated": (
        "--config.keep_best=1 --config.eval_every=20 --config.checkpoint_every=30",
        ["--config.keep_best", "divide one another", "30 and 20"],
    ),
    "best is neither": ("--config.best_is=high", ["--config.best_is", "did you mean 'highest'"]),
    "negative rate": (
        "--config.optimizer.learning_rate=-1",
        ["--config.optimizer.learning_rate", "> 0", "-1"],
    ),
    "rate is no number": (
        "--config.optimizer.learning_rate=nan",
        ["--config.optimizer.learning_rate", "> 0", "nan"],
    ),
    "rate in words": (
        "--config.optimizer.learning_rate=high",
        ["--config.optimizer.learning_rate", "a number", "high"],
    ),
    "momentum": ("--config.optimizer.momentum=1", ["--config.optimizer.momentum", "[0, 1)"]),
    "unknown optimizer": (
        "--config.optimizer.name=adamm",
        ["--config.optimizer.name", "sgd", "did you mean 'adam"],
    ),
    "unknown schedule": (
        "--config.optimizer.schedule=cosin",
        ["--config.optimizer.schedule", "did you mean 'cosine'"],
    ),
    "all warm-up": (
        "--config.optimizer.warmup_steps=60",
        ["--config.optimizer.warmup_steps", "less than", "60"],
    ),
    "unknown loss": (
        "--config.loss.name=compsum",
        ["--config.loss.name", "did you mean 'comp_sum'"],
    ),
    "loss of another kind of labels": (
        "--config.loss.name=soft_cross_entropy",
        ["--config.loss.name", "integer labels", "soft_cross_entropy"],
    ),
    "hyperparameter of another loss": (
        "--config.loss.tau=0.5",
        ["--config.loss.tau", "cross_entropy"],
    ),
    "hyperparameter out of range": (
        "--config.loss.name=comp_sum --config.loss.tau=-1",
        ["--config.loss.tau", "[0, inf)", "-1"],
    ),
    "hyperparameter in words": (
        "--config.loss.name=comp_sum --config.loss.tau=half",
        ["--config.loss.tau", "a number", "half"],
    ),
    "unknown surrogate": (
        "--config.loss.name=margin_loss --config.loss.surrogate=hinges",
        ["--config.loss.surrogate", "did you mean 'hinge'"],
    ),
    "surrogate's range": (
        "--config.loss.name=margin_loss --config.loss.surrogate=rho_margin --config.loss.rho=0",
        ["--config.loss.rho", "(0, inf)"],
    ),
    "unknown model": ("--config.model.name=mpl", ["--config.model.name", "'mlp'"]),
    "no hidden units": ("--config.model.hidden=(0,)", ["--config.model.hidden", "> 0"]),
    "half a hidden unit": ("--config.model.hidden=(1.5,)", ["--config.model.hidden", "integers"]),
    "unknown activation": ("--config.model.activation=relo", ["--config.model.activation", "relu"]),
    "all dropped": ("--config.model.dropout=1", ["--config.model.dropout", "[0, 1)"]),
    "unknown data": ("--config.data.name=digit", ["--config.data.name", "did you mean 'digits'"]),
    "batch of none": ("--config.data.batch_size=0", ["--config.data.batch_size", ">= 1"]),
    "batch larger than the data": (
        "--config.data.batch_size=5000",
        ["--config.data.batch_size", "at most", "5000"],
    ),
    "batch that does not divide": (
        "--config.data.batch_size=63",
        ["--config.data.batch_size", "multiple of the 8 devices", "63"],
    ),
    "evaluation batch that does not divide": (
        "--config.data.eval_batch_size=250",
        ["--config.data.eval_batch_size", "multiple of the 8 devices", "250"],
    ),
    "everything held out": (
        "--config.data.test_fraction=1.0",
        ["--config.data.test_fraction", "1"],
    ),
    "unknown scaling": (
        "--config.data.normalise=scaled",
        ["--config.data.normalise", "did you mean 'scale'"],
    ),
    "no data file": ("--config.data.path={tmp}/no.csv", ["data.path", "no.csv"]),
    "empty data file": ("--config.data.path={tmp}/empty.csv", ["empty.csv"]),
    "data file is no table": ("--config.data.path={tmp}/bytes.csv", ["bytes.csv"]),
    "folder without data": ("--config.data.path={tmp}/folder", ["folder", "idx"]),
    "data not prepared": (
        "--config.data.name=tfds:mnist --config.data.data_dir={tmp}/folder",
        ["mnist", "folder"],
    ),
    "evaluating nothing": ("--mode=eval", ["--workdir", "config.json"]),
    "exporting nothing": ("--mode=export", ["--workdir", "config.json"]),
    "hyperparameter without bound": (
        "--config.loss.name=comp_sum --config.loss.tau=inf",
        ["--config.loss.tau", "finite", "inf"],
    ),
    "a flag without its value": ("--seed", ["--seed", "expected a value"]),
    "a section's name and a dot": ("--config.=3", ["--config.", "no such key"]),
    "more steps than can be counted": (
        "--config.steps=99999999999",
        ["--config.steps", "[1, 2**31)", "99999999999"],
    ),
    "steps as a power of ten": ("--config.steps=1e3", ["--config.steps", "integer", "'1e3'"]),
    "a checkpoint to train from": ("--checkpoint=3", ["--checkpoint", "--mode=eval", "train"]),
    "overwriting what is evaluated": ("--mode=eval --overwrite", ["--overwrite", "--mode=train"]),
    "a trace of compiling": ("--mode=compile --profile", ["--profile", "--mode=train", "compile"]),
    "port out of range": (
        "--coordinator_address=localhost:99999 --num_processes=2 --process_id=0",
        ["--coordinator_address", "expected host:port", "'localhost:99999'"],
    ),
    "no processes": ("--num_processes=0", ["--num_processes", "positive", "'0'"]),
    "clip to nothing": ("--config.optimizer.clip_norm=-1", ["optimizer.clip_norm", "> 0", "-1"]),
    "infinite rate": (
        "--config.optimizer.learning_rate=inf",
        ["--config.optimizer.learning_rate", "finite", "inf"],
    ),
    "decay of an optimizer without": (
        "--config.optimizer.weight_decay=0.1",
        ["--config.optimizer.weight_decay", "adamw", "got adam"],
    ),
    "no decay in a schedule of decay": (
        "--config.optimizer.schedule=wsd --config.optimizer.decay_fraction=0",
        ["--config.optimizer.decay_fraction", "(0, 1]", "0.0"],
    ),
    "warm-up and decay longer than the run": (
        "--config.optimizer.schedule=wsd --config.optimizer.warmup_steps=58",
        ["--config.optimizer.schedule", "58 + 6 > 60"],
    ),
    "anchors beyond the run": (
        "--config.optimizer.schedule=wsd_s --config.optimizer.anchors=(20,90)",
        ["--config.optimizer.anchors", "end with the 60", "(20, 90)"],
    ),
    "anchors that fall": (
        "--config.optimizer.schedule=wsd_s --config.optimizer.anchors=(30,20,60)",
        ["--config.optimizer.anchors", "increasing", "(30, 20, 60)"],
    ),
    "anchors of another schedule": (
        "--config.optimizer.anchors=(20,60)",
        ["--config.optimizer.anchors", "wsd_s", "cosine"],
    ),
    "unknown split of the state": (
        "--config.optimizer.split=colums",
        ["--config.optimizer.split", "did you mean 'columns'"],
    ),
    "density above one": ("--config.optimizer.density=1.5", ["optimizer.density", "[0, 1]", "1.5"]),
    "unknown sharpness": (
        "--config.optimizer.sharpness=samm",
        ["--config.optimizer.sharpness", "did you mean 'sam'"],
    ),
    "radius without sharpness": (
        "--config.optimizer.rho=0.1",
        ["--config.optimizer.rho", "optimizer.sharpness among", "got none"],
    ),
    "strength of another sharpness": (
        "--config.optimizer.sharpness=sam --config.optimizer.alpha=0.1",
        ["--config.optimizer.alpha", "gsam, look_sam", "got sam"],
    ),
    "best by nothing": ("--config.best_metric=", ["--config.best_metric", "name", "''"]),
    "loss of attacked inputs": (
        "--config.loss.name=trades",
        ["--config.loss.name", "clean inputs", "'adversarial'"],
    ),
    "hyperparameter is no number": (
        "--config.loss.name=comp_sum --config.loss.tau=nan",
        ["--config.loss.tau", "[0, inf)", "nan"],
    ),
    "keys of another model": (
        "--config.model.name=transformer",
        ["--config.model.activation", "'transformer'", "known: depth"],
    ),
    "task without its keys": (
        "--config.task.name=imbalanced",
        ["--config.task.objective", "nothing"],
    ),
    "a single class": ("--config.data.classes=(0,)", ["--config.data.classes", "two different"]),
    "class that is not there": ("--config.data.classes=(0,11)", ["data.classes", "[0, 10)"]),
    "other number of classes": (
        "--config.data.num_classes=5",
        ["--config.data.num_classes", "10 classes", "got 5"],
    ),
    "all labels are noise": ("--config.data.label_noise=1", ["data.label_noise", "[0, 1)", "1.0"]),
    "nobody left to train on": (
        "--config.data.validation_fraction=0.5 --config.data.test_fraction=0.5",
        ["--config.data", "validation_fraction + test_fraction < 1", "0.5 + 0.5"],
    ),
    "option of other data": (
        "--config.data.pool=4",
        ["--config.data.pool", "pictures", "got 4", "'digits'"],
    ),
    "missing in other words": (
        "--config.data.missing=guess",
        ["--config.data.missing", "error, impute", "'guess'"],
    ),
    "table of one class": ("--config.data.path={tmp}/one.csv", ["one.csv", "2 classes"]),
    "table with a gap": ("--config.data.path={tmp}/gap.csv", ["gap.csv", "row 8", "'nan'"]),
    "table of uneven rows": ("--config.data.path={tmp}/uneven.csv", ["uneven.csv", "row 2"]),
    "class of one example": ("--config.data.path={tmp}/lone.csv", ["lone.csv", "smallest has 1"]),
    "cut idx file": ("--config.data.path={tmp}/idx", ["train-images", "truncated idx file"]),
    "no micro-batches": ("--config.accumulate=0", ["--config.accumulate", ">= 1", "got 0"]),
    "micro-batches that do not divide": (
        "--config.accumulate=7",
        ["--config.accumulate", "micro-batches of a batch of 64", "got 7"],
    ),
    "no devices along an axis": ("--config.mesh.model=0", ["--config.mesh.model", ">= 1"]),
    "rule that is none": ("--config.sharding=((1,2),)", ["--config.sharding", "tuple of rules"]),
    "unknown precision": (
        "--config.compute_dtype=bf16",
        ["--config.compute_dtype", "did you mean 'bfloat16'"],
    ),
    "checkpoint of step 0": ("--mode=eval --checkpoint=0", ["--checkpoint", "0"]),
}
CASES = WHOLE | {name: (f"{SOUND} {added}", said) for name, (added, said) in ADDED.items()}
