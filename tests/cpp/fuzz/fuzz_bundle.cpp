// Any bytes as engine.json: read or refused.
#include "robustscanner/engine.hpp"
#include "robustscanner/errors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size_bytes) {
    try {
        robustscanner::EngineManifest::from_json({data, data + size_bytes});
    } catch (const robustscanner::EngineError&) {
    }
    return 0;
}
