#!/bin/sh
# Runs a command with ONNXRUNTIME_ROOT and ONNXRUNTIME_LIBRARY set, from the top of the checkout. What neither they nor
# the system have is fetched into build/onnxruntime: the headers of Debian 13, which every later library serves, and the
# library of Python's wheel. Nothing is installed.
set -eu
place=$PWD/build/onnxruntime
python=.venv/bin/python
[ -x "$python" ] || python=python3

fail() {
  echo "ONNX Runtime: $1; install its C++ headers and library, or set ONNXRUNTIME_ROOT" >&2
  exit 1
}

private_apt() {
  apt-get -qq -o Dir::Etc::SourceList="$place/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$place/apt/lists" -o Dir::Cache="$place/apt/cache" -o APT::Sandbox::User=root "$@"
}

fetch_headers() {
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "no headers, and no apt-get to fetch Debian's"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)
  [ -n "$mirror" ] || fail "no headers, and no Debian mirror that apt-get knows"
  echo "ONNX Runtime: fetching its headers into $place" >&2
  mkdir -p "$place/apt/lists/partial" "$place/apt/cache/archives/partial"
  keys=/usr/share/keyrings/debian-archive-keyring.gpg
  echo "deb [signed-by=$keys] $mirror trixie main" >"$place/apt/sources.list"
  private_apt update && (cd "$place/apt" && private_apt download libonnxruntime-dev) ||
    fail "its headers were not to be had"
  dpkg-deb -x "$place"/apt/libonnxruntime-dev_*.deb "$place/apt/files"
  mv "$place/apt/files" "$place/root"
  rm -r "$place/apt"
}

wheel_library() {
  "$python" -c 'import importlib.util as u, pathlib as p
spec = u.find_spec("onnxruntime")
print(*list((p.Path(spec.origin).parent / "capi").glob("libonnxruntime.so.1.*"))[:1] if spec else "")'
}

fetch_library() {
  echo "ONNX Runtime: fetching Python's wheel into $place" >&2
  "$python" -m pip install -qq --disable-pip-version-check --no-deps --target "$place/wheel" onnxruntime ||
    fail "its wheel was not to be had"
}

if [ -z "${ONNXRUNTIME_ROOT:-}" ] && [ ! -e /usr/include/onnxruntime ]; then
  [ -e "$place/root" ] || fetch_headers
  ONNXRUNTIME_ROOT=$place/root
  if [ -z "${ONNXRUNTIME_LIBRARY:-}" ]; then
    export PYTHONPATH="$place/wheel"
    [ -n "$(wheel_library)" ] || fetch_library
    ONNXRUNTIME_LIBRARY=$(wheel_library)
    unset PYTHONPATH
    export ONNXRUNTIME_LIBRARY
  fi
  export ONNXRUNTIME_ROOT
fi
exec "$@"
