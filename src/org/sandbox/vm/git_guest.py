"""What runs in the guest for git, as the user of the workspace and in its folder: shell scripts, no more.

None of them is trusted: whatever they say is as hostile as anything else from there.
"""

from __future__ import annotations

DIVERGED = 64
IN_THE_WAY = 65
EMPTY = 66

ENV = {
    "GIT_CEILING_DIRECTORIES": "/srv/org",
    "GIT_CONFIG_GLOBAL": "/dev/null",  # the home folder is the workspace
    "GIT_AUTHOR_NAME": "org",
    "GIT_AUTHOR_EMAIL": "org@org.invalid",
    "GIT_COMMITTER_NAME": "org",
    "GIT_COMMITTER_EMAIL": "org@org.invalid",
    # A machine may be killed at any time: an object that is empty then would count as there for ever.
    "GIT_CONFIG_COUNT": "3",
    "GIT_CONFIG_KEY_0": "core.fsync",
    "GIT_CONFIG_VALUE_0": "all",
    "GIT_CONFIG_KEY_1": "core.fsyncMethod",
    "GIT_CONFIG_VALUE_1": "batch",
    "GIT_CONFIG_KEY_2": "core.compression",  # where a processor is emulated, more takes longer than it saves
    "GIT_CONFIG_VALUE_2": "1",
}

# The same tree on the same parent is the same commit, date and all: what was fetched once is known again.
_SNAPSHOT = """
snapshot() {
    index=$1/org-index
    rm -f "$index" "$index.lock"
    [ ! -f "$1/index" ] || cp "$1/index" "$index" || return
    GIT_INDEX_FILE=$index git -c advice.addEmbeddedRepo=false add -A || return
    tree=$(GIT_INDEX_FILE=$index git write-tree) || return
    rm -f "$index"
    parent= date=0
    if head=$(git rev-parse -q --verify 'HEAD^{commit}'); then
        if [ "$tree" = "$(git rev-parse 'HEAD^{tree}')" ]; then echo "$head"; return; fi
        parent="-p $head" date=$(git show -s --format=%ct "$head") || return
    elif [ -z "$(git ls-tree "$tree")" ]; then
        return
    fi
    GIT_AUTHOR_DATE="@$date +0000" GIT_COMMITTER_DATE="@$date +0000" \\
        git commit-tree "$tree" $parent -m "The workspace with what was not committed"
}
"""

# Arguments: branch, room. What an earlier push that was killed left behind would stop this one.
RECEIVE = """
set -e
if ! [ -e .git/HEAD ]; then
    rm -rf .org-new
    git init -q -b "$1" .org-new
    git -C .org-new config user.name "$2"
    git -C .org-new config user.email "$2@org.invalid"
    sync -f .org-new
    mv -T .org-new/.git .git
    rmdir .org-new
fi
rm -rf .git/objects/incoming-* .git/objects/tmp_objdir-incoming-*
[ ! -d .git/refs/remotes/host ] || find .git/refs/remotes/host -name '*.lock' -delete
exec git -c receive.shallowUpdate=true -c receive.autogc=false receive-pack .
"""

# Arguments: branch. What is in the workspace is overwritten only where the history of what was pushed
# holds it: it then counts as committed. A switch that was killed half way left `org-settling`: all that
# lies there is then kept on a branch, and counts as committed too.
SETTLE = (
    _SNAPSHOT
    + f"""
new=$(git rev-parse -q --verify "refs/remotes/host/$1^{{commit}}") || exit
killed=
if [ -e .git/org-settling ]; then
    killed=yes
    rm -f .git/index.lock .git/HEAD.lock ".git/refs/heads/$1.lock" .git/refs/heads/org-interrupted.lock
fi
now=$(snapshot .git) || exit
head=$(git rev-parse -q --verify 'HEAD^{{commit}}')
at=$(git symbolic-ref -q HEAD) || at=$head
old=$(git rev-parse -q --verify "refs/heads/$1^{{commit}}") || old=$new
git merge-base --is-ancestor "$old" "$new" || exit {DIVERGED}
if [ "$at" = "$head" ] && [ -n "$(git rev-list -n 1 "$head" --not --branches "$new")" ]; then
    exit {DIVERGED}
fi
if [ -n "$killed" ] && [ -n "$now" ]; then
    git update-ref refs/heads/org-interrupted "$now" || exit
fi
: > .git/org-settling && sync .git/org-settling || exit
adopted=
if [ -n "$now" ] && [ "$now" != "$head" ]; then
    if [ -n "$killed" ] || git merge-base --is-ancestor "$now" "$new"; then
        adopted=yes
        rm -f .git/org-before
        [ ! -f .git/index ] || cp .git/index .git/org-before || exit
        git read-tree "$now" && git update-ref --no-deref HEAD "$now" || exit
        git update-index -q --refresh
    fi
fi
if git switch -q --no-overwrite-ignore --no-track -C "$1" "$new"; then
    : > .git/org-pushed
    sync -f .git
    rm -f .git/org-settling .git/org-before
    exit 0
fi
if [ -n "$adopted" ]; then
    case $at in
        refs/*) git symbolic-ref HEAD "$at" ;;
        *) git update-ref --no-deref HEAD "$at" ;;
    esac
    rm -f .git/index
    [ ! -f .git/org-before ] || mv .git/org-before .git/index
fi
rm -f .git/org-settling
exit {IN_THE_WAY}
"""
)

# Its own index, and for a folder that is no repository its own repository: nobody's is disturbed.
UPLOAD = (
    _SNAPSHOT
    + f"""
if ! dir=$(git rev-parse --absolute-git-dir 2> /dev/null); then
    dir=/tmp/org-git$(pwd | tr / -)
    trap 'rm -rf "$dir"' EXIT
    rm -rf "$dir"
    git init -q --bare --template= "$dir" || exit
    export GIT_DIR="$dir" GIT_WORK_TREE="$PWD"
fi
now=$(snapshot "$dir") || exit
[ -n "$now" ] || exit {EMPTY}
rm -f "$dir/refs/org/workspace.lock"
git update-ref refs/org/workspace "$now" || exit
git upload-pack "$dir"
"""
)

EMPTIED = "if [ -e .git/org-pushed ]; then exec rm .git/org-pushed; fi; exec find . -mindepth 1 -delete"
"""Empties the workspace for a new room, once not when work was pushed into it."""
