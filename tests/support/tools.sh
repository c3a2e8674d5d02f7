# shellcheck shell=bash
# Tools that Debian has no package of, built from source once and kept in the folder TOOLS.

RETRY=$(cd -- "${BASH_SOURCE[0]%/*}/../../deploy/local/lib" && pwd -P)/retry

# install_once FOLDER COMMAND…: COMMAND makes FOLDER.new, which becomes FOLDER where that is not there yet. One process
# at a time: another run of the same checkout would take the half-made folder away.
install_once() {
    local folder=$1
    shift
    [[ ! -d $folder ]] || return 0
    mkdir -p -- "${folder%/*}"
    (
        set -e
        flock -w 1800 9
        [[ ! -d $folder ]] || exit 0
        rm -rf -- "$folder.new"
        "$@"
        mv -- "$folder.new" "$folder"
    ) 9>>"$folder.lock"
}

install_go_tool() { # install_go_tool MODULE: into a folder of its version
    local name=${1%@*}
    local folder=$TOOLS/${1##*@}-${name##*/}
    install_once "$folder" env "GOBIN=$folder.new" CGO_ENABLED=0 "$RETRY" go install "$1"
}
