// What every inference session can do, whichever library runs it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "robustscanner/constraint.hpp"
#include "robustscanner/export.h"
#include "robustscanner/preprocess.hpp"
#include "robustscanner/spec.hpp"

namespace robustscanner {

inline constexpr int max_threads = 1024;

// Threads worth starting: as many as cores are free to use, at least 1. That is less than the machine has under
// taskset, in a container with a CPU limit, and where OMP_NUM_THREADS says so.
ROBUSTSCANNER_EXPORT int available_cores();

// How to run a TensorRT engine; empty: chosen by a short warm-up when it is opened.
struct GpuOptions {
    int device = 0;                       // CUDA's number of the GPU
    std::vector<int> buckets;             // batch sizes to prepare, ascending; empty: the powers of two it can take
    std::optional<int> steps_per_launch;  // decoding steps queued at once; divides the model's max_length
    std::optional<int> lookahead;  // 1: queue the next steps before knowing whether they are needed; 0: ask first
    bool cuda_graphs = true;       // replay recorded launches
    std::string decoder;     // "kernel" or "steps", without any; empty: the kernel an engine has, where it runs here
    bool host_code = false;  // let a version-compatible plan run the code it carries: only of plans that you trust
};

// How to run an engine, as opposed to what it is.
struct SessionOptions {
    int threads = available_cores();  // that share one operator; of the CPU only
    // Idle threads wait busily, for the sake of one word's latency; never where that eats a CPU limit below `threads`.
    bool spinning = true;
    GpuOptions gpu;  // of TensorRT engines only

    // Throws EngineError for what cannot be.
    ROBUSTSCANNER_EXPORT void check() const;
};

// Tokens and their probabilities, (N, T) each; after a row's end token, pad and 1.
struct Result {
    std::vector<std::int32_t> tokens;
    std::vector<float> scores;
};

// One picture's result, and the probability of each class at each step that ran, (steps, classes); none where the
// engine does not tell.
struct Told {
    Result result;
    std::vector<double> chances;
};

// What a run over one picture came by.
struct Trace {
    // (letters or more, classes): of each class at each step; 0 where an engine tells only those of the likeliest.
    std::vector<double> chances;
    std::vector<float> columns;  // (U, classes): what CTC sees in each column; empty where there is no CTC
};

// An opened engine. Any number of threads may run it at once.
class ROBUSTSCANNER_EXPORT Session {
   public:
    Session() = default;
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    virtual ~Session() = default;

    virtual const ModelSpec& spec() const = 0;

    // The most pictures of one run; empty when there is no limit.
    virtual std::optional<int> max_batch() const = 0;

    // What it is and how it runs, in a line.
    virtual std::string description() const = 0;
    // What costs accuracy here, and the cure; empty where all is well.
    virtual std::string warning() const { return {}; }

    // Whether `run` takes what is allowed.
    virtual bool can_constrain() const { return false; }

    // Reads canvases, at least one, of a width that the spec has. Scores are among all tokens, not only the allowed
    // ones. Throws EngineError: the run failed, or the result is no probability.
    virtual Result run(const Canvases& canvases, const Allowed& allowed) = 0;

    // `run` over one canvas, with all that the engine tells.
    virtual Told tell(const Canvases& canvas, const Allowed& allowed) { return {run(canvas, allowed), {}}; }

    // What such a run over one canvas comes by. Throws ConstraintError: the engine does not say; EngineError.
    virtual Trace trace(const Canvases& canvas, const Allowed& allowed);
};

// Checks what came out of a run of `count` pictures against the model's spec.
// Throws EngineError: a wrong shape, scores that are not finite, or ids that no token has.
ROBUSTSCANNER_EXPORT void check_result(const ModelSpec& spec, std::size_t count, const Result& result);

}  // namespace robustscanner
