// Pictures to canvases, and what is refused with which words.
#include "robustscanner/preprocess.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <opencv2/imgcodecs.hpp>

#include "robustscanner/errors.hpp"

namespace robustscanner {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes encoded(const std::string& suffix, const cv::Mat& picture) {
    Bytes bytes;
    cv::imencode(suffix, picture, bytes);
    return bytes;
}

// Red at the left, blue at the right.
cv::Mat red_blue() {
    cv::Mat picture(40, 100, CV_8UC3, cv::Scalar(0, 0, 255));
    picture.colRange(50, 100).setTo(cv::Scalar(255, 0, 0));
    return picture;
}

std::string complaint(const Bytes& bytes) {
    try {
        decode_image(bytes.data(), bytes.size());
    } catch (const ImageError& error) {
        return error.what();
    }
    return "";
}

void put_big(Bytes& bytes, std::size_t at, std::uint32_t value, int count) {
    for (int index = 0; index < count; ++index) {
        bytes[at + static_cast<std::size_t>(index)] = static_cast<std::uint8_t>(value >> 8 * (count - 1 - index));
    }
}

TEST(DecodeImage, GivesRgb) {
    for (const char* suffix : {".png", ".jpg", ".webp", ".bmp", ".tiff", ".ppm"}) {
        const auto bytes = encoded(suffix, red_blue());
        const auto image = decode_image(bytes.data(), bytes.size());
        ASSERT_EQ(image.height, 40) << suffix;
        ASSERT_EQ(image.width, 100) << suffix;
        EXPECT_GT(image.pixels[0], 200) << suffix;
        EXPECT_LT(image.pixels[2], 50) << suffix;
        EXPECT_GT(image.pixels[99 * 3 + 2], 200) << suffix;
    }
}

TEST(DecodeImage, LaysTransparencyOverWhite) {
    cv::Mat ink(4, 4, CV_8UC4, cv::Scalar(0, 0, 0, 0)), deep(4, 4, CV_16UC4, cv::Scalar(0, 0, 0, 65535));
    auto bytes = encoded(".png", ink);
    EXPECT_EQ(decode_image(bytes.data(), bytes.size()).pixels[0], 255);
    bytes = encoded(".png", deep);
    EXPECT_EQ(decode_image(bytes.data(), bytes.size()).pixels[0], 0);
}

TEST(DecodeImage, RefusesWhatIsNoPicture) {
    EXPECT_EQ(complaint({}), "empty file; copy or download it again");
    EXPECT_NE(complaint(Bytes(1000)).find("not a picture"), std::string::npos);
    for (const char* suffix : {".png", ".jpg", ".webp"}) {
        auto bytes = encoded(suffix, red_blue());
        bytes.resize(bytes.size() / 2);
        EXPECT_NE(complaint(bytes), "") << suffix;
    }
    auto damaged = encoded(".png", red_blue());
    damaged[45] ^= 0xff;
    EXPECT_EQ(complaint(damaged), "damaged; copy or download it again");
}

TEST(DecodeImage, RefusesBombsBeforeTheyGrow) {
    const std::string too_large = "over 67 megapixels; crop the word out of it";
    auto png = encoded(".png", red_blue()), jpeg = encoded(".jpg", red_blue()), bmp = encoded(".bmp", red_blue()),
         webp = encoded(".webp", red_blue());
    put_big(png, 16, 50000, 4), put_big(png, 20, 50000, 4);
    for (std::size_t at = 0; at + 9 < jpeg.size(); ++at) {
        if (jpeg[at] == 0xff && jpeg[at + 1] == 0xc0) {
            put_big(jpeg, at + 5, 60000, 2), put_big(jpeg, at + 7, 60000, 2);
            break;
        }
    }
    bmp[20] = bmp[24] = 1;  // 65536 and more of each side
    EXPECT_EQ(complaint(png), too_large);
    EXPECT_EQ(complaint(jpeg), too_large);
    EXPECT_EQ(complaint(bmp), too_large);
    for (const std::string pnm : {"P4\n# a comment\n9000 9000\n", "P6\n9999;99999;255\n", "P6#\r9000 9000 255\n"}) {
        EXPECT_EQ(complaint(Bytes(pnm.begin(), pnm.end())), too_large);
    }
    auto tiff = Bytes{'I', 'I', 42, 0, 8, 0, 0, 0, 2, 0, 0, 1, 4, 0, 1, 0, 0, 0, 0,
                      0,   1,   0,  1, 1, 4, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0};
    EXPECT_EQ(complaint(tiff), too_large);
    auto hidden = jpeg;                                       // libjpeg looks for the next marker after garbage
    hidden.insert(hidden.begin() + 20, {'x', 0xff, 0, 'y'});  // after the JFIF segment
    EXPECT_EQ(complaint(hidden), too_large);
    tiff[12] = 16;  // eight bytes, that lie elsewhere
    EXPECT_NE(complaint(tiff).find("not a picture"), std::string::npos);
}

TEST(FittedWidth, KeepsTheRatio) {
    const InputSpec spec;
    EXPECT_EQ(fitted_width(48, 100, spec), 100);
    EXPECT_EQ(fitted_width(100, 10, spec), 48);
    EXPECT_EQ(fitted_width(10, 1000, spec), 160);
    EXPECT_EQ(fitted_width(48, 98, spec), 96);  // half to even
    EXPECT_EQ(fitted_width(48, 102, spec), 104);
    InputSpec mmocr;
    mmocr.width_rule = "scale";
    EXPECT_EQ(fitted_width(136, 323, spec), 112);
    EXPECT_EQ(fitted_width(136, 323, mmocr), 116);
}

TEST(DrawCanvas, TakesAllChannelsAndGaps) {
    const InputSpec spec;
    Bytes rgb(20 * 64 * 3), bgr(rgb.size()), grey(20 * 64), first(canvas_bytes(spec), 9), second = first;
    for (std::size_t at = 0; at < rgb.size(); ++at) rgb[at] = static_cast<std::uint8_t>(at * 7);
    for (std::size_t at = 0; at < rgb.size(); ++at) bgr[at] = rgb[at / 3 * 3 + 2 - at % 3];
    EXPECT_EQ(draw_canvas({rgb.data(), 20, 60, Channels::rgb, 64 * 3}, first.data(), spec), 144);
    EXPECT_EQ(draw_canvas({bgr.data(), 20, 60, Channels::bgr, 64 * 3}, second.data(), spec), 144);
    EXPECT_EQ(first, second);
    EXPECT_EQ(first[144 * 3], 0);
    std::fill(grey.begin(), grey.end(), std::uint8_t{77});
    draw_canvas({grey.data(), 20, 60, Channels::grey, 0}, first.data(), spec);
    EXPECT_EQ(first[0] + first[1] + first[2], 3 * 77);
    EXPECT_THROW(draw_canvas({nullptr, 20, 60}, first.data(), spec), ImageError);
    EXPECT_THROW(draw_canvas({rgb.data(), 20, 0}, first.data(), spec), ImageError);
    EXPECT_THROW(draw_canvas({rgb.data(), 20, 60, Channels::rgb, 60}, first.data(), spec), ImageError);
}

TEST(SameWidth, CutsCanvasesThatShareAWidth) {
    InputSpec spec;
    spec.height_px = 2, spec.width_px = 16, spec.min_width_px = 4, spec.canvas_step_px = 8;
    const auto groups = same_width({4, 16, 8}, spec);
    const std::map<int, std::vector<std::size_t>> expected = {{8, {0, 2}}, {16, {1}}};
    EXPECT_EQ(groups, expected);
    EXPECT_TRUE(same_width({}, spec).empty());
    Canvases canvases{16, Bytes(3 * canvas_bytes(spec)), {4, 16, 8}};
    for (std::size_t at = 0; at < canvases.pixels.size(); ++at) canvases.pixels[at] = static_cast<std::uint8_t>(at);
    const auto part = cut(canvases, groups.at(8), 8, spec);
    EXPECT_EQ(part.width_px, 8);
    EXPECT_EQ(part.valid_width, (std::vector<std::int32_t>{4, 8}));
    ASSERT_EQ(part.pixels.size(), 2u * 2 * 8 * 3);
    for (std::size_t line = 0; line < 4; ++line) {  // two of the first canvas, two of the last
        const std::size_t from = (line < 2 ? line : line + 2) * 16 * 3;
        for (std::size_t at = 0; at < 8 * 3; ++at) {
            EXPECT_EQ(part.pixels[line * 8 * 3 + at], static_cast<std::uint8_t>(from + at));
        }
    }
    spec.canvas_step_px = 0;
    EXPECT_EQ(same_width({4, 16, 8}, spec).at(16).size(), 3u);
}

TEST(LoadImage, NamesThePath) {
    const auto complaint_of = [](const std::string& path) -> std::string {
        try {
            load_image(path);
        } catch (const ImageError& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_EQ(complaint_of("./none//x.png"),
              "none/x.png: No such file or directory; check the path and its permissions");
    EXPECT_EQ(complaint_of("/"), "/: Is a directory; check the path and its permissions");
    EXPECT_EQ(complaint_of("/dev/zero"), "/dev/zero: larger than 256 MiB; crop the word out of it");
}

}  // namespace
}  // namespace robustscanner
