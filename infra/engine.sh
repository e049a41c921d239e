# The container engine and the demo's image; sourced by setup. An engine that is there is used as it is:
# never stopped, never configured.
# shellcheck shell=bash

ENGINE_STATE=$STATE/engine
ENGINE_SECONDS=30
# None: the engine's own defaults. Never --bridge=none: it deletes another engine's docker0.
ENGINE_OPTIONS=()

# engine_answer: print what infra/engine.py found; its exit code says what that means.
engine_answer() { "$VENV/bin/python" infra/engine.py; }

setup_engine() {
  local answer code=0
  answer=$(engine_answer) || code=$?
  case $code in
    0) say engine "$answer: reused" ;;
    2) die "$answer" ;;
    *) provide_engine "$answer" ;;
  esac
}

# provide_engine WHY: none answers; install and start one, or say what has to be done.
provide_engine() {
  local answer
  [[ -z ${DOCKER_HOST:-} ]] || die "$1. DOCKER_HOST says where the engine is: start it there, or unset DOCKER_HOST"
  if ! have dockerd || ! have iptables; then install_engine "$1"; fi
  # The package's own scripts, or systemd, may have started it by now.
  if ! system_engine_starts; then
    can_be_root || die "$1. Starting the engine takes root: start it, or run this with sudo"
    start_engine
  fi
  answer=$(await_engine)
  say engine "$answer: started"
}

install_engine() {
  can_install || die "$1. Install Docker (or another engine with Docker's API) and start it; as root, or with sudo, on Debian or Ubuntu this script does it"
  # Without iptables, which is only recommended, the engine refuses to make its bridge.
  local packages=(docker.io iptables)
  # The image will want it: better now than in a second round.
  static_busybox || packages+=(busybox-static)
  install_packages "${packages[@]}"
}

# system_engine_starts: somebody else starts, or runs, the system's engine; a second one would harm it.
system_engine_starts() {
  if [[ -d /run/systemd/system ]]; then
    can_be_root && as_root systemctl start docker
  else
    [[ -n $(engine_process) ]]
  fi
}

# engine_process: the process id of root's dockerd, if there is a living one.
engine_process() {
  local folder stat
  for folder in /proc/[0-9]*; do
    { read -r stat <"$folder/stat"; } 2>/dev/null || continue
    if [[ $stat == *' (dockerd) '[!ZX]* && $(stat -c %u -- "$folder") == 0 ]]; then
      printf '%s\n' "${folder#/proc/}"
      return
    fi
  done
}

# start_engine: in a session of its own and as nobody's child, so that it outlives this command.
start_engine() {
  mkdir -p -- "$ENGINE_STATE"
  # The lock of setup (9) stays ours.
  as_root setsid --fork dockerd --pidfile "$ENGINE_STATE/dockerd.pid" "${ENGINE_OPTIONS[@]}" \
    >"$ENGINE_STATE/dockerd.log" 2>&1 </dev/null 9>&-
}

# await_engine: print which engine answers, or give up and show why it does not.
await_engine() {
  local answer code begin=$SECONDS
  while :; do
    code=0
    answer=$(engine_answer) || code=$?
    case $code in
      0) printf '%s\n' "$answer" && return ;;
      2) die "$answer" ;;
    esac
    if ((SECONDS - begin >= ENGINE_SECONDS)) || has_ended_early "$begin"; then break; fi
    sleep 0.2
  done
  [[ ! -f $ENGINE_STATE/dockerd.log ]] || show_end "$ENGINE_STATE/dockerd.log"
  die "the engine was started, but does not answer: $answer"
}

# has_ended_early BEGIN: it had time to appear as a process, and there is none.
has_ended_early() { ((SECONDS - $1 >= 2)) && [[ -z $(engine_process) ]]; }

# static_busybox: one that runs in an image that holds nothing else.
static_busybox() {
  local linkage
  have busybox || return
  linkage=$(ldd "$(command -v busybox)" 2>&1) || true
  [[ $linkage == *'not a dynamic'* || $linkage == *'statically linked'* ]]
}

setup_image() {
  local image
  if ! static_busybox && can_install; then install_packages busybox-static; fi
  image=$("$VENV/bin/python" infra/images.py)
  say image "$image"
}
