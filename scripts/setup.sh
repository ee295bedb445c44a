#!/bin/sh
# Everything that a fresh Debian or Ubuntu machine needs, from system packages to the guest's kernel. Safe to repeat: what is
# there is left alone, and a second run takes seconds. Writes only into this repository, besides the system packages.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
# In a pipe and in a file there are no colours.
if [ -t 1 ]; then arrow=$(printf '\033[1m==>\033[0m'); else arrow='==>'; fi
say() { printf '%s %s\n' "$arrow" "$*"; }
fail() { printf 'setup: %s\n' "$1" >&2; [ $# -lt 2 ] || printf '  remedy: %s\n' "$2" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || fail "StacyVM runs on Linux, this is $(uname -s)" "use a Linux machine or a virtual one"
[ "$(uname -m)" = x86_64 ] || fail "only x86_64 is supported so far, this is $(uname -m)"

# Caches stay inside the repository.
export npm_config_cache="$root/.build/npm" npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false
export CARGO_HOME="${CARGO_HOME:-$root/.build/cargo}" PIP_CACHE_DIR="$root/.build/pip"
mkdir -p .build

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else fail "packages are missing and you are neither root nor have sudo" "as root: apt-get install$missing"; fi
}

missing=""
if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
  lists=scripts/packages.txt
  # `make test` says so: nobody else needs a registry on their machine.
  [ "${STACYVM_SETUP:-}" != tests ] || lists="$lists scripts/packages-test.txt"
  # shellcheck disable=SC2086
  want=$(sed -e 's/#.*//' $lists | awk 'NF { print $1 }')
  # A compiler for the agent and a Node to begin with: any that is there will do.
  # cargo before 1.70 reads the registry as one huge git repository, so the agent's only dependency comes as a package then.
  case "$(cargo --version 2>/dev/null || echo 'cargo 1.6')" in
    "cargo 1."[0-6][0-9].* | "cargo 1.6") want="$want cargo librust-libc-dev" ;;
  esac
  command -v npm >/dev/null || want="$want npm"
  for package in $want; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
  done
  if [ -n "$missing" ]; then
    say "installing system packages:$missing"
    as_root apt-get update -qq || fail "apt-get update failed" "check the network and /etc/apt"
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >"$root/.build/apt.out" 2>&1 ||
      { tail -n 5 "$root/.build/apt.out" >&2; fail "installing packages failed" "see .build/apt.out"; }
  fi
  # What not every distribution has in this form; what needs it says that it is missing.
  if [ "${STACYVM_SETUP:-}" = tests ] && { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }; then
    optional=scripts/packages-optional.txt
    # Tools for a kernel that such a host's Firecracker can run; src/host/kvm.ts decides whether it is built.
    [ ! -d /sys/module/kvm_pvm ] || optional="$optional scripts/packages-interpreted.txt"
    # shellcheck disable=SC2086
    for package in $(sed -e 's/#.*//' $optional | awk 'NF { print $1 }'); do
      [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ] || continue
      say "installing the system package $package"
      [ -n "$missing" ] || as_root apt-get update -qq || true
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" \
        >"$root/.build/apt-$package.out" 2>&1 || say "$package cannot be installed; the tests that need it are skipped"
    done
  fi
else
  for tool in qemu-system-x86_64 mke2fs xz prlimit cargo cc npm python3; do
    command -v $tool >/dev/null || missing="$missing $tool"
  done
  [ -z "$missing" ] || fail "this is neither Debian nor Ubuntu, and these programs are missing:$missing" \
    "install them with your package manager (what each is for: scripts/packages.txt); kernel and built-in images need Debian's package tools"
fi

# As any user, and where there is none: for the tests of a fleet.
if [ "${STACYVM_SETUP:-}" = tests ] && command -v apt-get >/dev/null; then
  scripts/fetch-postgres.sh || say "no PostgreSQL; the tests that need it fail"
fi

stamp=.build/npm.stamp
if [ ! -x node_modules/.bin/node ] || ! cmp -s package-lock.json "$stamp"; then
  say "installing Node packages from the lock file"
  npm ci --no-progress --loglevel=error >.build/npm.out 2>&1 || npm install --no-save --no-progress --loglevel=error >>.build/npm.out 2>&1 || { tail -n 10 .build/npm.out >&2; fail "npm ci failed" "see .build/npm.out; check the network"; }
  # npm may be told not to run install scripts; this package's script fetches the Node binary itself.
  node_modules/.bin/node -v >/dev/null 2>&1 || (cd node_modules/node && node installArchSpecificPackage) >>.build/npm.out 2>&1 || true
  node_modules/.bin/node -v >/dev/null 2>&1 || fail "the npm package 'node' did not bring its binary" "see .build/npm.out"
  cp package-lock.json "$stamp"
fi

exec node_modules/.bin/node src/cli/main.ts setup "$@"
