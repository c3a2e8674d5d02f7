# shellcheck shell=bash
# Debian packages, and the Kafka jars from Maven.

packages_missing() { # packages_missing GROUP…: prints the packages of these groups that are not there
    local group package command wanted=' ' present
    wanted=" $* "
    local -a names=()
    while read -r group package command _; do
        [[ -n $group && $group != \#* && $wanted == *" $group "* ]] || continue
        [[ $command != - ]] && command -v "$command" >/dev/null && continue
        names+=("$package")
    done <"$ROOT/deploy/local/packages.txt"
    ((${#names[@]})) || return 0
    present=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${names[@]}" 2>/dev/null || true)
    for package in "${names[@]}"; do
        grep -qx "installed $package" <<<"$present" || printf '%s\n' "$package"
    done
}

packages_install() { # packages_install GROUP…
    local -a missing as_root=()
    mapfile -t missing < <(packages_missing "$@")
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || fail "these Debian packages are missing: ${missing[*]}" '' \
        'Tally is built and run on Debian 12; install their equivalents'
    local advice="install them by hand: apt-get install ${missing[*]}"
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail "missing packages, and neither root nor sudo: ${missing[*]}" '' "$advice"
        # The steps below have no terminal to ask a password on.
        sudo -v || fail "sudo was refused" '' "$advice"
        as_root=(sudo -n)
    fi
    local -a apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -y)
    run_step "Refreshing the Debian package lists" "$LOG/apt.log" "$advice" "${apt[@]}" update
    run_step "Installing ${#missing[@]} Debian packages (${missing[*]})" "$LOG/apt.log" "$advice" \
        "${apt[@]}" install --no-install-recommends "${missing[@]}"
}

# kafka_jars: sets KAFKA_LIBS; the jars are fetched once for each version of the pom and shared by every stack.
kafka_jars() {
    local pom=$ROOT/deploy/local/kafka/pom.xml sum
    sum=$(sha256sum <"$pom")
    KAFKA_LIBS=$CACHE/kafka/${sum:0:12}
    [[ -d $KAFKA_LIBS ]] && return 0
    lock_take "$CACHE/kafka.lock" || fail "another checkout command has been fetching Kafka for 10 minutes"
    local lock=$LOCK_DESCRIPTOR
    if [[ ! -d $KAFKA_LIBS ]]; then
        mkdir -p -- "$CACHE/kafka"
        rm -rf -- "$KAFKA_LIBS.new"
        run_step "Fetching Apache Kafka" "$LOG/maven.log" "check the network or ~/.m2/settings.xml, then run this again" \
            "$ROOT/deploy/local/lib/retry" mvn -B -ntp -f "$pom" dependency:copy-dependencies -DincludeScope=runtime \
            "-DoutputDirectory=$KAFKA_LIBS.new"
        mv -- "$KAFKA_LIBS.new" "$KAFKA_LIBS"
    fi
    lock_drop "$lock"
}
