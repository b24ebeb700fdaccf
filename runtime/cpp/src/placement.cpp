#include "placement.hpp"

#include <dlfcn.h>

#include <filesystem>

namespace robustscanner {

std::string models_folder() {
    static const char inside = 0;  // of the library, or of the program that it was linked into
    Dl_info info{};
    if (!dladdr(&inside, &info) || !info.dli_fname) return ROBUSTSCANNER_MODELS_FROM_LIBRARY;
    std::error_code unknown;
    auto library = std::filesystem::canonical(info.dli_fname, unknown);
    if (unknown) library = info.dli_fname;
    return (library.parent_path() / ROBUSTSCANNER_MODELS_FROM_LIBRARY).lexically_normal().string();
}

}  // namespace robustscanner
