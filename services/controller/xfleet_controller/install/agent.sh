#!/bin/sh
# Makes this machine a server of an xfleet, or brings the agent that is already here up to date.
#
# Everything that is installed is named below with its SHA-256, and this script's own SHA-256 is in the line that
# fetched it. The enrollment token comes on standard input, because arguments can be seen by everybody on a machine.
set -eu

VERSION='@VERSION@'
WHEEL='@WHEEL@'
UNIT=xfleet-agent
ACCOUNT=xfleet-agent
SETUP=/usr/local/sbin/xfleet-agent-setup
LOWEST_MINOR=11
HIGHEST_MINOR=14

# What is needed beside our own wheel, for one Python on one kind of machine: SHA-256, size and name.
wheels_for() {
  case "$1" in
@WHEELS@
  *) return 1 ;;
  esac
}

# The same for machines of other kinds, which must ask a package index.
pinned() {
  cat <<'END_OF_PINS'
@PINNED@END_OF_PINS
}

unit_file() {
  cat <<END_OF_UNIT
# Written by xfleet's agent.sh. Xray outlives its agent on purpose, hence KillMode=process: restarting or upgrading the
# agent drops no connection.
[Unit]
Description=xfleet agent: drives the Xray of this server
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
User=$ACCOUNT
Group=$ACCOUNT
ExecStart="$prefix/launch" --state-dir "$state"
KillMode=process
TimeoutStopSec=60
Restart=on-failure
RestartSec=2
LimitNOFILE=1048576
TasksMax=infinity
UMask=0077
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE
AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths="$prefix" "$state"
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
END_OF_UNIT
}

usage() {
  cat <<'END_OF_USAGE'
usage: agent.sh --from URL [options] < token
  --from URL        where the panel serves /install
  --uninstall       stop the agent and its Xray and remove the program; with --purge its state as well
  --no-service      set up and enroll, but no systemd unit and no account: for containers
  --prefix DIR      where the program lives  [/opt/xfleet-agent]
  --state-dir DIR   where the agent keeps everything  [/var/lib/xfleet-agent]
  --python PATH     which Python to use  [the first of 3.11 to 3.14 that is here]
  --token-file FILE read the token from a file instead of standard input
END_OF_USAGE
}

say() { printf 'xfleet: %s\n' "$*"; }

fail() {
  printf 'xfleet: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

parse() {
  from='' action=install service=yes purge=no python='' token_file=''
  prefix=/opt/xfleet-agent state=/var/lib/xfleet-agent
  while [ $# -gt 0 ]; do
    case "$1" in
    --from | --prefix | --state-dir | --python | --token-file)
      [ $# -gt 1 ] || fail "$1 needs a value; see --help."
      case "$1" in
      --from) from=${2%/} ;;
      --prefix) prefix=${2%/} ;;
      --state-dir) state=${2%/} ;;
      --python) python=$2 ;;
      --token-file) token_file=$2 ;;
      esac
      shift ;;
    --uninstall) action=uninstall ;;
    --purge) purge=yes ;;
    --no-service) service=no ;;
    -h | --help) usage; exit 0 ;;
    *) fail "There is no option $1; see --help." ;;
    esac
    shift
  done
  for path in "$prefix" "$state"; do
    case "$path" in
    *[!A-Za-z0-9_./+@:-]* | *..*) fail "The directory $path has characters in it that a service cannot use." ;;
    /?*) ;;
    *) fail "The directory $path must be absolute, and not /." ;;
    esac
  done
}

check_machine() {
  [ "$(uname -s)" = Linux ] || fail "This is $(uname -s); an xfleet server needs Linux."
  case "$(uname -m)" in
  x86_64 | amd64) machine=x86_64 ;;
  aarch64 | arm64) machine=aarch64 ;;
  *) fail "This is $(uname -m); xfleet runs on amd64 and arm64." ;;
  esac
  case "$(ldd --version 2>&1 || true)" in
  *musl*) fail "This system uses musl (Alpine?); xfleet needs glibc: Debian 12, Ubuntu 22.04, RHEL 9 or newer." ;;
  esac
  if [ "$service" = yes ]; then
    [ "$(id -u)" = 0 ] || fail "This must be run by root: put sudo before sh in the line."
    [ -d /run/systemd/system ] || fail "There is no systemd here. Use --no-service, and start $prefix/launch yourself."
  fi
}

read_token() {
  token=''
  if [ -n "$token_file" ]; then
    token=$(tr -d ' \r\n\t' <"$token_file") || fail "Cannot read $token_file."
  elif [ ! -t 0 ]; then
    token=$(tr -d ' \r\n\t')
  fi
  case "$token" in
  *[!A-Za-z0-9_=-]*) fail "This is not an enrollment token. Copy the whole line from the panel again." ;;
  esac
  [ -n "$token" ] || [ -f "$state/identity.json" ] || [ "$(id -u)" != 0 ] ||
    fail "There is no enrollment token on standard input. Copy the whole line from the panel again."
}

# The version as 3.N when it is one that we can use, with everything we need of it.
usable() {
  "$1" -I -c 'import sys, ctypes, ssl, sqlite3, venv
assert sys.implementation.name == "cpython" and sys.version_info[0] == 3
print("3.%d" % sys.version_info[1])' 2>/dev/null || true
}

try_python() {
  found=$(usable "$1")
  minor=${found#3.}
  [ -n "$found" ] && [ "$minor" -ge "$LOWEST_MINOR" ] && [ "$minor" -le "$HIGHEST_MINOR" ] || return 1
  python=$(command -v "$1") python_version=$found
}

# One whose wheels we have comes first; only without any is one installed.
find_python() {
  if [ -n "$python" ]; then
    try_python "$python" || fail "$python is not a CPython 3.$LOWEST_MINOR to 3.$HIGHEST_MINOR with venv, ssl and sqlite3."
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11 python3.14; do
    if try_python "$candidate" && wheels_for "$python_version-$machine" >/dev/null; then return; fi
  done
  for candidate in python3 python3.13 python3.12 python3.11 python3.14; do
    if try_python "$candidate"; then return; fi
  done
  install_python
}

install_python() {
  advice="Install Python 3.$LOWEST_MINOR or newer (with venv), then paste the line again."
  [ "$(id -u)" = 0 ] || fail "$advice"
  if have apt-get; then
    say "Installing Python 3 with apt-get"
    apt-get update -qq </dev/null >/dev/null 2>&1 || true
    for package in python3 python3.13 python3.12 python3.11; do
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" </dev/null \
        >/dev/null 2>&1 || continue
      if try_python "$package"; then return; fi
    done
  elif have dnf; then
    say "Installing Python 3.11 with dnf"
    for package in python3.12 python3.11; do
      dnf install -y -q "$package" </dev/null >/dev/null 2>&1 || continue
      if try_python "$package"; then return; fi
    done
  fi
  fail "$advice"
}

# Fetches what a list names (SHA-256, size, name) into $work, and lets nothing through that is not what was named.
fetch() {
  : >"$work/urls"
  : >"$work/sums"
  printf '%s\n' "$1" | while read -r sum _size name; do
    [ -n "$sum" ] || continue
    printf 'url = "%s/%s/%s"\noutput = "%s/%s"\n' "$from" "$sum" "$name" "$work" "$name" >>"$work/urls"
    printf '%s  %s\n' "$sum" "$work/$name" >>"$work/sums"
  done
  if have curl; then
    curl -fsSk --fail-early --connect-timeout 15 --retry 2 -K "$work/urls" </dev/null 2>"$work/said" || fetch_failed
  elif have wget; then
    sed -n 's/^url = "\(.*\)"$/\1/p' "$work/urls" >"$work/list"
    wget -q --no-check-certificate --timeout=30 -P "$work" -i "$work/list" </dev/null 2>"$work/said" || fetch_failed
  else
    fail "Neither curl nor wget is here. Install curl, then paste the line again."
  fi
  sha256sum -c "$work/sums" >/dev/null 2>&1 ||
    fail "What $from sent is not what this line was made for. Make a new line in the panel."
}

fetch_failed() {
  fail "Cannot fetch from $from: $(tail -n 1 "$work/said" 2>/dev/null | cut -c 1-200). If the panel was upgraded, make a new line."
}

# A new environment, whole or not at all: the mark is written last.
build_release() {
  sum=${WHEEL%% *}
  release=$prefix/releases/$VERSION
  if [ -e "$release/.wheel" ] && [ "$(as_account cat "$release/.wheel")" != "$sum" ]; then
    release=$release-$(printf %s "$sum" | cut -c 1-8)
  fi
  if [ -e "$release/.wheel" ] && as_account "$release/bin/python" -I -c 'import xfleet_agent.app' 2>/dev/null; then
    say "Release $VERSION is already here"
    return
  fi
  as_account rm -rf "$release" || fail "Cannot remove the torn $release. Remove it, then paste the line again."
  list=$(wheels_for "$python_version-$machine") || list=''
  if [ -z "$list" ]; then
    say "The panel has no wheels for Python $python_version on $machine: asking the package index"
  fi
  say "Fetching release $VERSION"
  fetch "$WHEEL
$list"
  printf '%s\n%s\n' "$WHEEL" "$list" | while read -r sum _size name; do
    case "$name" in '' | pip-*) continue ;; esac
    printf 'file://%s/%s --hash=sha256:%s\n' "$work" "$name" "$sum"
  done >"$work/requirements.txt"
  make_environment
  if [ -n "$list" ]; then
    PIP_CONFIG_FILE=/dev/null pip --isolated install --no-index --require-hashes -r "$work/requirements.txt"
  else
    pinned >"$work/pinned.txt"
    pip install --require-hashes --only-binary :all: -r "$work/pinned.txt" -r "$work/requirements.txt"
  fi
  as_account "$release/bin/python" -I -c 'import xfleet_agent.app' 2>"$work/said" ||
    fail "The agent does not start on this machine: $(tail -n 1 "$work/said")"
  printf '%s\n' "${WHEEL%% *}" | write "$release/.wheel"
}

# An environment with a pip to work with: the one that came along, else the distribution's.
make_environment() {
  pip_wheel=$(find "$work" -name 'pip-*.whl' | head -n 1)
  if [ -n "$pip_wheel" ]; then
    as_account "$python" -I -m venv --without-pip "$release" 2>"$work/said" || fail "No environment: $(tail -n 1 "$work/said")"
    printf 'file://%s --hash=sha256:%s\n' "$pip_wheel" "$(sha256sum "$pip_wheel" | cut -d ' ' -f 1)" \
      >>"$work/requirements.txt"
    return
  fi
  as_account "$python" -I -m venv "$release" >"$work/said" 2>&1 && return
  have apt-get && [ "$(id -u)" = 0 ] && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
    --no-install-recommends "python$python_version-venv" </dev/null >/dev/null 2>&1 &&
    as_account "$python" -I -m venv "$release" >"$work/said" 2>&1 && return
  fail "Python's venv does not work here. On Debian or Ubuntu: apt install python3-venv. Then paste the line again."
}

pip() {
  as_account env "PYTHONPATH=$pip_wheel" "$release/bin/python" -m pip --quiet --no-input \
    --disable-pip-version-check --no-cache-dir "$@" </dev/null >"$work/said" 2>&1 ||
    fail "The wheels cannot be installed: $(grep -v '^ *$' "$work/said" | tail -n 1 | cut -c 1-300)"
}

# Whatever is done in $prefix and $state is done as the agent's account: it owns them, and so does Xray, so a link that
# was planted there must lead nowhere where the account itself could not go.
as_account() {
  if [ "$service" = no ] || [ "$(id -u)" != 0 ] || ! id "$ACCOUNT" >/dev/null 2>&1; then
    "$@"
  elif have runuser; then
    (cd / && exec runuser -u "$ACCOUNT" -- env "HOME=$state" "$@")
  else
    (cd / && exec setpriv --reuid "$ACCOUNT" --regid "$ACCOUNT" --init-groups env "HOME=$state" "$@")
  fi
}

# Standard input into a file of the account's.
write() { as_account tee "$1" >/dev/null; }

make_places() {
  if [ "$service" = yes ] && ! id "$ACCOUNT" >/dev/null 2>&1; then
    useradd --system --user-group --home-dir "$state" --no-create-home --shell /usr/sbin/nologin "$ACCOUNT" ||
      fail "The account $ACCOUNT cannot be made."
  fi
  advice="Run this as root, or give --prefix and --state-dir."
  for path in "$prefix" "$state" "$prefix/releases"; do
    [ ! -L "$path" ] || fail "$path is a link. Remove it, or give the directory itself."
  done
  mkdir -p "$prefix" "$state" || fail "Cannot make $prefix and $state. $advice"
  if [ "$service" = yes ]; then chown -h "$ACCOUNT:$ACCOUNT" "$prefix" "$state"; fi
  as_account chmod 0755 "$prefix"
  as_account chmod 0700 "$state"
  as_account mkdir -p "$prefix/releases" || fail "Cannot make $prefix/releases. $advice"
}

# Makes the new release the current one, and the launcher the new one's.
switch() {
  # shellcheck disable=SC2016  # the account's shell expands it
  as_account sh -euc '
    source=$("$2/bin/python" -I -c "import xfleet_agent.launch as l; print(l.__file__)")
    rm -f "$1/.launch.new"
    { printf "#!%s -IS\n" "$3"; cat "$source"; } >"$1/.launch.new"
    chmod 0755 "$1/.launch.new"
    mv -f "$1/.launch.new" "$1/launch"' sh "$prefix" "$release" "$python"
  before=$(as_account readlink "$prefix/current" 2>/dev/null || true)
  target=releases/${release##*/}
  if [ -n "$before" ] && [ "$before" != "$target" ]; then point previous "$before"; fi
  point current "$target"
  as_account rm -f "$prefix/update.json" "$prefix/failed.json"
}

point() {
  as_account rm -f "$prefix/.$1.new"
  as_account ln -s "$2" "$prefix/.$1.new"
  as_account mv -T -f "$prefix/.$1.new" "$prefix/$1"
}

# Once per token: the same line may be pasted again.
enroll() {
  [ -n "$token" ] || { [ -f "$state/identity.json" ] || fail "There is no enrollment token."; return 0; }
  sum=$(printf %s "$token" | sha256sum | cut -c 1-64)
  if [ -f "$state/identity.json" ] && [ "$(as_account cat "$state/joined-with" 2>/dev/null)" = "$sum" ]; then
    say "This machine has already enrolled with this token"
    return
  fi
  stop_agent TERM
  printf '%s' "$token" | as_account "$prefix/current/bin/xfleet-agent" enroll --again --state-dir "$state" \
    --token-file - 2>"$work/said" || fail "$(enrollment_said)"
  printf '%s\n' "$sum" | write "$state/joined-with"
}

enrollment_said() {
  if grep -q '^xfleet: ' "$work/said"; then
    grep '^xfleet: ' "$work/said" | tail -n 1 | sed 's/^xfleet: //'
  else
    printf 'Enrolling failed: %s' "$(tail -n 1 "$work/said" | cut -c 1-300)"
  fi
}

launcher_pid() {
  pid=$(as_account cat "$prefix/launch.lock" 2>/dev/null || true)
  case "$pid" in '' | *[!0-9]*) return 1 ;; esac
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "$prefix/launch" || return 1
  printf '%s' "$pid"
}

# TERM: Xray goes on serving; INT: Xray ends too, after its last byte was counted.
stop_agent() {
  running=$(launcher_pid) || return 0
  # shellcheck disable=SC2016  # the account's shell expands it
  as_account sh -c 'kill "-$1" "$2"' sh "$1" "$running" 2>/dev/null || return 0
  waited=0
  while [ -d "/proc/$running" ] && [ "$waited" -lt 60 ]; do
    sleep 1
    waited=$((waited + 1))
  done
}

# This script as it was checked, for whoever uninstalls: fetched again, nobody would have checked it.
keep_setup() {
  case "$0" in "$SETUP") return 0 ;; */agent.sh) [ -f "$0" ] || return 0 ;; *) return 0 ;; esac
  mkdir -p "${SETUP%/*}"
  kept=$(mktemp "$SETUP.XXXXXXXXXX") || fail "Cannot write $SETUP."
  cat "$0" >"$kept"
  chmod 0755 "$kept"
  mv -T -f "$kept" "$SETUP"
}

start_service() {
  unit_file >"/etc/systemd/system/$UNIT.service"
  systemctl daemon-reload
  systemctl enable --quiet "$UNIT"
  as_account rm -f "$prefix/connected"
  systemctl restart "$UNIT"
  waited=0
  while [ ! -e "$prefix/connected" ]; do
    [ "$waited" -lt 30 ] || fail "The agent runs but is not connected yet. Look at: journalctl -u $UNIT"
    sleep 1
    waited=$((waited + 1))
  done
  say "Online. The panel shows this server now."
}

uninstall() {
  [ "$service" = no ] || [ "$(id -u)" = 0 ] || fail "This must be run by root."
  if [ "$service" = yes ] && [ -e "/etc/systemd/system/$UNIT.service" ]; then
    systemctl disable --quiet "$UNIT" 2>/dev/null || true
  fi
  stop_agent INT
  if [ "$service" = yes ]; then
    systemctl stop "$UNIT" 2>/dev/null || true
    rm -f "/etc/systemd/system/$UNIT.service"
    systemctl daemon-reload 2>/dev/null || true
  fi
  if [ -e "$prefix/launch" ] || [ -d "$prefix/releases" ]; then
    rm -rf "$prefix/releases" "$prefix/downloads"
    rm -f "$prefix/launch" "$prefix/launch.lock" "$prefix/current" "$prefix/previous" "$prefix/connected" \
      "$prefix/update.json" "$prefix/failed.json"
    rmdir "$prefix" 2>/dev/null || true
  fi
  if [ "$purge" = yes ]; then
    [ ! -d "$state" ] || [ -e "$state/state.db" ] || [ -e "$state/identity.json" ] || fail "$state is not an agent's state."
    rm -rf "$state"
    if [ "$service" = yes ]; then
      userdel "$ACCOUNT" 2>/dev/null || true
      rm -f "$SETUP"
    fi
    say "Removed, with its state. Delete or replace the server in the panel."
  else
    say "Removed. Its state is still in $state; --purge removes that too."
  fi
}

# The line's own directory goes too; the shell has read on from a file that has no name any more.
clean_up() {
  rm -rf "${work:-}"
  case "$0" in
  */tmp.??????????/agent.sh)
    rm -f "$0"
    rmdir "${0%/*}" 2>/dev/null || true ;;
  esac
}

main() {
  trap clean_up EXIT
  parse "$@"
  umask 022
  if [ "$action" = uninstall ]; then
    uninstall
    return
  fi
  [ -n "$from" ] || fail "--from URL is missing. Copy the whole line from the panel again."
  check_machine
  read_token
  if [ "$service" = yes ]; then export TMPDIR=/tmp; fi
  work=$(mktemp -d) || fail "There is no room for temporary files."
  chmod 0755 "$work"
  trap 'exit 130' INT TERM HUP
  find_python
  make_places
  build_release
  switch
  enroll
  if [ "$service" = yes ]; then
    keep_setup
    start_service
  else
    say "Ready. Start it with: $prefix/launch --state-dir $state"
  fi
}

main "$@"
