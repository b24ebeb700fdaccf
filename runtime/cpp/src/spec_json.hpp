// JSON to structures, checked field by field.
#pragma once

#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "robustscanner/spec.hpp"
#include "wording.hpp"

namespace robustscanner {

// Throws SpecError: no JSON, or nested more deeply than anything of ours.
Json parsed(const std::string& text);

// The spec in JSON that was parsed already. Throws SpecError.
ModelSpec spec_from(const Json& data);

// The keys of an object that are in `left` and not in `right`.
std::set<std::string> without(const std::set<std::string>& left, const std::set<std::string>& right);
std::set<std::string> keys_of(const Json& object);

// Whether a number is a whole one, and small enough for an int.
bool is_int(const Json& value);

}  // namespace robustscanner
