// What a model is: structures that travel as JSON with every checkpoint, ONNX file and engine.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "robustscanner/export.h"

namespace robustscanner {

// Token ids and what they stand for. Frameworks order the special tokens differently, so all of it is data.
struct CharsetSpec {
    std::vector<std::string> tokens;  // UTF-8, one entry per id, special tokens included
    int start_id = 0;                 // fed to the decoder before the first character
    int end_id = 0;                   // ends a word; often the same id as start_id
    int pad_id = 0;                   // fills what comes after the end; never part of a text
    std::optional<int> unknown_id;    // stands for a character outside the charset, if the model has such a token
    int class_count = 0;              // the classifier emits ids 0 … class_count - 1
};

// The canvas a word is drawn on, and how the graph turns its pixels into numbers.
struct InputSpec {
    int height_px = 48;
    int width_px = 160;                // longer words are squeezed into it
    int min_width_px = 48;             // narrower words are stretched to it
    int width_multiple_px = 4;         // the resized width is rounded to it: one feature column is 4 pixels
    std::string width_rule = "ratio";  // "ratio": ceil(height * (w / h)), "scale": ceil((height / h) * w)
    std::string resize = "linear";     // or "area": averages when it shrinks, so no aliasing
    double mean = 127.5;               // the graph computes (pixel - mean) / scale
    double scale = 127.5;
    // 0: every canvas is width_px wide. Otherwise a word's canvas is only as wide as the word and a margin after it,
    // rounded up to a multiple of the step, so that short words cost less. It depends on the word alone.
    int canvas_step_px = 0;
    int canvas_margin_px = 0;

    // Width in pixels of the canvas for a word that is `valid_width` pixels wide on it.
    ROBUSTSCANNER_EXPORT int canvas_width(int valid_width) const;

    // All widths that a canvas may have, ascending.
    ROBUSTSCANNER_EXPORT std::vector<int> canvas_widths() const;
};

// Which RobustScanner: the paper's or a small one.
struct NetworkSpec {
    std::string backbone = "r31";    // "edge" or "small"
    int hidden_size = 128;           // of keys, queries, embeddings and LSTM states
    int max_length = 40;             // decoding steps T, the end token included
    std::vector<int> widths;         // channels of edge's four stages; empty: its own
    std::vector<int> blocks;         // in small's three stages; empty: its own
    std::string row_mixer = "lstm";  // of the position branch: "lstm", the paper's, or "conv"
    double ctc_weight = 0;           // share of CTC in the choice of every character; 0: attention alone
    double score_temperature = 1;    // a word's score is the product of its probabilities to the power of 1 / this
};

// Everything that is needed to call a model.
struct ModelSpec {
    std::string name;
    CharsetSpec charset;
    InputSpec input;
    NetworkSpec network;

    // Throws SpecError when the text is no spec: what is missing, unknown, or contradictory.
    ROBUSTSCANNER_EXPORT static ModelSpec from_json(const std::string& text);
};

ROBUSTSCANNER_EXPORT bool operator==(const ModelSpec& left, const ModelSpec& right);
inline bool operator!=(const ModelSpec& left, const ModelSpec& right) { return !(left == right); }

}  // namespace robustscanner
