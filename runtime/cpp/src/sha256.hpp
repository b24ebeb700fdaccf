// SHA-256 (FIPS 180-4): one function more here is one library less to link.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace robustscanner {

class Sha256 {
   public:
    void update(const std::uint8_t* data, std::size_t size_bytes);

    // The hash of all that was given, hexadecimal; nothing may be given afterwards.
    std::string finish();

   private:
    void digest(const std::uint8_t* block);

    std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::uint8_t, 64> block_{};
    std::size_t filled_bytes_ = 0;
    std::uint64_t total_bytes_ = 0;
};

}  // namespace robustscanner
