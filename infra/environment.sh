# Python, uv and the locked packages in .venv; sourced by setup.
# shellcheck shell=bash

PYTHON_CHECK='import sys; (3, 11) <= sys.version_info[:2] <= (3, 14) or sys.exit(1); print(sys.executable)'

# suitable_python: the path of a Python that the project runs on. The executable itself, for a shim may stand in front.
suitable_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
    "$candidate" -c "$PYTHON_CHECK" 2>/dev/null && return
  done
  return 1
}

setup_python_and_git() {
  BASE_PYTHON=$(suitable_python) || die "no Python 3.11 to 3.14 on the PATH; install one (Debian, Ubuntu: apt-get install python3)"
  have git || die "no git on the PATH; install it (Debian, Ubuntu: apt-get install git)"
  say python "$("$BASE_PYTHON" -V | cut -d' ' -f2) at $BASE_PYTHON, $(git --version)"
}

# working_uv: the path of a uv that runs; a shim may be on the PATH without one behind it.
working_uv() {
  local candidate
  for candidate in uv "$STATE/tool/bin/uv"; do
    "$candidate" --version >/dev/null 2>&1 && command -v -- "$candidate" && return
  done
  return 1
}

install_uv() {
  local log=$STATE/tool.log
  rm -rf -- "$STATE/tool"
  if ! "$BASE_PYTHON" -m venv "$STATE/tool" >>"$log" 2>&1; then
    # Debian and Ubuntu ship Python without the part of venv that brings pip.
    can_install || die "$BASE_PYTHON cannot make an environment with pip (see $log); install its venv package, or uv"
    install_packages "python$("$BASE_PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    logged "$log" "$BASE_PYTHON" -m venv --clear "$STATE/tool" || die "cannot make an environment for uv"
  fi
  logged "$log" "$STATE/tool/bin/python" -m pip install --disable-pip-version-check --no-input uv ||
    die "cannot install uv from the package index with pip; see above, or put uv on the PATH yourself"
}

# environment_digest: what .venv was made from. An environment does not survive being moved, so its path belongs to it.
environment_digest() {
  { printf '%s\n' "$ROOT" && cat -- infra/requirements.lock pyproject.toml; } | git hash-object --stdin
}

environment_is_current() {
  "$VENV/bin/python" -c "$PYTHON_CHECK" >/dev/null 2>&1 &&
    [[ $(cat -- "$VENV/batchwright.digest" 2>/dev/null) == "$(environment_digest)" ]]
}

make_environment() {
  local uv=$1 python=$VENV/bin/python
  if ! "$python" -c "$PYTHON_CHECK" >/dev/null 2>&1; then
    rm -rf -- "$VENV"
    "$uv" --quiet venv --python "$BASE_PYTHON" "$VENV"
  fi
  rm -f -- "$VENV/batchwright.digest"
  # sync removes what is not in the lock, the project too: so the project comes after it, every time.
  "$uv" --quiet pip sync --python "$python" --require-hashes --compile-bytecode infra/requirements.lock ||
    die "cannot install the locked packages; behind a mirror, set UV_DEFAULT_INDEX, for uv does not read pip's settings"
  "$uv" --quiet pip install --python "$python" --no-deps --no-build-isolation --editable .
  environment_digest >"$VENV/batchwright.digest"
}

setup_environment() {
  if environment_is_current; then
    say packages "as locked in .venv"
  else
    refresh_environment
  fi
  "$VENV/bin/python" -m compileall -q flows blocks
}

refresh_environment() {
  local uv started=$SECONDS
  if ! uv=$(working_uv); then
    install_uv
    uv=$(working_uv) || die "uv was installed into $STATE/tool, but does not run"
    say uv "installed $("$uv" --version | cut -d' ' -f2) into .state/tool"
  fi
  make_environment "$uv"
  say packages "installed $(grep -c '^[a-z0-9].*==' infra/requirements.lock) packages as locked into .venv ($((SECONDS - started)) s)"
}
