# shellcheck shell=bash
# Tools that Debian has no package of, built from source once and kept in the folder TOOLS.

install_go_tool() { # install_go_tool MODULE: into a folder of its version
    local name=${1%@*}
    local folder=$TOOLS/${1##*@}-${name##*/}
    [[ -d $folder ]] && return 0
    rm -rf -- "$folder.new"
    GOBIN=$folder.new CGO_ENABLED=0 go install "$1"
    mv -- "$folder.new" "$folder"
}
