# Read by run, msrv, windows-tests and macos-check, not run by itself: how packages are installed, what a script says that
# cannot run here, and a compiler that can build the standard library from its sources, for targets that no package
# carries it for.
# shellcheck shell=bash
set -euo pipefail

ci=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$ci/.."
cache="${XDG_CACHE_HOME:-$HOME/.cache}/cosave-ci"
mkdir -p "$cache"

# cannot_run REASON: ends the script with 3, which `run` takes for "left out". Only for what this machine cannot do
# whatever one tries; anything else is a failure.
cannot_run() {
  echo "cannot run here: $*"
  exit 3
}

is_installed() {
  [[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

# install_missing PACKAGE...: needs root on a Debian whose package lists have them.
install_missing() {
  local package wanted=() unknown=()
  for package in "$@"; do
    is_installed "$package" || wanted+=("$package")
  done
  [[ ${#wanted[@]} -eq 0 ]] && return
  command -v apt-get >/dev/null || cannot_run "no apt-get to install ${wanted[*]} with"
  [[ "$(id -u)" == 0 ]] || cannot_run "only root can install ${wanted[*]}"
  [[ -n "${PACKAGE_LISTS_ARE_NEW:-}" ]] || apt-get -qq update || cannot_run "the package lists cannot be fetched"
  for package in "${wanted[@]}"; do
    apt-cache policy "$package" | grep 'Candidate: [^(]' >/dev/null || unknown+=("$package")
  done
  [[ ${#unknown[@]} -eq 0 ]] || cannot_run "no package ${unknown[*]} for this system"
  echo "installing ${wanted[*]}" >&2
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${wanted[@]}" >/dev/null
}

# Debian's cargo, which finds those sources beside itself; -Zbuild-std is let in by the variable.
use_source_toolchain() {
  install_missing rustc-web cargo-web rust-web-src
  unset CARGO RUSTC RUSTUP_TOOLCHAIN RUSTFLAGS
  export PATH="/usr/bin:$PATH" RUSTC_BOOTSTRAP=1
}
