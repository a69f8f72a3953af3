#!/usr/bin/env bash
# Installs what the tests and checks need, pinned, and nothing else. Running it again costs a second.
#
#   scripts/setup.sh            everything
#   scripts/setup.sh tests      what `make test` needs
#   scripts/setup.sh checks     what `make lint` needs
#   scripts/setup.sh STAGE..    some of: system python node cargo autobahn nats clients deploy bench
#
# `nats` brings two releases of nats-server, the newest and the oldest that is supported.
# `bench` draws the plots of benches/run; only who wants those needs it, so it is in no set.
#
# Everything lands in git-ignored folders (.tools, node_modules), except the Debian packages of `system`.
# Where things are found afterwards is written down in scripts/README.md; the Rust tests rely on it.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The languages are the reader's own to install: which way is a matter of taste.
require() {
  have "$1" || fail "$1 is not on the PATH" "$2"
}

require_languages() {
  require cargo "Rust is needed, by rustup: rust-toolchain.toml names the toolchain."
  require cc "a C compiler is needed (Debian: apt-get install build-essential)."
  require python3 "Python 3.9 or newer is needed."
  require node "Node.js 20 or newer is needed."
  require npm "npm is needed; it comes with Node.js."
  require go "Go 1.26.7 or newer is needed, for the test of the generated Go client, for nats-server and for Helm."
}

# apt_install PACKAGE..
apt_install() {
  have apt-get || fail "these Debian packages are needed, and there is no apt-get here: $*" \
    "Install their like for this system by hand, then run this again."
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    have sudo || fail "installing Debian packages needs root, and there is no sudo here" \
      "As root: apt-get install --no-install-recommends $*"
    as_root=(sudo)
    # Nobody is there to type a password: say so instead of waiting for one.
    [ -t 0 ] || as_root=(sudo -n)
  fi
  say "installing Debian packages: $*"
  "${as_root[@]}" apt-get update -qq ||
    say "the package lists could not all be renewed; going on with those at hand"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends "$@" </dev/null >/dev/null ||
    fail "apt-get could not install: $*" "Its own message is above."
}

# Debian packages: a browser for the page of `roomcast dev`, Java for the generated Java client, the scripts' own linter.
setup_system() {
  require_languages
  local missing=()
  have chromium || have chromium-browser || have google-chrome || missing+=(chromium)
  have javac || missing+=(default-jdk-headless)
  have mvn || missing+=(maven)
  have shellcheck || missing+=(shellcheck)
  have systemd-analyze || missing+=(systemd)
  # Debian splits venv from Python; without it the next stage fails in a way that names nothing.
  python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
  if [ "${#missing[@]}" -gt 0 ]; then apt_install "${missing[@]}"; fi
}

# A virtual environment with the packages of a list, checked against their digests.
python_packages() {
  local venv=$1 pins=$2
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --require-hashes --no-deps --requirement "$pins"
}

# .tools/venv: Python packages, checked against their digests.
setup_python() {
  local pins=tests/tools/requirements.txt
  if stamp_is python "$pins" && [ -x "$tools/venv/bin/python" ]; then return; fi
  say "installing Python packages into .tools/venv"
  rm -rf "$tools/venv"
  python_packages "$tools/venv" "$pins"
  stamp python "$pins"
}

# tests/node_modules: npm packages, exactly as locked, without running their install scripts.
setup_node() {
  local locks=(tests/package.json tests/package-lock.json)
  if stamp_is node "${locks[@]}" && [ -d tests/node_modules ]; then return; fi
  say "installing npm packages into tests/node_modules"
  npm ci --prefix tests --ignore-scripts --no-audit --no-fund --loglevel=error
  stamp node "${locks[@]}"
}

# .tools/cargo: checks that come as Rust programs and are nowhere to be had prebuilt.
setup_cargo() {
  local pins=tests/tools/cargo.txt
  if stamp_is cargo "$pins"; then return; fi
  local name version
  while read -r name version; do
    case $name in '' | '#'*) continue ;; esac
    say "building $name $version into .tools/cargo"
    # Unoptimized: they run for a second here, and optimizing them takes minutes.
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --debug --locked --root "$tools/cargo" \
      --target-dir "$tools/cargo-build" --version "$version" "$name" </dev/null
  done <"$pins"
  rm -rf "$tools/cargo-build"
  stamp cargo "$pins"
}

# Prints a Python 2.7 that runs. pyenv leaves a `python2.7` on the PATH that only says how to have one.
find_python2() {
  local candidate
  for candidate in "${PYTHON2:-}" python2.7 python2 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python2.7 "$tools/python2/usr/bin/python2.7"; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys, ssl; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# Unpacks Python 2.7 from Debian 11, the last release with it, into .tools/python2. Through apt, so that its
# signatures are checked, but with lists and folders of its own: the system's packages are neither asked nor changed.
unpack_python2() {
  local apt=$tools/python2/apt mirror options
  have apt-get && have dpkg && [ -r /etc/os-release ] || return 1
  # shellcheck disable=SC2016 # apt's own placeholders
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 2>/dev/null | awk '$2 == "Debian" && !/security/ { print $1; exit }')
  [ -n "$mirror" ] || return 1
  say "unpacking Python 2.7 into .tools/python2"
  rm -rf "$tools/python2"
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bullseye main" >"$apt/sources.list"
  options=(-qq -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State=$apt"
    -o Dir::State::Status=/dev/null -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=)
  apt-get "${options[@]}" update || return 1
  (cd "$apt" && apt-get "${options[@]}" download python2.7-minimal libpython2.7-minimal libpython2.7-stdlib \
    libpython2.7-dev libssl1.1 libffi7) || return 1
  local package
  for package in "$apt"/*.deb; do dpkg -x "$package" "$tools/python2"; done
  rm -rf "$apt"
}

# .tools/autobahn: the WebSocket conformance suite, which has never left Python 2.7.
setup_autobahn() {
  local pins=tests/tools/autobahn.txt python2
  if stamp_is autobahn "$pins" && [ -x "$tools/autobahn/bin/wstest" ]; then return; fi
  # An unpacked Python finds its libraries only by this; any other does not mind.
  LD_LIBRARY_PATH=$tools/python2/usr/lib/$(uname -m)-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export LD_LIBRARY_PATH
  if ! python2=$(find_python2); then
    if have apt-cache && apt-cache show python2.7-dev >/dev/null 2>&1; then
      apt_install python2.7 python2.7-dev
    else
      unpack_python2 || say "Python 2.7 could not be unpacked from Debian 11"
    fi
    python2=$(find_python2) || fail "the Autobahn test suite needs Python 2.7, and none was found" \
      "Install one (pyenv install 2.7.18), or name it: PYTHON2=/path/to/python2.7 make setup"
  fi
  setup_python # brings virtualenv
  say "installing the Autobahn test suite into .tools/autobahn ($python2)"
  rm -rf "$tools/autobahn"
  "$tools/venv/bin/virtualenv" --quiet --no-periodic-update --python "$python2" "$tools/autobahn"
  # Its pip prints two pages on the end of Python 2.7; only a failure is worth reading.
  "$tools/autobahn/bin/python" -m pip install --disable-pip-version-check \
    --no-deps --requirement "$pins" >"$tools/autobahn.log" 2>&1 ||
    { tail -n 30 "$tools/autobahn.log" >&2; fail "pip could not install the Autobahn test suite"; }
  stamp autobahn "$pins"
}

# .tools/nats and .tools/nats-floor: nats-server as it is today, and the oldest that is supported.
setup_nats() {
  local pins=tests/tools/nats.txt floor=tests/tools/nats-floor.txt
  if ! stamp_is nats "$pins" || ! [ -x "$tools/nats/bin/nats-server" ]; then
    setup_python # brings pip
    say "installing nats-server into .tools/nats"
    rm -rf "$tools/nats"
    "$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-warn-script-location \
      --require-hashes --no-deps --only-binary :all: --prefix "$tools/nats" --requirement "$pins"
    stamp nats "$pins"
  fi
  if ! stamp_is nats-floor "$floor" || ! [ -x "$tools/nats-floor/bin/nats-server" ]; then
    say "building the oldest supported nats-server into .tools/nats-floor"
    rm -rf "$tools/nats-floor"
    CGO_ENABLED=0 GOBIN=$tools/nats-floor/bin GOFLAGS=-buildvcs=false go install -trimpath -ldflags '-s -w' \
      "$(grep -v '^#' "$floor")"
    stamp nats-floor "$floor"
  fi
}

# The generated clients: each knows best what it needs.
setup_clients() {
  local script
  for script in tests/clients/*/setup.sh; do
    [ -e "$script" ] || continue
    bash "$script" </dev/null || fail "$script failed" "What it said is above."
  done
}

# .tools/deploy: what renders and checks chart, container files and alert rules. Helm takes most of the time: about two minutes on two cores.
setup_deploy() {
  local folder=tests/deploy out=$tools/deploy inputs verb module file crds=()
  inputs=("$folder/requirements.txt" "$folder/go.txt" "$folder/schemas.py" "$folder/promcheck/go.sum" "$folder/promcheck/main.go")
  if stamp_is deploy "${inputs[@]}" && [ -x "$out/bin/helm" ]; then return; fi
  say "installing what checks the deployment into .tools/deploy"
  rm -rf "$out"
  python_packages "$out/venv" "$folder/requirements.txt"
  export CGO_ENABLED=0 GOBIN=$out/bin GOFLAGS=-buildvcs=false
  while read -r verb module file; do
    case $verb in
      install) go install -trimpath -ldflags '-s -w' "$module" ;;
      schema) crds+=("$(module_folder "$module")/$file") ;;
    esac
  done <"$folder/go.txt"
  mv "$out/bin/cmd" "$out/bin/compose-check"
  (cd "$folder/promcheck" && go install -trimpath -ldflags '-s -w' .)
  # As JSON schemas; the packages themselves are large, and done with.
  "$out/venv/bin/python" "$folder/schemas.py" \
    "$(echo "$out"/venv/lib/python3*/site-packages/kubernetes_validate/kubernetes-json-schema)" "$out/schemas" "${crds[@]}"
  rm -rf "$out"/venv/lib/python3*/site-packages/kubernetes_validate
  stamp deploy "${inputs[@]}"
}

# Prints the folder of a Go module at its version, after it was downloaded and checked.
module_folder() {
  go mod download -json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])'
}

# .tools/bench: what draws the plots of benches/run, checked against its digests.
setup_bench() {
  local pins=benches/table/requirements.txt
  if stamp_is bench "$pins" && [ -x "$tools/bench/bin/python" ]; then return; fi
  say "installing what draws plots into .tools/bench"
  rm -rf "$tools/bench"
  python3 -m venv "$tools/bench"
  "$tools/bench/bin/python" -m pip install --quiet --disable-pip-version-check \
    --require-hashes --no-deps --only-binary :all: --requirement "$pins"
  stamp bench "$pins"
}

main() {
  local stages stage
  case "${*:-all}" in
    all) stages=(system python node autobahn nats clients deploy cargo) ;;
    tests) stages=(system python node autobahn nats clients deploy) ;;
    checks) stages=(system python cargo) ;;
    *) stages=("$@") ;;
  esac
  for stage in "${stages[@]}"; do
    declare -F "setup_$stage" >/dev/null || fail "there is no stage called $stage" \
      "There are: system python node autobahn nats clients deploy cargo bench, and the sets tests, checks and all."
    "setup_$stage"
  done
}

main "$@"
