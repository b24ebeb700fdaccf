#include "cpu.hpp"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <thread>
#include <vector>

#include "robustscanner/session.hpp"

namespace robustscanner {
namespace {

using Words = std::vector<std::string>;

Words split(const std::string& text, char separator) {
    Words words;
    std::istringstream stream(text);
    for (std::string word; std::getline(stream, word, separator);) words.push_back(word);
    return words;
}

bool holds(const std::string& list, const std::string& word) {
    const auto words = split(list, ',');
    return std::find(words.begin(), words.end(), word) != words.end();
}

std::optional<double> divided(const std::string& quota, const std::string& period) {
    const double most = std::atof(quota.c_str()), whole = std::atof(period.c_str());  // 0 for "max"
    if (most <= 0 || whole <= 0) return {};
    return most / whole;
}

std::optional<double> quota_of(const std::string& folder) {
    std::string quota, period;
    if (std::ifstream(folder + "/cpu.max") >> quota >> period) return divided(quota, period);
    if (std::ifstream(folder + "/cpu.cfs_quota_us") >> quota &&
        std::ifstream(folder + "/cpu.cfs_period_us") >> period) {
        return divided(quota, period);
    }
    return {};
}

// Of a group at `path` below `place` and of all around it; some may not exist as seen from inside a container.
double smallest_quota(const std::string& place, std::string path) {
    double smallest = std::numeric_limits<double>::infinity();
    for (;; path.erase(path.find_last_of('/'))) {
        smallest = std::min(smallest, quota_of(place + path).value_or(smallest));
        if (path.find('/') == path.npos) return smallest;
    }
}

// OMP_NUM_THREADS, the first number of a list; nothing: not set, or no number from 1.
std::optional<int> openmp_threads() {
    const char* text = std::getenv("OMP_NUM_THREADS");
    const int count = text ? std::atoi(text) : 0;
    return count > 0 ? std::optional<int>(count) : std::nullopt;
}

}  // namespace

int affinity_cores() {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof cores, &cores) == 0) return std::max(CPU_COUNT(&cores), 1);
    return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);  // more than cpu_set_t can hold
}

std::optional<double> cpu_quota(const std::string& root) {
    double smallest = std::numeric_limits<double>::infinity();
    std::ifstream mounts(root + "/proc/self/mounts");
    for (std::string line; std::getline(mounts, line);) {
        auto mount = split(line, ' ');  // what, where, kind, options
        mount.resize(4);
        const bool second = mount[2] == "cgroup2";
        if (!second && (mount[2] != "cgroup" || !holds(mount[3], "cpu"))) continue;
        std::ifstream groups(root + "/proc/self/cgroup");  // "0::/path" is version 2, "4:cpu,cpuacct:/path" version 1
        for (std::string group; std::getline(groups, group);) {
            const auto first = group.find(':'), last = group.find(':', first + 1);
            if (first == group.npos || last == group.npos) continue;
            const auto controllers = group.substr(first + 1, last - first - 1);
            if (second ? controllers.empty() : holds(controllers, "cpu")) {
                smallest = std::min(smallest, smallest_quota(root + mount[1], group.substr(last + 1)));
            }
        }
    }
    return smallest < std::numeric_limits<double>::infinity() ? std::optional<double>(smallest) : std::nullopt;
}

int available_cores() {
    const double cores = affinity_cores();
    return std::max(1, static_cast<int>(std::min({cores, cpu_quota().value_or(cores),
                                                  static_cast<double>(openmp_threads().value_or(max_threads))})));
}

bool int8_saturates([[maybe_unused]] const std::string& root) {
#if defined(__x86_64__) || defined(__i386__)
    std::ifstream facts(root + "/proc/cpuinfo");
    for (std::string line; std::getline(facts, line);) {
        if (line.rfind("flags", 0) != 0) continue;
        const auto flags = split(line, ' ');
        return std::none_of(flags.begin(), flags.end(), [](const std::string& flag) {
            return flag == "avx512_vnni" || flag == "avx_vnni" || flag == "amx_int8";
        });
    }
#endif
    return false;
}

}  // namespace robustscanner
