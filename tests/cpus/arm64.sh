#!/bin/sh
# Unpacks Debian's Python 3.11 for arm64 and the packages that the library needs into build/cpus/arm64. Nothing is installed.
set -eu
cd "$(dirname "$0")/../.."
place=$PWD/build/cpus
[ -e "$place/arm64.done" ] && exit
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)
[ -n "$mirror" ] || { echo "arm64: no Debian mirror that apt-get knows" >&2; exit 1; }
rm -rf "$place/apt" "$place/arm64"
mkdir -p "$place/apt/lists/partial" "$place/apt/cache/archives/partial" "$place/arm64"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] $mirror bookworm main" >"$place/apt/sources.list"
private_apt() {
  apt-get -qq -o Dir::Etc::SourceList="$place/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$place/apt/lists" -o Dir::Cache="$place/apt/cache" -o APT::Sandbox::User=root \
    -o APT::Architecture=arm64 -o APT::Architectures::=arm64 "$@"
}
private_apt update
python="python3.11-minimal libpython3.11-minimal libpython3.11-stdlib"
# shellcheck disable=SC2086  # a list
(cd "$place/apt" && private_apt download $python libc6 libstdc++6 libgcc-s1 zlib1g libexpat1 libffi8 libssl3 \
  libbz2-1.0 liblzma5 libsqlite3-0 libuuid1)
for package in "$place"/apt/*.deb; do dpkg-deb -x "$package" "$place/arm64"; done
# ONNX Runtime 1.22: newer ones crash in emulation, when they ask what the CPU can do.
.venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --target "$place/arm64/packages" \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 \
  --platform manylinux2014_aarch64 --python-version 311 --only-binary :all: \
  numpy opencv-python-headless onnxruntime==1.22.1
rm -r "$place/apt"
touch "$place/arm64.done"
