#!/bin/sh
# Says what is missing here to build the C++ runtime, and fails; says nothing when all is there.
missing=
for tool in cmake c++ ninja ctest; do
  command -v "$tool" >/dev/null || missing="$missing $tool"
done
has() { echo "#include <$1>" | c++ -E -x c++ $3 - >/dev/null 2>&1 || missing="$missing $2"; }
if command -v c++ >/dev/null; then
  root=${ONNXRUNTIME_ROOT:-/usr}
  has opencv2/imgcodecs.hpp libopencv-dev -I/usr/include/opencv4
  has nlohmann/json.hpp nlohmann-json3-dev
  has gtest/gtest.h libgtest-dev
  has onnxruntime_cxx_api.h libonnxruntime-dev \
    "-I$root/include -I$root/include/onnxruntime -I$root/usr/include/onnxruntime"
fi
[ -z "$missing" ] || { echo "C++ runtime: not built, missing$missing"; exit 1; }
