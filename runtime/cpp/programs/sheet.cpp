#include "sheet.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "wording.hpp"

namespace programs {
namespace {

using robustscanner::Reading;

constexpr double low_score = 0.5;                              // red below it
constexpr int picture_height_px = 64, picture_width_px = 208;  // that a picture is fitted into
constexpr int margin_px = 16, text_px = 34, small_px = 22;     // the last two: height of a line
constexpr int cell_height_px = picture_height_px + text_px + 2 * small_px + 2 * margin_px;
constexpr int cell_width_px = picture_width_px + margin_px;
constexpr double aspect = 1.5;  // width to height of a whole sheet

// BGR
const cv::Scalar white(255, 255, 255), frame(210, 210, 210), grey(120, 120, 120), black(24, 24, 24), red(24, 24, 200),
    green(60, 140, 16);

// OpenCV's font is ASCII, the rest becomes "?".
std::string ascii(const std::string& text) {
    std::string result;
    for (const auto& letter : robustscanner::characters(text))
        result += letter.size() == 1 && letter[0] > 0 ? letter : "?";
    return result;
}

// On the first line of a cell, smaller if it would not fit.
void write(cv::Mat cell, int top_px, const std::string& text, int height_px, const cv::Scalar& colour) {
    const int font = cv::FONT_HERSHEY_SIMPLEX, thickness = height_px == text_px ? 2 : 1;
    double scale = height_px / 40.0;  // a capital letter fills half the line
    const int width = cv::getTextSize(ascii(text), font, scale, thickness, nullptr).width;
    scale *= std::min(1.0, static_cast<double>(cell.cols) / std::max(width, 1));
    cv::putText(cell, ascii(text), {0, top_px + height_px * 3 / 4}, font, scale, colour, thickness, cv::LINE_AA);
}

// Fits a picture into a space, at its lower left, in a thin frame that shows where a white one ends; its scale.
double place(robustscanner::Image image, cv::Mat space) {
    const cv::Mat rgb(image.height, image.width, CV_8UC3, image.pixels.data());
    const double scale =
        std::min(static_cast<double>(space.rows) / rgb.rows, static_cast<double>(space.cols) / rgb.cols);
    const auto fitted = [scale](int side) { return std::max(1, static_cast<int>(std::nearbyint(side * scale))); };
    const cv::Size size(fitted(rgb.cols), fitted(rgb.rows));
    cv::Mat small;
    cv::resize(rgb, small, size, 0, 0, scale < 1 ? cv::INTER_AREA : cv::INTER_LINEAR);
    const cv::Rect here(0, space.rows - size.height, size.width, size.height);
    cv::cvtColor(small, space(here), cv::COLOR_RGB2BGR);
    cv::rectangle(space, here, frame);
    return scale;
}

// A line below each letter, as wide as it is, with a dot at its centre; red where it is doubtful.
void underline(cv::Mat picture, const std::vector<robustscanner::Letter>& letters, double scale) {
    const int bottom = picture.rows - 3;
    const auto scaled = [scale](double px) { return static_cast<int>(std::nearbyint(scale * px)); };
    for (const auto& letter : letters) {
        if (!letter.place) continue;
        const auto& colour = letter.probability < low_score ? red : green;
        const int left = scaled(letter.place->left) + 1, right = scaled(letter.place->right) - 2;
        cv::line(picture, {left, bottom}, {std::max(left, right), bottom}, colour, 2);
        cv::circle(picture, {scaled(letter.place->centre), bottom}, 3, colour, cv::FILLED, cv::LINE_AA);
    }
}

std::string file_name(const std::string& path) {
    const auto letters = robustscanner::characters(path.substr(path.find_last_of("/\\") + 1));
    if (letters.size() <= 28) return robustscanner::joined(letters, "");
    return robustscanner::joined({letters.begin(), letters.begin() + 12}, "") + "..." +
           robustscanner::joined({letters.end() - 13, letters.end()}, "");
}

void draw_cell(cv::Mat cell, const Cell& content) {
    if (const auto* reading = std::get_if<Reading>(&content.outcome)) {
        const auto picture = cell.rowRange(0, picture_height_px);
        underline(picture, content.letters, place(robustscanner::load_image(content.path), picture));
        const bool low = reading->score < low_score;
        char score[32];
        std::snprintf(score, sizeof score, "%.4f", reading->score);
        write(cell, picture_height_px, reading->text.empty() ? "(nothing)" : reading->text, text_px, low ? red : black);
        write(cell, picture_height_px + text_px, score, small_px, low ? red : grey);
    } else {
        write(cell, picture_height_px, "not readable", text_px, red);
    }
    write(cell, picture_height_px + text_px + small_px, file_name(content.path), small_px, grey);
}

}  // namespace

std::string draw_sheet(const std::vector<Cell>& cells, const std::string& suffix) {
    const int count = static_cast<int>(cells.size());
    const int columns =
        std::min(count, static_cast<int>(std::ceil(std::sqrt(count * aspect * cell_height_px / cell_width_px))));
    const int rows = (count + columns - 1) / columns;
    cv::Mat sheet(rows * cell_height_px + margin_px, columns * cell_width_px + margin_px, CV_8UC3, white);
    for (int index = 0; index < count; ++index) {
        const cv::Rect place(margin_px + index % columns * cell_width_px, margin_px + index / columns * cell_height_px,
                             picture_width_px, std::min(cell_height_px, sheet.rows - margin_px));
        draw_cell(sheet(place & cv::Rect(0, 0, sheet.cols, sheet.rows)), cells[static_cast<std::size_t>(index)]);
    }
    std::vector<unsigned char> bytes;
    cv::imencode(suffix, sheet, bytes);
    return {bytes.begin(), bytes.end()};
}

}  // namespace programs
