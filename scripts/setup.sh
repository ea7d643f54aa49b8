# Sourced by scripts/rometrace and scripts/test: installs what is missing and builds. Everything it says goes to stderr.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
build=$root/build/release
log=$root/build/setup.log

debian_packages=(g++ cmake ninja-build pkg-config python3-venv libsentencepiece-dev libcli11-dev nlohmann-json3-dev
  libspdlog-dev libjemalloc-dev libpcre2-dev libicu-dev libcsv-dev libssl-dev libcurl4-openssl-dev doctest-dev)

say() { printf 'rometrace setup: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 2
}

# Runs a command with its output in the log; on failure shows the log's end.
logged() {
  if ! "$@" >>"$log" 2>&1; then
    tail -n 30 "$log" >&2
    fail "this failed: $* (the whole log: $log)"
  fi
}

install_packages() {
  command -v dpkg-query >/dev/null || return 0 # not Debian: CMake names what it misses
  local missing=() package
  for package in "${debian_packages[@]}"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  local as_root=()
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null || { ! sudo -n true 2>/dev/null && [[ ! -t 0 ]]; }; then
      fail "these Debian packages are missing; ask an administrator to run: apt-get install ${missing[*]}"
    fi
    as_root=(sudo)
  fi
  say "installing Debian packages: ${missing[*]}"
  logged "${as_root[@]}" apt-get update
  logged "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# Brings the private virtual environment to what a requirements file asks for, once for each version of the file.
install_python_packages() {
  local requirements=$1 stamp
  stamp=$venv/rometrace-$(basename "$(dirname "$requirements")").txt
  cmp -s "$requirements" "$stamp" && return 0
  [[ -x $venv/bin/pip ]] || logged python3 -m venv "$venv"
  say "installing Python packages into .venv: $(grep -v '^#' "$requirements" | tr '\n' ' ')(once; this can take minutes)"
  logged "$venv/bin/pip" install --disable-pip-version-check -r "$requirements"
  cp "$requirements" "$stamp"
}

configure() {
  cmake --preset release >>"$log" 2>&1
}

# As many compilers at once as cores and memory allow: a file that includes libtorch takes about 1 GB.
parallel_jobs() {
  local cores gib
  cores=$(getconf _NPROCESSORS_ONLN)
  gib=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo 2>/dev/null || echo 4)
  echo $((gib < 1 ? 1 : cores < gib ? cores : gib))
}

# build_targets TARGET...: brings the release build of these targets up to date.
build_targets() {
  cd "$root" || exit 2
  mkdir -p "$root/build"
  exec 9>"$root/build/lock"
  flock 9 # two set-ups at once would trip over each other
  : >"$log"
  install_packages
  if [[ ! -e $venv/rometrace-scripts.txt ]] && ! configure; then
    grep -q 'rometrace: libtorch not found' "$log" || { tail -n 30 "$log" >&2; fail "cmake failed (the whole log: $log)"; }
    install_python_packages "$root/scripts/requirements.txt"
  fi
  configure || { tail -n 30 "$log" >&2; fail "cmake failed (the whole log: $log)"; }
  say "building (the first time takes a few minutes)"
  logged cmake --build --preset release --parallel "$(parallel_jobs)" --target "$@"
  exec 9>&-
}
