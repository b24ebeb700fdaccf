// Stands in where the library is built without TensorRT.
#include "robustscanner/errors.hpp"
#include "tensorrt_session.hpp"

namespace robustscanner {

std::unique_ptr<Session> open_tensorrt(const std::string& folder, const EngineManifest& manifest,
                                       const SessionOptions&) {
    const std::string product = manifest.backend == "tensorrt" ? "TensorRT" : "TensorRT-RTX";
    throw EngineError(folder + ": made for " + product + ", which this library was built without; configure it with " +
                      "TENSORRT_ROOT, or use an engine for ONNX Runtime: build_engine.py --backend onnxruntime");
}

}  // namespace robustscanner
