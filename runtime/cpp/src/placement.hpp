// Where the library lies, and what was installed with it.
#pragma once

#include <string>

namespace robustscanner {

// The folder of the shipped models.
std::string models_folder();

}  // namespace robustscanner
