// What a launch of each kernel is told: plain structs, passed by value, filled in by Python (ctypes) and C++ alike.
// N words, D hidden size, P places of the feature map, C channels, F = 2C, K classes, T steps, U columns of the CTC
// classifier, V tokens. T is half or float, as the kernel's name says; everything else is what stands here.
#pragma once

namespace robustscanner {
namespace cuda {

struct DecodeCall {
    int words;     // N
    int groups;    // of blocks that are launched; each reads `tile` words at a time
    int tile;      // at most MAX_TILE
    int places;    // P
    int channels;  // C
    int classes;   // K
    int steps;     // T
    int columns;   // U; 0 when there are no CTC posteriors
    int start_id, end_id, pad_id;
    int allowed_rows;  // of `allowed`: T, 1, or 0 when every class is
    int key_unit, key_place;         // steps in memory from unit to unit and from place to place: P, 1 or 1, D
    int value_place, value_channel;  // likewise: F, 1 or 1, P
    int label_step, label_word;  // of `labels`, from column to column and from word to word
    int blank_step, blank_word;  // of `blanks`
    float ctc_weight;            // 0: the attention decides alone

    const float* keys;        // [N, D, P] or [N, P, D]
    const void* values;       // [N, P, F] or [N, F, P], multiplied by the fusion layer's weights
    const float* mask;        // [N, P], added to the scores
    const void* position;     // [N, T, F], bias included
    const float* labels;      // probability of each class in each column; or null
    const float* blanks;      // and of none
    const float* allowed;     // [T or 1, K], added to what a token is chosen by, not to its score; or null

    const float* table;            // [V, D, 4] the token's share of the lower layer's gates, biases included
    const void* lower;             // [D, 4, D] unit, gate (input, forget, output, cell), input
    const void* upper;             // [D, 4, 2D], inputs are the lower layer's state and its own
    const float* bias;             // [D, 4] of the upper layer
    const void* classifier;        // [C, K]
    const float* classifier_bias;  // [K]

    int* tokens;    // [N, T] results, which may lie in mapped host memory
    float* scores;  // [N, T]
    int* lengths;   // [N] steps of each word, its end token included; written last, so that a host may wait for it
    float* logits;  // [N, T, K] before CTC has its say, for tests; or null

    void* scratch;      // of launches without clusters: zero when allocated, the kernels' own after that
    int scratch_slots;  // of 8 bytes, behind its first 16 bytes
};

struct RowsCall {
    int sequences;  // N times rows of the feature map
    int groups, tile;
    int columns;  // S

    const void* shares;  // [sequences, S, D, 4] the input's share of the lower layer's gates, biases included
    const void* lower;   // as in DecodeCall
    const void* upper;
    const float* bias;
    void* states;  // [sequences, S, D] result: the upper layer's output
    void* scratch;
    int scratch_slots;
};

constexpr int MAX_TILE = 8;

}  // namespace cuda
}  // namespace robustscanner
