# Sourced by scripts/rometrace and scripts/test: installs what is missing and builds. Everything it says goes to stderr.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
build=$root/build/release
log=$root/build/setup.log

debian_packages=(g++ cmake ninja-build pkg-config python3-venv libsentencepiece-dev libcli11-dev nlohmann-json3-dev
  libspdlog-dev libjemalloc-dev libpcre2-dev libicu-dev libcsv-dev zlib1g-dev libssl-dev libcurl4-openssl-dev doctest-dev)

job_gib=2       # memory that one compiler takes, about
report_every=60 # seconds between two lines about a step, where stderr is no terminal

say() { printf 'rometrace setup: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 2
}

# 75 -> "1 min 15 s"
duration() { (($1 < 60)) && echo "$1 s" || echo "$(($1 / 60)) min $(($1 % 60)) s"; }

# Reads what a command prints, passes it on to the log, and says on stderr how far the step is: the command's own count,
# or its last line where it counts nothing, and the time. On a terminal that is one line, rewritten each second; else a line a minute. Ctrl-C is
# for the command: this reads on until its last process has ended.
follow() {
  local step=$1 began=$SECONDS told=$SECONDS width=0 place= line= part= text
  trap '' INT
  if [[ -t 2 ]]; then
    read -r _ width < <(stty size <&2)
    ((width > 40)) || width=80
  fi
  while true; do
    if IFS= read -r -t 1 line; then
      line=$part$line part=
      printf '%s\n' "$line" >>"$log"
      if [[ $line =~ ^\[[1-9][0-9]*/[0-9]+\] ]]; then
        place=" ${BASH_REMATCH[0]}"
      elif [[ $place != " ["* && $line != "[0/"* ]]; then
        place=": ${line//[^[:print:]]/}"
      fi
    elif (($? > 128)); then # nothing for a second, or not a whole line
      part+=$line
    else
      break
    fi
    ((SECONDS - told >= (width ? 1 : report_every))) || continue
    told=$SECONDS
    text="rometrace setup: $step, $(duration $((SECONDS - began)))$place"
    if ((width)); then printf '\r\e[K%s' "${text:0:width-1}" >&2; else printf '%.200s\n' "$text" >&2; fi
  done
  if [[ $part$line ]]; then printf '%s\n' "$part$line" >>"$log"; fi
  if ((width)); then printf '\r\e[K' >&2; fi
}

# logged STEP COMMAND...: runs a command with its output in the log, and says what it does; on failure shows the log's
# end. Needs pipefail.
logged() {
  local step=$1 began=$SECONDS interrupted= failed=
  shift
  say "$step"
  trap interrupted=yes INT
  "$@" 2>&1 | follow "$step" || failed=yes
  trap - INT
  if [[ $interrupted ]]; then
    say "interrupted; the same command goes on from here"
    exit 130
  fi
  if [[ $failed ]]; then
    tail -n 30 "$log" >&2
    fail "this failed: $* (the whole log: $log)"
  fi
  say "$step: done in $(duration $((SECONDS - began)))"
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
    sudo -n true 2>/dev/null || sudo -v || fail "no root, so these Debian packages stay missing: ${missing[*]}" # asks
  fi
  say "these Debian packages are missing: ${missing[*]}"
  logged "reading Debian's package lists" "${as_root[@]}" apt-get update
  logged "installing Debian packages" \
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# Brings the private virtual environment to what a requirements file asks for, once for each version of the file.
install_python_packages() {
  local requirements=$1 stamp
  stamp=$venv/rometrace-$(basename "$(dirname "$requirements")").txt
  cmp -s "$requirements" "$stamp" && return 0
  [[ -x $venv/bin/pip ]] || logged "making ${venv#"$root"/}" python3 -m venv "$venv"
  say "these Python packages go into ${venv#"$root"/}, once: $(grep -v '^#' "$requirements" | tr '\n' ' ')"
  logged "installing Python packages" "$venv/bin/pip" install --disable-pip-version-check -r "$requirements"
  cp "$requirements" "$stamp"
}

configure() {
  cmake --preset release >>"$log" 2>&1
}

# As many compilers at once as cores and memory allow.
parallel_jobs() {
  local cores gib fit
  cores=$(getconf _NPROCESSORS_ONLN)
  gib=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo 2>/dev/null || echo 4)
  fit=$((gib / job_gib))
  echo $((fit < 1 ? 1 : cores < fit ? cores : fit))
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
  logged "building" cmake --build --preset release --parallel "$(parallel_jobs)" --target "$@"
  exec 9>&-
}
