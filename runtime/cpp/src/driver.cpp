#include "driver.hpp"

#include <dlfcn.h>

#include "robustscanner/errors.hpp"

namespace robustscanner {

void* driver_function(const char* name) {
    static void* const library = dlopen("libcuda.so.1", RTLD_NOW);
    void* const found = library ? dlsym(library, name) : nullptr;
    if (!found) throw EngineError(std::string("this driver has no ") + name + "; update it");
    return found;
}

}  // namespace robustscanner
