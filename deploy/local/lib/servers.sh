# shellcheck shell=bash
# PostgreSQL, Redis and Kafka: their data, their configuration, their start. server_<name>_spawn starts, server_<name>_ready tells
# whether it answers. Data folders are made under another name and renamed, so that none is ever half made.

SERVERS=(kafka redis postgres)
# Seconds a server may take to answer.
SERVER_PATIENCE_S=${TALLY_LOCAL_PATIENCE_S:-120}
POSTGRES_BIN=/usr/lib/postgresql/15/bin

# --- PostgreSQL --------------------------------------------------------------------------------------------
# PostgreSQL refuses to run as root; then it runs as Debian's user postgres, who may not be able to enter the
# checkout (/root, a private home). In that case its data lives in /var/lib, linked from the state folder.
postgres_prepare() {
    AS_POSTGRES=()
    PGDATA=$STATE/pg
    if ((EUID == 0)); then
        AS_POSTGRES=(setpriv --reuid=postgres --regid=postgres --init-groups --)
        if ! (cd / && "${AS_POSTGRES[@]}" test -x "$STATE"); then
            local name
            name=$(printf '%s' "$STATE" | sha256sum)
            PGDATA=/var/lib/tally-local/${name:0:16}
            [[ -d /var/lib/tally-local ]] || mkdir -m 0711 /var/lib/tally-local
            ln -sfn -- "$PGDATA" "$STATE/pg"
        fi
    fi
}

postgres_password() { # one password for the roles of this private server; other users of the machine lack it
    if [[ ! -s $STATE/pg-password ]]; then
        (umask 077 && head -c 18 /dev/urandom | base64 | tr '+/' '-_' >"$STATE/pg-password.new")
        mv -- "$STATE/pg-password.new" "$STATE/pg-password"
    fi
    read -r PG_PASSWORD <"$STATE/pg-password"
}

server_postgres_init() {
    postgres_prepare
    postgres_password
    [[ -s $PGDATA/PG_VERSION ]] && return 0
    rm -rf -- "$PGDATA.new"
    mkdir -p -- "$PGDATA.new"
    chmod 0700 -- "$PGDATA.new"
    if ((EUID == 0)); then
        chown postgres:postgres -- "$PGDATA.new"
    fi
    # The password goes through a pipe of the user postgres, who could not read a file or a pipe of root's.
    export PG_PASSWORD
    # shellcheck disable=SC2016 # expanded by the inner shell
    run_step "Creating the PostgreSQL data folder" "$LOG/initdb.log" "see the log; deploy/local/down --purge starts over" \
        env -C / "${AS_POSTGRES[@]}" bash -c 'exec "$@" --pwfile=<(printf "%s\n" "$PG_PASSWORD")' - \
        "$POSTGRES_BIN/initdb" -D "$PGDATA.new" -U postgres -E UTF8 --locale=C.UTF-8 --auth=scram-sha-256
    rm -rf -- "$PGDATA"
    mv -- "$PGDATA.new" "$PGDATA"
}

# PostgreSQL takes any process with the pid in its lock file for a rival: a dead one that nobody has reaped yet, or a
# stranger that got the number. A live server in this folder is left to it.
postgres_clear_stale_lock() {
    local pid
    { read -r pid <"$PGDATA/postmaster.pid"; } 2>/dev/null || return 0
    [[ $(readlink -- "/proc/$pid/cwd" 2>/dev/null) == "$PGDATA" ]] || rm -f -- "$PGDATA/postmaster.pid"
}

server_postgres_spawn() {
    postgres_clear_stale_lock
    # Durability stays on: an acknowledged write must be on disk here as well. No socket: a deep checkout would
    # exceed the 107 bytes of a socket's path.
    cat >"$PGDATA/postgresql.conf" <<-CONF
		listen_addresses = '127.0.0.1'
		port = ${PORT[postgres]}
		unix_socket_directories = ''
		max_connections = 300
		shared_buffers = 256MB
		max_wal_size = 2GB
		log_line_prefix = '%m [%p] %a '
		timezone = 'UTC'
		log_timezone = 'UTC'
	CONF
    process_spawn postgres "${AS_POSTGRES[@]}" "$POSTGRES_BIN/postgres" -D "$PGDATA"
}

server_postgres_ready() { "$POSTGRES_BIN/pg_isready" -q -h 127.0.0.1 -p "${PORT[postgres]}"; }

# Tally's own role is no superuser: it owns its database and may make others, which the tests do.
server_postgres_provision() {
    # Not as an argument, which every user of the machine can see.
    PGPASSWORD=$PG_PASSWORD "$POSTGRES_BIN/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "${PORT[postgres]}" \
        -U postgres -d postgres >>"$LOG/provision.log" 2>&1 <<-'SQL'
		\getenv password PGPASSWORD
		SELECT format('CREATE ROLE tally LOGIN CREATEDB PASSWORD %L', :'password')
		WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tally') \gexec
		SELECT 'CREATE DATABASE tally OWNER tally'
		WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'tally') \gexec
	SQL
}

# --- Redis -------------------------------------------------------------------------------------------------
server_redis_init() { mkdir -p -- "$STATE/redis"; }

server_redis_spawn() {
    # noeviction: an evicted user would be read as one who never wrote.
    cat >"$STATE/redis/redis.conf" <<-CONF
		bind 127.0.0.1
		port ${PORT[redis]}
		dir "$STATE/redis"
		appendonly yes
		appendfsync everysec
		aof-load-truncated yes
		save ""
		maxmemory 2gb
		maxmemory-policy noeviction
		daemonize no
	CONF
    process_spawn redis redis-server "$STATE/redis/redis.conf"
}

server_redis_ready() { [[ $(redis-cli -h 127.0.0.1 -p "${PORT[redis]}" ping 2>/dev/null) == PONG ]]; }

# --- Kafka -------------------------------------------------------------------------------------------------
kafka_java() { # sets KAFKA_JAVA
    KAFKA_JAVA=(java -Xms256m -Xmx512m -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -Djava.awt.headless=true
        "-Dlog4j2.configurationFile=$ROOT/deploy/local/kafka/log4j2.properties"
        -cp "$KAFKA_LIBS/*")
}

# A client learns the broker's address from the broker, so that a proxy in front of it is used only by the clients of a
# listener that advertises the proxy: TALLY_LOCAL_KAFKA_LISTENERS="NAME=port=advertised port …".
kafka_properties() { # kafka_properties DATA FILE
    local entry name number advertised listeners='' advertised_listeners='' protocols=''
    for entry in ${TALLY_LOCAL_KAFKA_LISTENERS:-}; do
        IFS='=' read -r name number advertised <<<"$entry"
        listeners+=",$name://127.0.0.1:$number"
        advertised_listeners+=",$name://127.0.0.1:$advertised"
        protocols+=",$name:PLAINTEXT"
    done
    sed -e "s|@BROKER_PORT@|${PORT[kafka]}|g" -e "s|@CONTROLLER_PORT@|${PORT[kafka_controller]}|g" \
        -e "s|@LISTENERS@|$listeners|; s|@ADVERTISED_LISTENERS@|$advertised_listeners|; s|@PROTOCOLS@|$protocols|" \
        -e "s|@SESSION_MS@|${TALLY_LOCAL_KAFKA_SESSION_MS:-9000}|" -e "s|@DATA@|$1|g" "$ROOT/deploy/local/kafka/server.properties.in" >"$2"
}

server_kafka_init() {
    local folder=$STATE/kafka
    mkdir -p -- "$folder"
    kafka_java
    [[ -s $folder/data/meta.properties ]] && return 0
    rm -rf -- "$folder/data" "$folder/data.new"
    mkdir -- "$folder/data.new"
    kafka_properties "$folder/data.new" "$folder/format.properties"
    local id
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_')
    # A leading dash would be taken for an option.
    run_step "Formatting the Kafka storage" "$LOG/kafka-format.log" "see the log; deploy/local/down --purge starts over" \
        "${KAFKA_JAVA[@]}" kafka.tools.StorageTool format -c "$folder/format.properties" -t "T${id:1:21}"
    mv -- "$folder/data.new" "$folder/data"
}

server_kafka_spawn() {
    kafka_properties "$STATE/kafka/data" "$STATE/kafka/server.properties"
    process_spawn kafka "${KAFKA_JAVA[@]}" kafka.Kafka "$STATE/kafka/server.properties"
}

# The port opens before the broker serves; this line comes after.
server_kafka_ready() { grep -q 'Kafka Server started' "$LOG/kafka.log" && port_answers "${PORT[kafka]}"; }

# --- all three ---------------------------------------------------------------------------------------------
server_title() { case $1 in postgres) echo PostgreSQL ;; redis) echo Redis ;; kafka) echo Kafka ;; esac; }

server_choose_ports() {
    case $1 in
    kafka) port_choose kafka && port_choose kafka_controller ;;
    *) port_choose "$1" ;;
    esac
}

# Somebody outside our reservations may take a port between the choice and the bind; then the server says so, and
# the next port is tried. Where the ports must stay, because clients know the server by them, the same one is tried
# again: an outgoing connection that has it now leaves it.
PORT_ATTEMPTS=10
port_was_taken() { grep -qiE 'address already in use|could not bind' "$LOG/$1.log" 2>/dev/null; }

server_await() { # server_await NAME SECONDS [keep-ports]
    local name=$1 seconds=$2 keep=${3:-} attempt status
    step_begin "Starting $(server_title "$name")"
    for ((attempt = 1; attempt <= PORT_ATTEMPTS; attempt++)); do
        status=0
        process_await "$name" "$seconds" "server_${name}_ready" || status=$?
        if ((status == 0)); then
            step_end "port ${PORT[$name]}"
            return 0
        fi
        ((status == 1 && attempt < PORT_ATTEMPTS)) || break
        port_was_taken "$name" || break
        if [[ $keep == keep-ports ]]; then sleep 1; else server_choose_ports "$name"; fi
        "server_${name}_spawn"
    done
    if ((status == 1)); then
        fail "$(server_title "$name") ended while starting" "$LOG/$name.log" "the log is $LOG/$name.log; deploy/local/down --purge starts over with empty data"
    fi
    fail "$(server_title "$name") did not answer within $seconds s" "$LOG/$name.log" "the log is $LOG/$name.log"
}

# servers_start: those that do not run already, all three at a time, the slowest first.
servers_start() {
    local name
    local -a starting=()
    for name in "${SERVERS[@]}"; do
        process_runs "$name" || server_choose_ports "$name"
    done
    for name in "${SERVERS[@]}"; do
        "server_${name}_init"
        process_runs "$name" && continue
        "server_${name}_spawn"
        starting+=("$name")
    done
    for name in postgres redis kafka; do
        [[ " ${starting[*]} " != *" $name "* ]] || server_await "$name" "$SERVER_PATIENCE_S"
    done
    server_postgres_provision || fail "the role and database of Tally could not be made" "$LOG/provision.log" \
        "deploy/local/down --purge starts over with empty data"
}
