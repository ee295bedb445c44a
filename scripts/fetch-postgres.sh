#!/bin/sh
# PostgreSQL and PgBouncer for the tests, where the system has none: the distribution's own packages, with what they need, unpacked into
# .build/postgres. Nothing is installed or started, and any user may do it. Safe to repeat.
set -eu
cd "$(dirname "$0")/.."
target=$PWD/.build/postgres
# For a look at how it goes on a machine that has them: STACYVM_FETCH_POSTGRES=always.
want=""
if [ "${STACYVM_FETCH_POSTGRES:-}" = always ]; then want="postgresql pgbouncer"
else
  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || want="postgresql"
  [ -x /usr/sbin/pgbouncer ] || want="$want pgbouncer"
fi
[ -n "$want" ] || exit 0
[ ! -d "$target" ] || exit 0

mkdir -p .build
work=$(mktemp -d .build/postgres.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/debs/partial" "$work/lists/partial" "$work/root"
set -- -q -o "Dir::Cache::archives=$PWD/$work/debs" -o Debug::NoLocking=1 -o Acquire::Retries=5 -o APT::Sandbox::User=root
# Without lists of the system's own, or with old ones, apt reads new ones here.
if ! apt-get "$@" -y --no-install-recommends --download-only install $want >"$work/out" 2>&1; then
  set -- "$@" -o "Dir::State::lists=$PWD/$work/lists"
  apt-get "$@" update >"$work/out" 2>&1 &&
    apt-get "$@" -y --no-install-recommends --download-only install $want >"$work/out" 2>&1 ||
    { tail -n 5 "$work/out" >&2; echo "fetching $want failed: check the network and /etc/apt" >&2; exit 1; }
fi
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$work/root"; done
chmod 755 "$work/root"
# Another one may have been faster.
mv -T "$work/root" "$target" 2>/dev/null || [ -d "$target" ]
