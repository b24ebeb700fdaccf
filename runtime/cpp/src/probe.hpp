// How likely each letter of a text is, and what else it might be, of a decoder that only tells what it reads; the rules
// are those of Python's gpu/probe.py.
#pragma once

#include <functional>
#include <vector>

#include "robustscanner/session.hpp"

namespace robustscanner {

// The chances of a `Trace`, by a run for the text itself and two for each letter, in which what was found before may
// not stand there. `forced`: allows one text.
std::vector<double> probe(const std::function<Result(const Allowed&)>& run, const Allowed& forced,
                          const ModelSpec& spec);

}  // namespace robustscanner
