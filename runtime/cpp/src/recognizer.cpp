#include "robustscanner/recognizer.hpp"

#include <algorithm>
#include <cmath>

#include "automaton.hpp"
#include "letters.hpp"
#include "lexicon.hpp"

namespace robustscanner {

// A constraint for one model.
class Expectation {
   public:
    Expectation(const Constraint& constraint, const ModelSpec& spec) {
        if (constraint.words.empty()) {
            automaton.emplace(constraint, spec);
        } else if (constraint.characters || constraint.pattern || constraint.fewest || constraint.most) {
            throw ConstraintError("words go without characters, pattern and lengths; leave one of them out");
        } else {
            lexicon.emplace(constraint.words, spec);
        }
    }

    std::optional<Automaton> automaton;
    std::optional<Lexicon> lexicon;  // one of the two
};

namespace {

std::size_t smaller(int batch_size, std::optional<int> limit) {
    if (batch_size < 1) {
        throw EngineError("batch_size is " + std::to_string(batch_size) + "; give a number from 1");
    }
    return static_cast<std::size_t>(std::min(batch_size, limit.value_or(batch_size)));
}

// Draws a picture on a canvas; its valid width, and the picture's own width.
std::pair<int, int> draw(const Source& image, std::uint8_t* canvas, const InputSpec& spec) {
    Image decoded;
    const auto* pixels = std::get_if<ImageView>(&image);
    if (const auto* file = std::get_if<EncodedImage>(&image)) decoded = decode_image(file->data, file->size_bytes);
    if (const auto* path = std::get_if<std::string>(&image)) decoded = load_image(*path);
    const auto view = pixels ? *pixels : decoded.view();
    return {draw_canvas(view, canvas, spec), view.width};
}

}  // namespace

Recognizer::Recognizer(const std::string& engine, const SessionOptions& options, int batch_size,
                       const Constraint& constraint)
    : session_(open_engine(engine, options)),
      charset_(session_->spec().charset),
      batch_size_(smaller(batch_size, session_->max_batch())) {
    expected_ = expectation(constraint);
}

Recognizer::~Recognizer() = default;

Reading Recognizer::read(const Source& image, const Constraint& constraint) const {
    return read_batch({image}, constraint).front();
}

std::vector<Reading> Recognizer::read_batch(const std::vector<Source>& images, const Constraint& constraint) const {
    std::vector<Reading> readings;
    readings.reserve(images.size());
    read_each(
        images,
        [&](std::size_t, Outcome outcome) {
            if (const auto* error = std::get_if<ImageError>(&outcome)) throw *error;
            readings.push_back(std::get<Reading>(std::move(outcome)));
        },
        constraint);
    return readings;
}

void Recognizer::read_each(const std::vector<Source>& images, const std::function<void(std::size_t, Outcome)>& take,
                           const Constraint& constraint) const {
    const auto expected = expectation(constraint);
    for (std::size_t start = 0; start < images.size(); start += batch_size_) {
        const auto count = std::min(batch_size_, images.size() - start);
        auto outcomes = read_chunk(&images[start], count, expected.get());
        for (std::size_t index = 0; index < count; ++index) take(start + index, std::move(outcomes[index]));
    }
}

std::vector<Letter> Recognizer::letters(const Source& image, const std::string& text) const {
    if (text.empty()) return {};
    const auto& input = spec().input;
    const auto ids = spelled(text, spec());
    Canvases canvas{input.width_px, std::vector<std::uint8_t>(canvas_bytes(input)), {}};
    const auto [valid_px, picture_px] = draw(image, canvas.pixels.data(), input);
    canvas.valid_width.push_back(valid_px);
    const auto trace = session_->trace(cut(canvas, {0}, input.canvas_width(valid_px), input), forced(ids, spec()));
    return describe(ids, trace, spec(), picture_px, valid_px);
}

std::shared_ptr<const Expectation> Recognizer::expectation(const Constraint& constraint) const {
    if (constraint.empty()) return expected_;
    if (!session_->can_constrain()) {
        throw ConstraintError(
            "this engine is older than constraints and takes none: build it again with convert/build_engine.py, or "
            "export the model again with convert/export_onnx.py");
    }
    return std::make_shared<Expectation>(constraint, spec());
}

std::vector<Outcome> Recognizer::read_chunk(const Source* images, std::size_t count,
                                            const Expectation* expected) const {
    const auto& input = spec().input;
    Canvases canvases{input.width_px, std::vector<std::uint8_t>(count * canvas_bytes(input)), {}};
    std::vector<Outcome> outcomes(count);
    std::vector<std::size_t> good;
    for (std::size_t index = 0; index < count; ++index) {
        try {
            auto* canvas = &canvases.pixels[good.size() * canvas_bytes(input)];
            canvases.valid_width.push_back(draw(images[index], canvas, input).first);
            good.push_back(index);
        } catch (const ImageError& error) {
            outcomes[index] = error;
        }
    }
    auto readings = read_canvases(canvases, expected);
    for (std::size_t row = 0; row < good.size(); ++row) outcomes[good[row]] = std::move(readings[row]);
    return outcomes;
}

std::vector<Reading> Recognizer::read_canvases(const Canvases& canvases, const Expectation* expected) const {
    const auto& input = spec().input;
    std::vector<Reading> readings(canvases.count());
    for (const auto& [width, rows] : same_width(canvases.valid_width, input)) {
        const bool all = width == canvases.width_px && rows.size() == canvases.count();
        auto found = all ? read_alike(canvases, expected) : read_alike(cut(canvases, rows, width, input), expected);
        for (std::size_t at = 0; at < rows.size(); ++at) readings[rows[at]] = std::move(found[at]);
    }
    return readings;
}

// Canvases of one width.
std::vector<Reading> Recognizer::read_alike(const Canvases& canvases, const Expectation* expected) const {
    if (expected && expected->lexicon) return best_words(canvases, *expected);
    const auto result = run(canvases, expected);
    std::vector<Reading> readings;
    for (std::size_t row = 0; row < canvases.count(); ++row) readings.push_back(reading(result, row));
    return readings;
}

// All at once freely; then a picture at a time, for as long as another word of the list may be better.
std::vector<Reading> Recognizer::best_words(const Canvases& canvases, const Expectation& expected) const {
    const auto steps = static_cast<std::ptrdiff_t>(spec().network.max_length);
    const auto result = session_->run(canvases, {});
    std::vector<Reading> readings;
    for (std::size_t row = 0; row < canvases.count(); ++row) {
        const auto tokens = result.tokens.begin() + static_cast<std::ptrdiff_t>(row) * steps;
        const auto scores = result.scores.begin() + static_cast<std::ptrdiff_t>(row) * steps;
        const auto found =
            expected.lexicon->search({{tokens, tokens + steps}, {scores, scores + steps}}, [&](const Allowed& allowed) {
                return session_->tell(cut(canvases, {row}, canvases.width_px, spec().input), allowed);
            });
        const auto free = reading(result, row);
        readings.push_back(
            {charset_.text(found.ids), score(found.probability), Beside{score(found.others), free.text, free.score}});
    }
    return readings;
}

Reading Recognizer::reading(const Result& result, std::size_t row) const {
    const auto steps = static_cast<std::size_t>(spec().network.max_length);
    auto reading = charset_.decode(&result.tokens[row * steps], &result.scores[row * steps], static_cast<int>(steps));
    reading.score = score(reading.score);
    return reading;
}

double Recognizer::score(double product) const { return std::pow(product, 1 / spec().network.score_temperature); }

// What may follow depends on what stands before, but a run only knows places. So a word that comes out with a forbidden
// turn is read again with all before the turn fixed: then the place is exact, and it turns rightly.
Result Recognizer::run(const Canvases& canvases, const Expectation* expected) const {
    if (!expected) return session_->run(canvases, {});
    const auto* automaton = &*expected->automaton;
    const int steps = spec().network.max_length;
    auto result = session_->run(canvases, automaton->mask());
    for (std::size_t row = 0; row < canvases.count(); ++row) {
        const auto start = static_cast<std::ptrdiff_t>(row) * steps;
        auto* tokens = &result.tokens[static_cast<std::size_t>(start)];
        for (auto ids = charset_.ids(tokens, steps); !automaton->accepts(ids); ids = charset_.ids(tokens, steps)) {
            ids.resize(automaton->known(ids));
            const auto again =
                session_->run(cut(canvases, {row}, canvases.width_px, spec().input), automaton->mask(ids));
            std::copy(again.tokens.begin(), again.tokens.end(), tokens);
            std::copy(again.scores.begin(), again.scores.end(), result.scores.begin() + start);
        }
    }
    return result;
}

}  // namespace robustscanner
