#!/bin/sh
# PyCUDA for the tests on the stand-in driver, on a machine with CUDA's toolkit but no GPU. pip keeps the wheel.
# Usage: install_pycuda.sh PYTHON
set -eu
python=$1
cd "$(dirname "$0")/../.."
if "$python" -m pip show --quiet pycuda 2>/dev/null; then exit 0; fi
if ! command -v nvcc >/dev/null; then
  echo "no nvcc: the tests of the GPU session will be skipped"
  exit 0
fi
root=$(nvcc -dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')
driver=$("$python" -c 'from tests.cuda_driver.driver import build; print(build())')
cache=$("$python" -m pip cache dir)
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
{ # where PyCUDA's setup looks for its options; it can do without cuRAND, which small toolkits lack
  echo "CUDA_ROOT = '$(cd "$root" && pwd)'"
  [ -e "$root/include/curand.h" ] || echo "CUDA_ENABLE_CURAND = False"
} >"$home/.aksetup-defaults.py"
# The linker wants a libcuda, which comes with a GPU's driver.
HOME=$home PIP_CACHE_DIR=$cache LIBRARY_PATH=$driver${LIBRARY_PATH:+:$LIBRARY_PATH} \
  "$python" -m pip install --quiet --disable-pip-version-check 'pycuda>=2026.1' ||
  echo "PyCUDA could not be built: the tests of the GPU session will be skipped"
