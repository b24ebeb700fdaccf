// How much of this machine's CPU the process may use.
#pragma once

#include <optional>
#include <string>

namespace robustscanner {

// Logical cores that this process may be put on.
int affinity_cores();

// CPU seconds that the control groups of Linux (containers, systemd) allow this process a second; nothing: any number.
// The smallest of the limits of its own group and of those around it counts; see the kernel's cgroup-v2.rst, and
// sched-bwc.rst for version 1. A container often sees its own group as the root.
std::optional<double> cpu_quota(const std::string& root = "");

// Whether this CPU adds products of bytes and 8-bit weights in 16 bits, where they can saturate: x86 without VNNI or AMX.
// Unknown, and so false, where Linux does not tell.
bool int8_saturates(const std::string& root = "");

}  // namespace robustscanner
