// Runs the one graph on the CPU: the only file that uses ONNX Runtime.
#pragma once

#include <memory>
#include <string>

#include "robustscanner/session.hpp"

namespace robustscanner {

// Throws EngineError: not a readable ONNX file, not one of our models, or beyond this ONNX Runtime.
std::unique_ptr<Session> open_onnx(const std::string& path, const SessionOptions& options);

}  // namespace robustscanner
