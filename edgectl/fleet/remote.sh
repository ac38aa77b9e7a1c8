# What `edgectl fleet` runs on a board, as `sh -c`. Everything it says to the fleet stands in lines that start with a mark
# made of a number used once, so that banners and what shells print at login cannot be mistaken for it.
#
#   look NONCE USER LIMIT_S COMMAND                      run it, nothing is noted
#   do   NONCE USER OPERATION LIMIT_S BODY DIGEST SIZE DETACH COMMAND
#                                                        start it once, or follow it; stdin brings SIZE bytes
#   stop NONCE USER OPERATION WAIT_S                     end it, or keep it from ever starting
#   hold                                                 what `do` starts in a session of its own
#
# It is given to itself as $script, for `do` to start `hold`.
# USER: whom to become through sudo, or nothing. An operation is a folder that is made once. Whoever finds it there
# follows what is running, or repeats what it said.
set -u
mask=$(umask)
umask 077
verb=$1 nonce=$2 user=$3
shift 3
more=/usr/local/bin:/opt/edgectl/bin
PATH=${PATH:-/usr/bin:/bin}:$more
export PATH
# A home folder may be shared by many boards.
root=${XDG_STATE_HOME:-$HOME/.local/state}/edgectl-fleet/$(uname -n)

mark() { printf '\n@edgectl-fleet %s %s\n' "$nonce" "$*"; }
end() {
    mark end "$@"
    exit 0
}
reason() {
    free=$(df -P "$root" 2>/dev/null | tail -n 1 | awk '{print $4}')
    if [ "${free:-64}" -lt 64 ]; then echo "the disk there is full ($*)"; else echo "$*"; fi
}
refuse() { end 1 refused "$(reason "$*")"; }
broken() { end 1 broken "it was cut off on the board (a restart, or killed): look at the board before trying again"; }
nap() { sleep 0.2 2>/dev/null || sleep 1; }
began() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
# The same process as then: numbers are given again, above all after a restart of the board.
alive() {
    [ "$(cat "$run/boot" 2>/dev/null)" = "$boot" ] || return 1
    read -r pid start _ <"$run/pid" 2>/dev/null || return 1
    [ -n "${start:-}" ] && [ "$(began "$pid")" = "$start" ]
}
# What was begun before this boot will never tell.
restarted() { [ -s "$run/boot" ] && [ "$(cat "$run/boot")" != "$boot" ]; }
# Whether it goes on. Just begun, it has no number yet; just ended, its result is about to be there.
goes_on() {
    waited=0
    while [ ! -s "$run/rc" ]; do
        if alive; then return 0; fi
        if restarted || [ "$((waited += 1))" -gt 50 ]; then break; fi
        nap
    done
    return 1
}
tell() {
    mark begin "$(($(wc -c <"$run/out")))"
    head -c "$body" "$run/out"
    mark err
    tail -c 4096 "$run/err"
    read -r rc _ <"$run/rc"
    end "$rc" "$1"
}
# $1: seconds, $2: command. sudo has a path of its own, and passes signals on to what it runs. A shell that just died of
# SIGTERM would say that all has ended, while what it ran still writes its checkpoint, or does not think of ending.
as_user() {
    # shellcheck disable=SC2016  # for the inner shell
    wait_for_it='rc=$?; exit $((rc ? rc : 143))'
    set -- timeout -k 30 "$1" sh -c "umask $mask; PATH=\$PATH:$more; export PATH; trap '$wait_for_it' TERM; $2"
    if [ -n "$user" ] && [ "$user" != "$(id -un)" ]; then set -- sudo -n -u "$user" -- "$@"; fi
    exec "$@"
}

# From here on what stands in stderr is the command's, not ssh's.
[ "$verb" = hold ] || mark here
if [ "$verb" = look ]; then
    mark begin
    (as_user "$1" "$2") </dev/null
    end $? looked
fi

op=$root/$1 run=$root/$1/run
boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo unknown)
said=$(mkdir -p "$op" 2>&1) || refuse "$said"

case $verb in
hold)
    limit=$2 input=$3 mask=$4 command=$5
    # The input is gone from the disk as soon as it is open.
    exec 3<"$input" >"$run/out" 2>"$run/err"
    [ "$input" = /dev/null ] || rm -f "$input"
    as_user "$limit" "$command" <&3 3<&- &
    echo "$! $(began $!)" 1<>"$run/pid"
    wait $!
    echo "$?" 1<>"$run/rc.new"
    mv "$run/rc.new" "$run/rc"
    ;;
do)
    limit=$2 body=$3 digest=$4 size=$5 detach=$6 command=$7
    for old in "$root"/*/; do
        [ "$old" != "$op/" ] || continue
        if [ -e "$old/run/rc" ] || [ ! -e "$old/run" ]; then days=7; else days=30; fi
        find "$old" -maxdepth 0 -mtime "+$days" -exec rm -rf {} + 2>/dev/null
    done

    # The same id for something else would do nothing, and say that it did.
    said=$({ printf '%s\n%s\n%s\n' "$digest" "$user" "$command" >"$op/asked.$$"; } 2>&1) || refuse "$said"
    ln "$op/asked.$$" "$op/asked" 2>/dev/null
    cmp -s "$op/asked.$$" "$op/asked" || { rm -f "$op/asked.$$"; refuse "operation $1 was for something else"; }
    rm -f "$op/asked.$$"

    if [ "$size" -gt 0 ] && [ ! -d "$run" ] && [ ! -e "$op/in" ]; then
        # Of a connection that was cut, the other end may still wait here for the rest.
        if [ -s "$op/receiver" ]; then
            other=$(cat "$op/receiver")
            if [ "$(readlink "/proc/$other/fd/1")" = "$op/part" ]; then kill -KILL "$other" 2>/dev/null; fi
        fi
        said=$({ : >>"$op/part"; } 2>&1) || refuse "$said"
        have=$(($(wc -c <"$op/part")))
        if [ "$have" -gt "$size" ]; then : >"$op/part" && have=0; fi
        mark send "$have"
        # shellcheck disable=SC2016  # for the inner shell
        said=$(sh -c 'echo $$ >"$1/receiver" && exec head -c "$2" >>"$1/part"' - "$op" $((size - have)) 2>&1)
        case $said in ?*)
            why=$(reason "$said") # asked before the half that came is removed: it may be what fills the disk
            rm -f "$op/part"
            end 1 refused "$why"
            ;;
        esac
        have=$(($(wc -c <"$op/part")))
        [ "$have" -eq "$size" ] || end 1 cut "$have of $size bytes arrived"
        if [ "$(sha256sum <"$op/part" | cut -c 1-64)" != "$digest" ]; then
            rm -f "$op/part"
            end 1 damaged "what arrived is not what was sent"
        fi
        sync "$op/part" 2>/dev/null || sync
        mv "$op/part" "$op/in"
        rm -f "$op/receiver"
    fi

    mine='' input=/dev/null how=followed
    [ "$size" -eq 0 ] || input=$op/in
    if mkdir "$run" 2>/dev/null; then
        how=did
        # What has to be written later has its place on the disk from the beginning.
        blank='                                '
        said=$({ echo "$boot" >"$run/boot" && : >"$run/out" && : >"$run/err" && echo "$blank" >"$run/pid" &&
            echo "$blank" >"$run/rc.new"; } 2>&1) || { rm -rf "$run"; refuse "$said"; }
        # A session of its own, which outlives this connection.
        # shellcheck disable=SC2154  # script: this text
        setsid sh -c "$script" edgectl-fleet hold - "$user" "$1" "$limit" "$input" "$mask" "$command" \
            </dev/null >/dev/null 2>&1 &
        mine=$!
    elif [ -s "$run/rc" ]; then
        tell repeated
    fi

    if [ "$detach" = yes ] && { [ -n "$mine" ] || goes_on; }; then end 0 running; fi
    tail -n +1 -f "$run/err" >&2 2>/dev/null &
    progress=$!
    trap 'kill $progress 2>/dev/null' EXIT
    if [ -n "$mine" ]; then
        wait "$mine"
    else
        while goes_on; do nap; done
    fi
    kill $progress 2>/dev/null
    [ -s "$run/rc" ] || broken
    tell "$how"
    ;;
stop)
    # Not begun: it never will.
    if mkdir "$run" 2>/dev/null; then
        rm -f "$op/part" "$op/in"
        : >"$run/out" && : >"$run/err"
        echo 130 >"$run/rc"
        end 130 prevented
    fi
    if goes_on; then
        kill -TERM "$pid" 2>/dev/null || sudo -n kill -TERM "$pid" 2>/dev/null
        tries=$(($2 * 5))
        while [ ! -s "$run/rc" ] && [ "$((tries -= 1))" -gt 0 ]; do nap; done
        [ -s "$run/rc" ] || end 1 running
        read -r rc _ <"$run/rc"
        end "$rc" stopped
    fi
    [ -s "$run/rc" ] || broken
    read -r rc _ <"$run/rc"
    end "$rc" ended
    ;;
esac
