# Podman and a rootless Docker, on which a part of the tests runs again; sourced by test.
# shellcheck shell=bash

setup_other_engines() {
  local packages=()
  have podman || packages+=(podman)
  have catatonit || [[ -x /usr/libexec/podman/catatonit ]] || packages+=(catatonit)
  have rootlesskit || packages+=(rootlesskit)
  have newuidmap || packages+=(uidmap)
  ((${#packages[@]})) || return 0
  if can_install; then
    install_packages "${packages[@]}"
  else
    say engines "without ${packages[*]}: the tests that need them are skipped"
  fi
}
