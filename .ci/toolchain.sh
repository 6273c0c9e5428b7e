# Read by windows-tests and macos-check, not run by itself: a compiler that can build the standard library from its
# sources, for targets that no package carries it for. On Debian, as root, it installs what is missing.
# shellcheck shell=bash
set -euo pipefail

ci=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$ci/.."
cache="${XDG_CACHE_HOME:-$HOME/.cache}/cosave-ci"
mkdir -p "$cache"

# install_missing PACKAGE...
install_missing() {
  local package wanted=()
  for package in "$@"; do
    if [[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]]; then
      wanted+=("$package")
    fi
  done
  [[ ${#wanted[@]} -eq 0 ]] && return
  echo "installing ${wanted[*]}" >&2
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${wanted[@]}" >/dev/null
}

# Debian's cargo, which finds those sources beside itself; -Zbuild-std is let in by the variable.
use_source_toolchain() {
  install_missing rustc-web cargo-web rust-web-src
  unset CARGO RUSTC RUSTUP_TOOLCHAIN RUSTFLAGS
  export PATH="/usr/bin:$PATH" RUSTC_BOOTSTRAP=1
}
