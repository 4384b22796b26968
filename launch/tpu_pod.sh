#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A run of experiments.run on every worker of a Cloud TPU pod, with gcloud:
#
#   pod=(--name=xloss --project=my-project --zone=us-west4-a --type=v5litepod-16)
#   launch/tpu_pod.sh create "${pod[@]}" --spot     # queued resource; waits; installs on every worker
#   launch/tpu_pod.sh run "${pod[@]}" -- --config=digits --workdir=gs://my-bucket/runs/digits
#   launch/tpu_pod.sh logs "${pod[@]}"              # follows worker 0, then says how all workers ended
#   launch/tpu_pod.sh stop "${pod[@]}"              # ends the run: every worker saves the same step
#   launch/tpu_pod.sh delete "${pod[@]}"            # gives the pod back: until then it costs money
#
# Without an action: create, run and logs, one after the other; nothing is ever deleted unasked.
# --dry_run prints the commands instead. `install` alone installs again (--source=...: a wheel's or a
# repository's address instead of xloss[experiments,tpu]).
#
# `run` starts in the background: the training goes on when the connection is lost, and `logs` finds
# it again. A workdir gs://BUCKET/... is mounted on every worker with Cloud Storage FUSE; any other
# must be a directory that all workers share. The files of the run on a worker are in ~/xloss-run: log,
# pid and, once it has ended, exit.
#
# Exit codes: 0, 2 for a wrong command line, and of `logs` that of the worker that failed first, whose
# last lines it shows; 75 if the run was stopped with a step saved, or the (spot) pod was taken away:
# `delete`, `create` and `run` go on from the last checkpoint.
#
# What it does NOT do: copy data, make the bucket, set up quota, network and service account.
set -euo pipefail

name=xloss project="" zone="" type="" runtime="" spot=false dry_run=false action=""
source="xloss[experiments,tpu]"
pause=${TPU_POD_POLL_SECONDS:-30} preempted=75

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
        create | install | run | logs | stop | delete)
            [ -z "$action" ] || refuse "expected one action, got '$action' and '$1'"
            action=$1
            ;;
        --) shift; break ;;
        *) refuse "expected --name, --project, --zone, --type, --runtime, --source (each with =), --spot, --dry_run, an action (create, install, run, logs, stop, delete) or --, got '$1'" ;;
    esac
    shift
done
[ -n "$zone" ] || refuse "--zone: expected a zone such as us-west4-a, got none"

# The image that goes with each generation.
case "$type" in
    "") [[ "$action" =~ ^(install|run|logs|stop|delete)$ ]] || refuse "--type: expected an accelerator type such as v5litepod-16, got none" ;;
    v4-*) runtime=${runtime:-tpu-ubuntu2204-base} ;;
    v5litepod-*) runtime=${runtime:-v2-alpha-tpuv5-lite} ;;
    v5p-*) runtime=${runtime:-v2-alpha-tpuv5} ;;
    v6e-*) runtime=${runtime:-v2-alpha-tpuv6e} ;;
    *) [ -n "$runtime" ] || refuse "--type: expected v4-*, v5litepod-*, v5p-*, v6e-* (or --runtime with it), got '$type'" ;;
esac
if [ -z "$action" ] || [ "$action" = run ]; then
    [ $# -gt 0 ] || refuse "expected the flags of experiments.run after --, got none"
    [[ " $*" =~ \ --workdir=[^\ ] ]] || refuse "--workdir: expected a bucket or a directory that all workers share, as --workdir=gs://BUCKET/DIR, got none"
    [[ ! " $*" =~ \ --workdir=gs:/*([^/ ]*)/*(\ |$) || -n "${BASH_REMATCH[1]}" ]] || refuse "--workdir: expected gs://BUCKET/DIR, got no bucket"
elif [ $# -gt 0 ]; then
    refuse "expected flags after -- for run only, got '$1'"
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

describe=(gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)')

create() {
    local options=(--node-id="$name" --accelerator-type="$type" --runtime-version="$runtime")
    ! $spot || options+=(--spot)
    do_or_say gcloud compute tpus queued-resources create "$name" "${where[@]}" "${options[@]}"
    if $dry_run; then
        echo "# until this says ACTIVE:"
        do_or_say "${describe[@]}"
    else
        local state=""
        until [ "$state" = ACTIVE ]; do
            state=$("${describe[@]}")
            case "$state" in
                ACTIVE) ;;
                FAILED | SUSPENDED | SUSPENDING) gone_or_lost ;;
                *) echo "waiting: $state" >&2; sleep "$pause" ;;
            esac
        done
    fi
    install
}

# The images carry Python 3.10, which is too old: uv brings its own. Again and again because a worker
# that has just become ACTIVE may not take connections yet.
install() {
    local tries=5
    until on_workers all "python3 -m pip install --user --quiet uv && ~/.local/bin/uv venv --clear --python 3.12 ~/xloss && ~/.local/bin/uv pip install --python ~/xloss/bin/python $(quoted "$source")"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || gone_or_lost
        echo "tpu_pod: installing failed, once more" >&2
        sleep "$pause"
    done
}

# What a worker's shell executes; $HOME and the like are the worker's own.
# shellcheck disable=SC2016
{
    running='cd ~/xloss-run 2>/dev/null && [ -s pid ] && [ ! -e exit ] && kill -0 "$(cat pid)" 2>/dev/null'
    # Its own session, so that the end of the connection does not reach it. Nanoseconds say who was first.
    background='nohup setsid sh -c '\''"$@" & echo $! > pid; wait $!; echo "$? $(date +%s%N)" > exit.new; mv exit.new exit'\'' run'
    tell='cd ~/xloss-run 2>/dev/null && [ -s pid ] || exit 0; if [ -e exit ]; then read -r code at < exit; elif kill -0 "$(cat pid)" 2>/dev/null; then code=running at=0; else code=lost at=0; fi; echo "ended $at $(hostname) $code"; [ "$code" = 0 ] || [ "$code" = running ] || tail -n 30 log | sed "s/^/log $(hostname) /"'
    follow='cd ~/xloss-run 2>/dev/null && [ -s pid ] || exit 0; tail -n +1 -F log --pid="$(cat pid)" 2>/dev/null'
    halt="if $running; then kill -TERM \"\$(cat pid)\"; n=0; until [ -e exit ] || [ \$n -ge 600 ]; do sleep 1; n=\$((n + 1)); done; [ -e exit ] || { echo \"\$(hostname): still going after 10 minutes\" >&2; exit 1; }; fi"
    fuse='mkdir -p ~/buckets/BUCKET && { command -v gcsfuse > /dev/null || { curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /usr/share/keyrings/cloud.google.asc > /dev/null && echo "deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -c -s) main" | sudo tee /etc/apt/sources.list.d/gcsfuse.list > /dev/null && sudo apt-get update -q && sudo apt-get install -y -q gcsfuse; }; } && { mountpoint -q ~/buckets/BUCKET || gcsfuse --implicit-dirs --rename-dir-limit=200000 BUCKET ~/buckets/BUCKET; }'
}

run() {
    local flags="" word bucket=""
    for word in "$@"; do
        if [[ "$word" =~ ^--workdir=gs://([^/]+)(.*)$ ]]; then
            bucket=${BASH_REMATCH[1]}
            flags+=" --workdir=\"\$HOME\"/buckets/$(quoted "$bucket${BASH_REMATCH[2]}")"
        else
            flags+=" $(quoted "$word")"
        fi
    done
    [ -z "$bucket" ] || on_workers all "${fuse//BUCKET/$bucket}" || gone_or_lost
    # In two steps: no worker starts while another still runs something.
    on_workers all "if $running; then echo \"\$(hostname): a run is going on, stop it first\" >&2; exit 1; fi; mkdir -p ~/xloss-run && rm -f ~/xloss-run/pid ~/xloss-run/exit" || gone_or_lost
    on_workers all "cd ~/xloss-run && { $background ~/xloss/bin/python -u -m experiments.run --coordinator_address=auto$flags > log 2>&1 < /dev/null & } && until [ -s pid ]; do sleep 0.1; done" || gone_or_lost
}

# Process 0 prints the progress; what the others print is shown when they fail.
logs() {
    on_workers 0 "$follow" || gone_or_lost
    if $dry_run; then
        echo "# until no worker is running, then the first that failed:"
        on_workers all "$tell"
        return
    fi
    local told first worker code
    while true; do
        told=$(on_workers all "$tell") || gone_or_lost
        grep -q ' running$' <<< "$told" || break
        echo "waiting: $(grep -c ' running$' <<< "$told") workers have not ended" >&2
        sleep "$pause"
    done
    grep -q '^ended ' <<< "$told" || { echo "tpu_pod: no worker has a run" >&2; exit 1; }
    # A crash before an exit that nobody wrote down (the worker restarted), both before the clean end
    # that the others may have had; of equals the earliest.
    first=$(awk '$1 == "ended" && $4 != 0 { print ($4 == "lost") + 2 * ($4 == 75), $2, $3, $4 }' <<< "$told" | sort -n -k1,1 -k2,2 | head -n 1)
    [ -n "$first" ] || { echo "all workers finished" >&2; return; }
    read -r _ _ worker code <<< "$first"
    sed -n "s/^log $worker //p" <<< "$told" | tail -n 30 >&2
    if [ "$code" = lost ]; then
        echo "tpu_pod: $worker: the run is gone and left no exit code; the lines above are its last" >&2
        exit 1
    fi
    [ "$code" != $preempted ] || { echo "tpu_pod: the run was stopped with its step saved (exit code 75): run goes on from it" >&2; exit $preempted; }
    echo "tpu_pod: $worker failed first, with exit code $code; the lines above are its last" >&2
    exit "$code"
}

# After a command that failed: was the pod taken away, or is it something else?
gone_or_lost() {
    local state
    state=$("${describe[@]}") || state=unknown
    case "$state" in
        SUSPENDED | SUSPENDING)
            echo "tpu_pod: the pod was taken away ($state): delete, create and run go on from the last checkpoint" >&2
            exit $preempted
            ;;
        ACTIVE) echo "tpu_pod: a worker refused or was not reached (the pod is ACTIVE); a run that was going on still is: logs finds it" >&2 ;;
        *) echo "tpu_pod: there is no pod to work with (its state is $state)" >&2 ;;
    esac
    exit 1
}

stop() { on_workers all "$halt" || gone_or_lost; }

delete() { do_or_say gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet; }

$dry_run || command -v gcloud > /dev/null || refuse "expected the program gcloud (or --dry_run), found none"
if [ -n "$action" ]; then
    "$action" "$@"
else
    create
    run "$@"
    logs
    ! $dry_run || { stop; delete; }
fi
