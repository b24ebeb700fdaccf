#include "robustscanner/recognizer.hpp"

#include <algorithm>

namespace robustscanner {
namespace {

std::size_t smaller(int batch_size, std::optional<int> limit) {
    if (batch_size < 1) {
        throw EngineError("batch_size is " + std::to_string(batch_size) + "; give a number from 1");
    }
    return static_cast<std::size_t>(std::min(batch_size, limit.value_or(batch_size)));
}

int draw(const Source& image, std::uint8_t* canvas, const InputSpec& spec) {
    if (const auto* pixels = std::get_if<ImageView>(&image)) return draw_canvas(*pixels, canvas, spec);
    if (const auto* file = std::get_if<EncodedImage>(&image)) {
        return draw_canvas(decode_image(file->data, file->size_bytes).view(), canvas, spec);
    }
    return draw_canvas(load_image(std::get<std::string>(image)).view(), canvas, spec);
}

}  // namespace

Recognizer::Recognizer(const std::string& engine, const SessionOptions& options, int batch_size)
    : session_(open_engine(engine, options)),
      charset_(session_->spec().charset),
      batch_size_(smaller(batch_size, session_->max_batch())) {}

Reading Recognizer::read(const Source& image) const { return read_batch({image}).front(); }

std::vector<Reading> Recognizer::read_batch(const std::vector<Source>& images) const {
    std::vector<Reading> readings;
    readings.reserve(images.size());
    read_each(images, [&](std::size_t, Outcome outcome) {
        if (const auto* error = std::get_if<ImageError>(&outcome)) throw *error;
        readings.push_back(std::get<Reading>(std::move(outcome)));
    });
    return readings;
}

void Recognizer::read_each(const std::vector<Source>& images,
                           const std::function<void(std::size_t, Outcome)>& take) const {
    for (std::size_t start = 0; start < images.size(); start += batch_size_) {
        const auto count = std::min(batch_size_, images.size() - start);
        auto outcomes = read_chunk(&images[start], count);
        for (std::size_t index = 0; index < count; ++index) take(start + index, std::move(outcomes[index]));
    }
}

std::vector<Outcome> Recognizer::read_chunk(const Source* images, std::size_t count) const {
    const auto& input = spec().input;
    Canvases canvases{input.width_px, std::vector<std::uint8_t>(count * canvas_bytes(input)), {}};
    std::vector<Outcome> outcomes(count);
    std::vector<std::size_t> good;
    for (std::size_t index = 0; index < count; ++index) {
        try {
            auto* canvas = &canvases.pixels[good.size() * canvas_bytes(input)];
            canvases.valid_width.push_back(draw(images[index], canvas, input));
            good.push_back(index);
        } catch (const ImageError& error) {
            outcomes[index] = error;
        }
    }
    auto readings = read_canvases(canvases);
    for (std::size_t row = 0; row < good.size(); ++row) outcomes[good[row]] = std::move(readings[row]);
    return outcomes;
}

std::vector<Reading> Recognizer::read_canvases(const Canvases& canvases) const {
    const auto& input = spec().input;
    const int steps = spec().network.max_length;
    std::vector<Reading> readings(canvases.count());
    for (const auto& [width, rows] : same_width(canvases.valid_width, input)) {
        const bool all = width == canvases.width_px && rows.size() == canvases.count();
        const auto result = all ? session_->run(canvases) : session_->run(cut(canvases, rows, width, input));
        for (std::size_t at = 0; at < rows.size(); ++at) {
            const auto start = at * static_cast<std::size_t>(steps);
            readings[rows[at]] = charset_.decode(&result.tokens[start], &result.scores[start], steps);
        }
    }
    return readings;
}

}  // namespace robustscanner
