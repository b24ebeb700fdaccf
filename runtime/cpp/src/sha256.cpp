#include "sha256.hpp"

#include <algorithm>

namespace robustscanner {
namespace {

constexpr std::array<std::uint32_t, 64> round_constants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

constexpr std::uint32_t rotated(std::uint32_t value, int bits) { return value >> bits | value << (32 - bits); }

}  // namespace

void Sha256::update(const std::uint8_t* data, std::size_t size_bytes) {
    total_bytes_ += size_bytes;
    while (size_bytes) {
        if (!filled_bytes_ && size_bytes >= block_.size()) {
            digest(data);
            data += block_.size();
            size_bytes -= block_.size();
            continue;
        }
        const auto taken = std::min(size_bytes, block_.size() - filled_bytes_);
        std::copy_n(data, taken, block_.begin() + static_cast<std::ptrdiff_t>(filled_bytes_));
        data += taken;
        size_bytes -= taken;
        filled_bytes_ += taken;
        if (filled_bytes_ == block_.size()) {
            digest(block_.data());
            filled_bytes_ = 0;
        }
    }
}

std::string Sha256::finish() {
    const std::uint64_t total_bits = total_bytes_ * 8;
    const std::uint8_t one_bit = 0x80, zero = 0;
    update(&one_bit, 1);
    while (filled_bytes_ != block_.size() - 8) update(&zero, 1);
    std::array<std::uint8_t, 8> length{};
    for (std::size_t byte = 0; byte < 8; ++byte)
        length[byte] = static_cast<std::uint8_t>(total_bits >> (56 - 8 * byte));
    update(length.data(), length.size());
    std::string text;
    for (const auto word : state_) {
        for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15];
    }
    return text;
}

void Sha256::digest(const std::uint8_t* block) {
    std::array<std::uint32_t, 64> words{};
    for (std::size_t i = 0; i < 16; ++i) {
        for (std::size_t byte = 0; byte < 4; ++byte) words[i] = words[i] << 8 | block[4 * i + byte];
    }
    for (std::size_t i = 16; i < 64; ++i) {
        const auto a = words[i - 15], b = words[i - 2];
        words[i] = words[i - 16] + (rotated(a, 7) ^ rotated(a, 18) ^ a >> 3) + words[i - 7] +
                   (rotated(b, 17) ^ rotated(b, 19) ^ b >> 10);
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (std::size_t i = 0; i < 64; ++i) {
        const auto first = h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + ((e & f) ^ (~e & g)) +
                           round_constants[i] + words[i];
        const auto second = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + first;
        d = c, c = b, b = a, a = first + second;
    }
    const std::array<std::uint32_t, 8> change = {a, b, c, d, e, f, g, h};
    for (std::size_t i = 0; i < 8; ++i) state_[i] += change[i];
}

}  // namespace robustscanner
