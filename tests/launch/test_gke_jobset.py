# SPDX-License-Identifier: Apache-2.0
"""The JobSet: valid, consistent in itself, and restarted at exit code 75 only."""

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from experiments import run

HERE = Path(__file__).resolve().parent
JOBSET = yaml.safe_load((HERE.parents[1] / "launch" / "gke_jobset.yaml").read_text())
SCHEMA = json.loads((HERE / "jobset_schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def job(jobset: dict[str, Any]) -> dict[str, Any]:
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def container(jobset: dict[str, Any]) -> dict[str, Any]:
    (only,) = job(jobset)["template"]["spec"]["containers"]
    return only


# ---- The file -----------------------------------------------------------------------------------


def test_the_schema_accepts_it():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert [error.message for error in VALIDATOR.iter_errors(JOBSET)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("apiVersion",), "jobset.x-k8s.io/v1alpha1"),
        (("spec", "failurePolicy", "rules", 0, "action"), "Restart"),
        (("spec", "failurePolicy", "rules", 0, "onJobFailureReasons"), ["PodFailure"]),
        (("spec", "failurePolicy", "restarts"), 3),
        (("spec", "replicatedJobs", 0, "template", "spec", "backoffLimit"), "0"),
        (("spec", "replicatedJobs", 0, "template", "spec", "template", "spec", "image"), "x"),
    ],
)
def test_the_schema_refuses_what_the_server_would(path, value):
    broken = copy.deepcopy(JOBSET)
    place = broken
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert list(VALIDATOR.iter_errors(broken))


def test_what_the_schema_cannot_say():
    spec, pod = job(JOBSET), job(JOBSET)["template"]["spec"]
    # Indexed, with as many completions as pods: what JAX and the TPU's runtime number by.
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"]
    # A podFailurePolicy needs it.
    assert pod["restartPolicy"] == "Never"
    # The policy speaks of a container that is there, the mount of a volume that is.
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container(JOBSET)["name"]
    assert {m["name"] for m in container(JOBSET)["volumeMounts"]} == {
        v["name"] for v in pod["volumes"]
    }
    resources = container(JOBSET)["resources"]
    assert resources["requests"] == resources["limits"]
    # Hosts x chips of each is the topology.
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = math.prod(int(side) for side in topology.split("x"))
    assert spec["parallelism"] * resources["limits"]["google.com/tpu"] == chips


def test_the_program_is_the_container_itself_and_its_flags_exist():
    only = container(JOBSET)
    assert only["command"] == ["python", "-u", "-m", "experiments.run"]
    known = {flag.name for flag in run.flags.FLAGS.get_flags_for_module(run)}
    given = dict(word.removeprefix("--").split("=") for word in only["args"])
    assert given.keys() <= known
    assert given["coordinator_address"] == "auto"
    assert {"containerPort": int(given["coordinator_port"])} in only["ports"]
    (mount,) = only["volumeMounts"]
    assert given["workdir"].startswith(mount["mountPath"] + "/")


# ---- The controllers, played --------------------------------------------------------------------


def reason_of_failure(spec: dict[str, Any], codes: Sequence[int]) -> str | None:
    """Why the Job controller calls a job failed whose pods ended with these codes, or None."""
    failed = [code for code in codes if code]
    for code in failed:
        for rule in spec["podFailurePolicy"]["rules"]:
            wanted = rule["onExitCodes"]
            if (code in wanted["values"]) == (wanted["operator"] == "In"):
                assert rule["action"] == "FailJob"
                return "PodFailurePolicy"
    return "BackoffLimitExceeded" if len(failed) > spec["backoffLimit"] else None


def play(attempts: Sequence[Sequence[int]]) -> tuple[str, int]:
    """How the JobSet ends and how often it restarted, given the pods' exit codes each time."""
    policy, counted = JOBSET["spec"]["failurePolicy"], 0
    for restarts, codes in enumerate(attempts):
        assert len(codes) == job(JOBSET)["parallelism"]
        reason = reason_of_failure(job(JOBSET), codes)
        if reason is None:
            return "Completed", restarts
        # The first rule that matches; without one, a restart that counts.
        action = next(
            (
                rule["action"]
                for rule in policy["rules"]
                if reason in (rule.get("onJobFailureReasons") or [reason])
            ),
            "RestartJobSet",
        )
        counted += action == "RestartJobSet"
        if action == "FailJobSet" or counted > policy["maxRestarts"]:
            return "Failed", restarts
    raise AssertionError("still going")


def test_it_completes():
    assert play([[0, 0, 0, 0]]) == ("Completed", 0)


def test_it_restarts_as_often_as_it_is_preempted():
    assert play([[75] * 4] * 30 + [[0] * 4]) == ("Completed", 30)
    # The controller may see one pod's end before the others'.
    assert play([[0, 75, 0, 0], [0] * 4]) == ("Completed", 1)


def test_no_other_exit_code_restarts_it():
    for code in set(range(1, 256)) - {run.PREEMPTED}:
        assert play([[code, 0, 0, 0]]) == ("Failed", 0), code


def test_a_crash_after_a_preemption_ends_it():
    assert play([[75] * 4, [1] * 4]) == ("Failed", 1)


def test_75_is_what_the_program_says():
    (rule,) = job(JOBSET)["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [run.PREEMPTED] == [75]
