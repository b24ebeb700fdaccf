// Stands in where the library is built without ONNX Runtime.
#include "onnx_session.hpp"
#include "robustscanner/errors.hpp"

namespace robustscanner {

std::unique_ptr<Session> open_onnx(const std::string& path, const SessionOptions&) {
    throw EngineError(path + ": this library was built without ONNX Runtime; configure it with ONNXRUNTIME_ROOT");
}

}  // namespace robustscanner
