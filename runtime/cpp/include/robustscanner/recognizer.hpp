// Pictures to text.
//
//     robustscanner::Recognizer recognizer("word.engine");  // or NAME.onnx; nothing: the shipped model
//     std::cout << recognizer.read("sign.png").text;
//
// Any number of threads may read with one recognizer at once: ONNX Runtime runs them side by side, a TensorRT engine
// one after another.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "robustscanner/charset.hpp"
#include "robustscanner/constraint.hpp"
#include "robustscanner/engine.hpp"
#include "robustscanner/errors.hpp"
#include "robustscanner/letters.hpp"
#include "robustscanner/preprocess.hpp"

namespace robustscanner {

inline constexpr int default_batch = 16;  // pictures: a guess, not measured yet

// A picture file in memory, that someone else owns.
struct EncodedImage {
    const std::uint8_t* data = nullptr;
    std::size_t size_bytes = 0;
};

using Source = std::variant<std::string, EncodedImage, ImageView>;  // a path, a file's bytes, or pixels
using Outcome = std::variant<Reading, ImageError>;

class Expectation;

// Reads cropped words with one engine.
class ROBUSTSCANNER_EXPORT Recognizer {
   public:
    // Opens a bundle `NAME.engine/` or a `NAME.onnx`; `batch_size` is the most pictures of one run.
    // `constraint` is what texts may be, unless a call says otherwise.
    // Throws EngineError: the engine cannot be used here; ConstraintError: it, or its model, cannot heed the
    // constraint.
    explicit Recognizer(const std::string& engine = default_engine(), const SessionOptions& options = {},
                        int batch_size = default_batch, const Constraint& constraint = {});
    ~Recognizer();

    const ModelSpec& spec() const { return session_->spec(); }
    std::string description() const { return session_->description(); }
    std::string warning() const { return session_->warning(); }

    // Reads one picture; an empty constraint means the recogniser's own. One that many calls share is best given to the
    // constructor, as it is made ready for the model each time. Throws ImageError: it cannot be read;
    // EngineError: the engine failed; ConstraintError.
    Reading read(const Source& image, const Constraint& constraint = {}) const;

    // Reads any number of pictures, in order; throws as `read` does, at the first bad picture.
    std::vector<Reading> read_batch(const std::vector<Source>& images, const Constraint& constraint = {}) const;

    // Reads pictures a batch at a time; a bad one gives its error and does not stop the others. Memory stays bounded:
    // one decoded picture and one batch of canvases. `take` is given each index, in order. Throws EngineError.
    void read_each(const std::vector<Source>& images, const std::function<void(std::size_t, Outcome)>& take,
                   const Constraint& constraint = {}) const;

    // Where each letter of a text stands in a picture, how likely it is, and what else it might be. Takes another run
    // of the engine, in which the text is fixed: a reading's own, or any other. Throws ImageError; ConstraintError: the
    // model cannot write the text, or the engine is not one for letters; EngineError.
    std::vector<Letter> letters(const Source& image, const std::string& text) const;

   private:
    std::shared_ptr<const Expectation> expectation(const Constraint& constraint) const;
    std::vector<Outcome> read_chunk(const Source* images, std::size_t count, const Expectation* expected) const;
    std::vector<Reading> read_canvases(const Canvases& canvases, const Expectation* expected) const;
    std::vector<Reading> read_alike(const Canvases& canvases, const Expectation* expected) const;
    std::vector<Reading> best_words(const Canvases& canvases, const Expectation& expected) const;
    Result run(const Canvases& canvases, const Expectation* expected) const;
    Reading reading(const Result& result, std::size_t row) const;
    double score(double product) const;

    std::unique_ptr<Session> session_;
    Charset charset_;
    std::size_t batch_size_;
    std::shared_ptr<const Expectation> expected_;  // of its own constraint; null: there is none
};

}  // namespace robustscanner
