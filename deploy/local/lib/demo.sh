# shellcheck shell=bash
# The main job on real requests, as a reader of the README would type them.

# call METHOD PATH [BODY]: sends to the write API and leaves the answer in ANSWER.
call() {
    local method=$1 path=$2 body=${3:-} status
    local -a arguments=(-sS -m 10 -X "$method" -w '\n%{http_code}' "http://127.0.0.1:${PORT[command]}$path")
    [[ -z $body ]] || arguments+=(-H 'Content-Type: application/json' -d "$body")
    ANSWER=$(curl "${arguments[@]}") || fail "$method $path got no answer" "$LOG/command.log"
    status=${ANSWER##*$'\n'}
    ANSWER=${ANSWER%$'\n'*}
    [[ $status == 2* ]] || fail "$method $path was answered $status: $ANSWER" "$LOG/command.log"
    printf '  %-6s %-40s → %s %s\n' "$method" "$path" "$status" "$ANSWER" >&3
}

field() { jq -er "$1" <<<"$ANSWER"; }

# show USER VERSION POSTS COMMENTS: reads the write back through the read API, never an older answer.
show() {
    local user=$1 version=$2 posts=$3 comments=$4 got
    ANSWER=$(curl -sS -f -m 20 -H 'Prefer: wait=10' \
        "http://127.0.0.1:${PORT[query]}/v1/users/$user?minVersion=$version") ||
        fail "the read of user $user at version $version failed" "$LOG/query.log" "see also $LOG/projector.log"
    got=$(field '"\(.postCount) posts, \(.commentCount) comments"')
    printf '  GET    /v1/users/%s?minVersion=%s → %s: %s\n' "$user" "$version" "$(field .user.name)" "$got" >&3
    [[ $got == "$posts posts, $comments comments" ]] ||
        fail "user $user should have $posts posts, $comments comments" "$LOG/projector.log"
}

# remember: the user whose version the last answer carries
remember() { VERSION[$(field .userId)]=$(field .version); }

demo() {
    local stamp ada grace post first
    local -A VERSION=()
    printf -v stamp '%(%s)T' -1
    say ''
    say 'Writing through tally-command:'
    call POST /v1/users "{\"name\":\"Ada\",\"email\":\"ada-$stamp-$$@example.org\"}"
    ada=$(field .id)
    remember
    call POST /v1/users "{\"name\":\"Grace\",\"email\":\"grace-$stamp-$$@example.org\"}"
    grace=$(field .id)
    remember
    call POST /v1/posts "{\"authorId\":\"$ada\",\"title\":\"First\",\"body\":\"Hello\"}"
    first=$(field .id)
    remember
    call POST /v1/posts "{\"authorId\":\"$ada\",\"body\":\"Again\"}"
    post=$(field .id)
    remember
    call POST "/v1/posts/$post/comments" "{\"authorId\":\"$grace\",\"body\":\"Nice\"}"
    remember
    call POST "/v1/posts/$first/comments" "{\"authorId\":\"$grace\",\"body\":\"Welcome\"}"
    remember
    say 'Reading the counts through tally-query, each at the version just written:'
    show "$ada" "${VERSION[$ada]}" 2 0
    show "$grace" "${VERSION[$grace]}" 0 2
    say 'Deleting a post, which takes its comment along:'
    call DELETE "/v1/posts/$first"
    remember
    show "$ada" "${VERSION[$ada]}" 1 0
    # Grace's comment went with the post: one version more than her last write.
    show "$grace" "$((VERSION[$grace] + 1))" 0 1
    say 'Proving that the read model equals a recount (tallyctl verify):'
    tallyctl verify >"$LOG/verify.log" 2>&1 || fail "tallyctl verify found differences" "$LOG/verify.log"
    sed 's/^/  /' "$LOG/verify.log" >&3
}
