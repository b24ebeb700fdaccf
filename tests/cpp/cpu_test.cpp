// How much of the CPU a process may use, as its control groups say.
#include "cpu.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "robustscanner/session.hpp"

namespace robustscanner {
namespace {

namespace fs = std::filesystem;

// A root folder as a process sees it, and the quota in it; -1: none.
double quota_in(const std::string& mounts, const std::string& groups, std::map<std::string, std::string> files) {
    const auto root = fs::path(testing::TempDir()) / "cpu_test";
    fs::remove_all(root);
    files["proc/self/mounts"] = mounts;
    files["proc/self/cgroup"] = groups;
    for (const auto& [name, text] : files) {
        fs::create_directories((root / name).parent_path());
        std::ofstream(root / name) << text;
    }
    return cpu_quota(root.string()).value_or(-1);
}

TEST(CpuQuota, OfVersion2) {
    const std::string mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
    EXPECT_EQ(quota_in(mounts, "0::/\n", {{"sys/fs/cgroup/cpu.max", "50000 100000\n"}}), 0.5);
    EXPECT_EQ(quota_in(mounts, "0::/\n", {{"sys/fs/cgroup/cpu.max", "max 100000\n"}}), -1);
    EXPECT_EQ(quota_in(mounts, "0::/\n", {}), -1);
    EXPECT_EQ(quota_in(mounts, "0::/a/b\n",
                       {{"sys/fs/cgroup/a/cpu.max", "150000 100000"}, {"sys/fs/cgroup/a/b/cpu.max", "max 100000"}}),
              1.5);
    EXPECT_EQ(quota_in(mounts, "nonsense\n", {{"sys/fs/cgroup/cpu.max", "nonsense"}}), -1);
}

TEST(CpuQuota, OfVersion1) {
    const std::string mounts =
        "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
        "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n";
    const std::string groups = "5:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n0::/\n", cpu = "sys/fs/cgroup/cpu,cpuacct/";
    EXPECT_EQ(quota_in(mounts, groups,
                       {{cpu + "docker/ab/cpu.cfs_quota_us", "25000\n"}, {cpu + "docker/ab/cpu.cfs_period_us", "50000"}}),
              0.5);
    EXPECT_EQ(quota_in(mounts, groups, {{cpu + "cpu.cfs_quota_us", "300000"}, {cpu + "cpu.cfs_period_us", "100000"}}), 3);
    EXPECT_EQ(quota_in(mounts, groups, {{cpu + "cpu.cfs_quota_us", "-1"}, {cpu + "cpu.cfs_period_us", "100000"}}), -1);
}

#if defined(__x86_64__)
TEST(Int8, SaturatesWithoutVnni) {
    const auto root = fs::path(testing::TempDir()) / "cpu_test";
    fs::create_directories(root / "proc");
    const auto saturates = [&](const std::string& facts) {
        std::ofstream(root / "proc/cpuinfo") << facts;
        return int8_saturates(root.string());
    };
    EXPECT_TRUE(saturates("processor\t: 0\nflags\t\t: fpu avx avx2\n"));
    EXPECT_FALSE(saturates("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n"));
    EXPECT_FALSE(saturates("flags\t\t: amx_int8 avx2\n"));
    EXPECT_FALSE(saturates("nothing known\n"));
}
#endif

TEST(AvailableCores, FollowOpenMp) {
    setenv("OMP_NUM_THREADS", "1,4", 1);
    EXPECT_EQ(available_cores(), 1);
    setenv("OMP_NUM_THREADS", "many", 1);
    EXPECT_GE(available_cores(), 1);
    unsetenv("OMP_NUM_THREADS");
}

}  // namespace
}  // namespace robustscanner
