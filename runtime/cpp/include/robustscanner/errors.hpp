// What can go wrong. Every message is one line: the cause, then the cure.
#pragma once

#include <stdexcept>

#include "robustscanner/export.h"

namespace robustscanner {

// Anything the user can fix; programs print it as `error: …` and exit with 1.
class ROBUSTSCANNER_EXPORT Error : public std::runtime_error {
   public:
    using std::runtime_error::runtime_error;
};

// A model description that contradicts itself or does not fit its weights or graph.
class ROBUSTSCANNER_EXPORT SpecError : public Error {
   public:
    using Error::Error;
};

// A picture that cannot be read or is beyond the limits.
class ROBUSTSCANNER_EXPORT ImageError : public Error {
   public:
    using Error::Error;
};

// An engine, ONNX file or runtime that cannot be used here.
class ROBUSTSCANNER_EXPORT EngineError : public Error {
   public:
    using Error::Error;
};

// What a text may be cannot be heeded: no pattern, or not by this model or engine.
class ROBUSTSCANNER_EXPORT ConstraintError : public Error {
   public:
    using Error::Error;
};

}  // namespace robustscanner
