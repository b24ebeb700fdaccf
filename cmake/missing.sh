#!/bin/sh
# Says what is missing here to build the C++ runtime, and fails; says nothing when all is there. ONNX Runtime is
# fetched, as `make cpp` does.
missing=
for tool in cmake c++ ninja ctest; do
  command -v "$tool" >/dev/null || missing="$missing $tool"
done
has() { echo "#include <$1>" | c++ -E -x c++ $3 - >/dev/null 2>&1 || missing="$missing $2"; }
if command -v c++ >/dev/null; then
  has opencv2/imgcodecs.hpp libopencv-dev -I/usr/include/opencv4
  has nlohmann/json.hpp nlohmann-json3-dev
  has gtest/gtest.h libgtest-dev
fi
[ -n "$missing" ] || "$(dirname "$0")/onnxruntime.sh" true || missing=" libonnxruntime-dev"
[ -z "$missing" ] || { echo "C++ runtime: not built, missing$missing"; exit 1; }
