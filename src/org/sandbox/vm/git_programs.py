"""What runs in the guest for programs and their generations, as its root: scripts, no more.

None of them is trusted: whatever they say is as hostile as anything else from there.
"""

from __future__ import annotations

STATE = "/srv/org-programs"
"""The state folder (XDG) of generations, with the programs' repositories. Others may go through it and see
nothing: generations run as somebody else, and have to read their own files."""
FILES = "/root/.cache/org-verbs"
"""What verbs read or write there for their host."""
NO_PLACE = 64
LOST = 65
ENDED_THERE = 66

# Arguments: repository, what its host calls it. Says which commit its main is.
LOOK = f"""
umask 066
mkdir -p {STATE}/org/programs {FILES} || exit
[ -d "$1" ] || exit 0
printf %s "$2" > "$1/description" || exit
git --git-dir "$1" rev-parse -q --verify refs/heads/main || :
"""

# Arguments: repository, what its host calls it. It appears whole; what a git that was killed has left is not
# in the way for ever.
RECEIVE = """
umask 077
if [ ! -d "$1" ]; then
    new=$(mktemp -d "$1.XXXXXX") && git init -q --bare --template= -b main "$new" || exit
    printf %s "$2" > "$new/description" || exit
    mv -T "$new" "$1" 2> /dev/null || rm -rf "$new"
fi
find "$1/refs" -name '*.lock' -mmin +5 -delete
exec git -c receive.autogc=false receive-pack "$1"
"""

# Argument: repository.
UPLOAD = f"""
[ -d "$1" ] || exit {NO_PLACE}
exec git upload-pack "$1"
"""

# Arguments: file, folder. The text is read from standard input.
TRUST = """\
import json, os, sys
path, folder = sys.argv[1:]
text = sys.stdin.read()
known = json.load(open(path)) if os.path.exists(path) else {"version": 1, "folders": {}}
known["folders"][folder] = text
with open(path + ".new", "w") as file:
    json.dump(known, file)
os.replace(path + ".new", path)
"""

# Argument: what is kept of the program. Removes the socket of a supervisor of before; says whether there
# were generations, all of which are gone, and whether the machine has been up since.
BEFORE = f"""
umask 077
mkdir -p "$1/run" && rm -f "$1/run/supervisor.sock" || exit
for keeper in "$1"/run/*.keeper; do
    [ -e "$keeper" ] || break
    [ "$(cat "$1/run/boot" 2> /dev/null)" = "$(cat /proc/sys/kernel/random/boot_id)" ] && exit {ENDED_THERE}
    exit {LOST}
done
"""

# In a machine that was booted: says whether there were generations of whatever program.
ENDED = f"""
for keeper in {STATE}/org/programs/*/run/*.keeper; do
    [ ! -e "$keeper" ] || exit {LOST}
done
"""

# Arguments: what is kept of the program, the folder of org. A supervisor that ends without being asked is
# followed by another, of the version that is installed then, which finds what is served.
SUPERVISE = """
trap 'kill "$pid"; wait "$pid"; exit' TERM
cat /proc/sys/kernel/random/boot_id > "$1/run/boot"
while :; do
    "$2/bin/python" -P -m org.ops.supervisor "$1" --stay & pid=$!
    wait "$pid"
    sleep 0.2
done
"""

# Argument: what is kept of the program.
AFTER = 'until [ -S "$1/run/supervisor.sock" ]; do sleep 0.05; done'
RENEW = 'rm -f "$1/run/supervisor.sock"; kill -KILL "$(cat "$1/run/pid")" || :'
