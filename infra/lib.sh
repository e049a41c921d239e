# Shared by the scripts of this folder; sourced, never run. Paths, talking to the reader, becoming root.
# shellcheck shell=bash
# shellcheck disable=SC2034  # its names are used by those who source it

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
# Logs, tools and the demo's files: everything that the scripts leave in the checkout, beside .venv.
STATE=$ROOT/.state
VENV=$ROOT/.venv
cd -- "$ROOT" || exit

# An activated environment, or one chosen for another project, must not decide where ours goes.
unset VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH UV_PYTHON UV_SYSTEM_PYTHON UV_PROJECT_ENVIRONMENT
# Without bytecode every start of Prefect costs seconds.
unset PYTHONDONTWRITEBYTECODE
# dockerd and iptables are found even where the PATH is a user's.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# say SUBJECT TEXT...: one fact, one line.
say() {
  local subject=$1
  shift
  printf '%-10s %s\n' "$subject" "$*"
}

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# have COMMAND: it is on the PATH.
have() { command -v -- "$1" >/dev/null 2>&1; }

# logged LOG COMMAND...: run it quietly; when it fails, show the end of its log.
logged() {
  local log=$1
  shift
  "$@" >>"$log" 2>&1 && return
  show_end "$log"
  return 1
}

show_end() {
  printf -- '--- the end of %s\n' "$1" >&2
  tail -n 20 -- "$1" >&2
  printf -- '---\n' >&2
}

can_be_root() {
  ((EUID == 0)) && return
  have sudo || return
  sudo -n true 2>/dev/null || [[ -t 0 ]]
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo -- "$@"; fi
}

# can_install: this is Debian, Ubuntu or a relative, and we may install packages.
can_install() { have apt-get && have dpkg-query && can_be_root; }

# install_packages NAME...: from the distribution, without what is only recommended.
install_packages() {
  local log=$STATE/apt.log apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -y)
  # An outdated package list may still do: what counts is that the installation works.
  as_root "${apt[@]}" update >>"$log" 2>&1 || say packages "apt-get update failed, going on (see $log)"
  logged "$log" as_root "${apt[@]}" install --no-install-recommends "$@" ||
    die "cannot install $* with apt-get; see above, and $log"
  say packages "installed from the distribution: $*"
}
