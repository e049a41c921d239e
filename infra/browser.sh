# Chromium for the tests of the dashboard; sourced by test. One that is there is used as it is.
# shellcheck shell=bash

setup_browser() {
  local candidate
  for candidate in chromium chromium-browser google-chrome; do
    if have "$candidate"; then
      say browser "$candidate: reused"
      return
    fi
  done
  if can_install; then
    install_packages chromium fonts-dejavu-core
  else
    say browser "none: the tests marked browser will fail; install Chromium"
  fi
}
