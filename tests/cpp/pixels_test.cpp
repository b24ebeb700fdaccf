// The library without OpenCV's imgcodecs: pixels, and PPM for those who have no camera.
#include <gtest/gtest.h>

#include "robustscanner/recognizer.hpp"

namespace robustscanner {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes ppm(const std::string& header, std::size_t pixel_bytes) {
    Bytes file(header.begin(), header.end());
    for (std::size_t at = 0; at < pixel_bytes; ++at) file.push_back(static_cast<std::uint8_t>(at * 7));
    return file;
}

std::string complaint(const Bytes& file) {
    try {
        decode_image(file.data(), file.size());
    } catch (const ImageError& error) {
        return error.what();
    }
    return "";
}

TEST(Ppm, IsRead) {
    const auto file = ppm("P6 # a comment\n#another\n30\t20\n255\n", 30 * 20 * 3);
    const auto image = decode_image(file.data(), file.size());
    EXPECT_EQ(image.width, 30);
    EXPECT_EQ(image.height, 20);
    ASSERT_EQ(image.pixels.size(), 30u * 20 * 3);
    EXPECT_EQ(image.pixels[1], 7);
    EXPECT_EQ(image.pixels.back(), file.back());
}

TEST(Ppm, IsTheOnlyFile) {
    const std::string no_file = "this library was built without picture files other than PPM";
    EXPECT_EQ(complaint(ppm("P6\n30 20\n65535\n", 30 * 20 * 6)).find(no_file), 0u);
    EXPECT_EQ(complaint(ppm("P5\n30 20\n255\n", 30 * 20)).find(no_file), 0u);
    EXPECT_EQ(complaint(ppm("P6\n0 20\n255\n", 100)).find(no_file), 0u);
    EXPECT_EQ(complaint(ppm("P6\n30 20\n255\n", 30 * 20 * 3 - 1)), "truncated; copy or download it again");
    EXPECT_EQ(complaint(ppm("P6\n30 20\n255", 0)), "truncated; copy or download it again");
    EXPECT_EQ(complaint(ppm("P6\n99999999999 99999999999\n255\n", 9)), "over 67 megapixels; crop the word out of it");
    EXPECT_EQ(complaint({'B', 'M', 0, 0}).find(no_file), 0u);
}

TEST(Pixels, AreReadAsTheSamePpm) {
    SessionOptions options;
    options.threads = 1;
    const Recognizer recognizer(TINY_MODEL, options);
    const auto file = ppm("P6 30 20 255\n", 30 * 20 * 3);
    const auto reading = recognizer.read(ImageView{file.data() + 13, 20, 30});
    EXPECT_EQ(recognizer.read(EncodedImage{file.data(), file.size()}).text, reading.text);
    EXPECT_GT(reading.score, 0);
}

}  // namespace
}  // namespace robustscanner
