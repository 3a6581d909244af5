# Keeps one PostgreSQL server in a folder of its own, for as long as its standard input is open: server.sh PROGRAMS. So
# nothing is left running and no folder stays behind, however the tests end.
#
# server.sh PROGRAMS ADDRESSES FOLDER also has it listen on these addresses, with TLS and passwords alone; the
# certificate and its key are copied from the folder.
#
# It says the folder, then obeys a word a line, and says "done" after each: `start`, `stop` (as an administrator would),
# `kill` (the server has no time for anything).
set -u

programs=$1
folder=$(mktemp -d "${TMPDIR:-/tmp}/lethe-postgres-XXXXXX") || exit 1
cd "$folder" || exit 1

pid() {
    head -n 1 data/postmaster.pid 2>/dev/null
}

# The signals go to the server, which ends its processes; it is waited for.
finish() {
    local pid
    pid=$(pid) || return 0
    [ -n "$pid" ] || return 0
    kill "-$1" "$pid" 2>/dev/null
    while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
}

trap 'finish QUIT; cd /; rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM

# Killed, the server leaves shared memory to its last processes, which end as soon as they notice.
start() {
    local try=0
    until "$programs/pg_ctl" -D data -l log -w -t 60 start >>control 2>&1; do
        try=$((try + 1))
        if [ "$try" -ge 100 ]; then
            cat control log >&2
            exit 1
        fi
        sleep 0.05
    done
}

{
    "$programs/initdb" -D data -U lethe -A trust -E UTF8 --locale=C.UTF-8 --no-sync --no-instructions &&
        cat >>data/postgresql.conf <<END
listen_addresses = ''
unix_socket_directories = '$folder'
max_connections = 200
shared_buffers = 32MB
max_wal_size = 256MB
# Only the process is ever killed, never the kernel.
fsync = off
END
    if [ $# -gt 1 ]; then
        install -m 600 "$3/server.crt" "$3/server.key" data &&
            cat >>data/postgresql.conf <<END &&
listen_addresses = '$2'
ssl = on
END
            echo 'hostssl all all 127.0.0.0/8 scram-sha-256' >data/pg_hba.conf &&
            echo 'local all all trust' >>data/pg_hba.conf
    fi
} >control 2>&1 || {
    cat control >&2
    exit 1
}

echo "$folder"
while read -r word; do
    case $word in
    start) start ;;
    stop) finish INT ;;
    kill) finish KILL ;;
    *) exit 1 ;;
    esac
    echo done
done
