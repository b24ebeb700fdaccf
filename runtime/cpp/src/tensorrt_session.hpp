// Runs a TensorRT engine on an NVIDIA GPU.
#pragma once

#include <memory>
#include <string>

#include "robustscanner/engine.hpp"

namespace robustscanner {

// Opens a bundle whose files were checked. Throws EngineError: no GPU, built without TensorRT, plans that cannot be
// opened or are none of ours, too little memory.
std::unique_ptr<Session> open_tensorrt(const std::string& folder, const EngineManifest& manifest,
                                       const SessionOptions& options);

}  // namespace robustscanner
