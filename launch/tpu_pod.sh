#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A run of experiments.run on a Cloud TPU pod, with gcloud:
#
#   launch/tpu_pod.sh --dry_run --name=xloss --project=my-project --zone=us-west4-a --type=v5litepod-16 \
#       -- --config=digits --workdir=/mnt/shared/digits
#
# prints the commands. Without --dry_run they are executed: create (and wait for the pod), install,
# run, logs; an ACTION (create, install, run, logs, delete) before the -- does that one alone. A pod
# costs money until `delete`, which is never done unasked. `run` starts the training in the
# background on every worker: it goes on when the connection is lost.
#
# What it does NOT do: mount a file system (the workdir must be a directory that all workers share,
# Filestore for example; gs:// paths are not supported), copy data, bring back a pod that was
# preempted (`create` and `run` again continue from the last checkpoint), or set up quota, network
# and service account.
set -euo pipefail

name=xloss project="" zone="" type="" runtime="" spot=false dry_run=false action=""
source="xloss[experiments,tpu]"

refuse() {
    echo "tpu_pod: $1" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case "$1" in
        --dry_run) dry_run=true ;;
        --spot) spot=true ;;
        --name=?*) name=${1#*=} ;;
        --project=?*) project=${1#*=} ;;
        --zone=?*) zone=${1#*=} ;;
        --type=?*) type=${1#*=} ;;
        --runtime=?*) runtime=${1#*=} ;;
        --source=?*) source=${1#*=} ;;
        create | install | run | logs | delete) action=$1 ;;
        --) shift; break ;;
        *) refuse "expected --name, --project, --zone, --type, --runtime, --source (each with =), --spot, --dry_run, an action or --, got '$1'" ;;
    esac
    shift
done
[ -n "$zone" ] || refuse "--zone: expected a zone such as us-west4-a, got none"

# The image that goes with each generation.
case "$type" in
    "") [[ "$action" =~ ^(install|run|logs|delete)$ ]] || refuse "--type: expected an accelerator type such as v5litepod-16, got none" ;;
    v4-*) runtime=${runtime:-tpu-ubuntu2204-base} ;;
    v5litepod-*) runtime=${runtime:-v2-alpha-tpuv5-lite} ;;
    v5p-*) runtime=${runtime:-v2-alpha-tpuv5} ;;
    v6e-*) runtime=${runtime:-v2-alpha-tpuv6e} ;;
    *) [ -n "$runtime" ] || refuse "--type: expected v4-*, v5litepod-*, v5p-*, v6e-* (or --runtime with it), got '$type'" ;;
esac
if [ -z "$action" ] || [ "$action" = run ]; then
    [ $# -gt 0 ] || refuse "expected the flags of experiments.run after --, got none"
    [[ "$*" == *--workdir=* ]] || refuse "--workdir: expected a directory that all workers share, as --workdir=DIR, got none"
    [[ "$*" != *--workdir=gs:* ]] || refuse "--workdir: expected a directory that is mounted on all workers, got a gs:// path"
fi

where=(--zone="$zone")
[ -z "$project" ] || where+=(--project="$project")

# The arguments as a shell reads them, in single quotes where they need any.
quoted() {
    local out="" word
    for word in "$@"; do
        [[ "$word" =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
        out+="${out:+ }$word"
    done
    printf '%s' "$out"
}

# Prints a command so that it can be pasted, or executes it.
do_or_say() {
    if $dry_run; then
        quoted "$@"
        echo
    else
        "$@"
    fi
}

on_workers() { do_or_say gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker="$1" --command="$2"; }

create() {
    local options=(--node-id="$name" --accelerator-type="$type" --runtime-version="$runtime")
    ! $spot || options+=(--spot)
    do_or_say gcloud compute tpus queued-resources create "$name" "${where[@]}" "${options[@]}"
    local describe=(gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)')
    if $dry_run; then
        echo "# until this says ACTIVE:"
        do_or_say "${describe[@]}"
        return
    fi
    local state=""
    until [ "$state" = ACTIVE ]; do
        state=$("${describe[@]}")
        case "$state" in
            FAILED | SUSPENDED | SUSPENDING) echo "tpu_pod: the queued resource is $state" >&2; exit 1 ;;
            ACTIVE) ;;
            *) echo "waiting: $state" >&2; sleep "${TPU_POD_POLL_SECONDS:-30}" ;;
        esac
    done
}

# The images carry Python 3.10, which is too old: uv brings its own.
install() {
    on_workers all "python3 -m pip install --user --quiet uv && ~/.local/bin/uv venv --clear --python 3.12 ~/xloss && ~/.local/bin/uv pip install --python ~/xloss/bin/python $(quoted "$source")"
}

run() {
    on_workers all "nohup ~/xloss/bin/python -m experiments.run --coordinator_address=auto $(quoted "$@") > ~/xloss.log 2>&1 < /dev/null &"
}

# Process 0 writes the metrics; the others' logs hold their errors (--worker=all shows them).
logs() { on_workers 0 "tail -n 100 -F ~/xloss.log"; }

delete() { do_or_say gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet; }

$dry_run || command -v gcloud > /dev/null || refuse "expected the program gcloud (or --dry_run), found none"
if [ -n "$action" ]; then
    "$action" "$@"
else
    create
    install
    run "$@"
    logs
    ! $dry_run || delete
fi
