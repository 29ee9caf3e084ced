// The structs that cross the C interface, beside each other. Their mirrors are the ctypes
// structures of the same names in Python; when the library is loaded, their sizes are compared
// (sotto_struct_size), so a struct changes here and there together. All arrays are contiguous, in C
// order, and stay the caller's.
#pragma once

#include <cstdint>

namespace sotto {

struct EncoderDims {
    int32_t n_mels;
    int32_t n_ctx;    // most positions of the encoder's output, half its input frames: 1500
    int32_t n_state;  // width of the residual stream
    int32_t n_head;
    int32_t n_layer;
    int32_t dtype;    // of the matrices: DType in gemm.h
    int32_t padding_stride;  // positions of the padding that one stands for; see Padding in attention.h
};

struct DecoderDims {
    int32_t n_vocab;
    int32_t n_ctx;        // most tokens of a row: 448
    int32_t n_state;
    int32_t n_head;
    int32_t n_layer;
    int32_t n_audio_ctx;  // most positions of a window: 1500
    int32_t dtype;
    int32_t padding_stride;  // as the encoder's
};

// One call of the decoder: a flat batch of items. Each item is one token of one KV-cache row; a
// prefill has many items of the same row, a decoding step one item for each row.
struct Batch {
    int32_t n_items;
    int32_t n_logits;              // items whose logits are computed
    int32_t n_threads;
    int32_t n_heads;               // heads whose cross-attention scores are recorded; usually 0
    int32_t qk_stride;             // numbers of a row of qk, at least the longest window's positions
    const int32_t* tokens;         // (n_items,) ids
    const int32_t* rows;           // (n_items,) the row that an item belongs to
    const int32_t* positions;      // (n_items,) its position in the row
    const int32_t* row_table;      // (n_rows, n_ctx) the row whose memory holds a row's position
    char* const* kv_rows;          // (n_rows,) memory of each row, sotto_kv_row_bytes each
    char* const* cross_kv;         // (n_items,) each item's window, from sotto_project_cross_kv
    const int32_t* n_positions;    // (n_items,) positions of that window
    const int32_t* logit_indices;  // (n_logits,) items
    float* logits;                 // out: (n_logits, n_vocab)
    const int32_t* heads;          // (n_heads,) layer * n_head + head
    float* qk;                     // out: (n_heads, n_items, qk_stride), before the softmax
};

// One call of the token selection: which tokens may come next, and the likeliest of them. "Row" is
// a row of logits, that of one KV-cache row.
struct TokenSelection {
    int32_t n_rows;
    int32_t n_vocab;
    int32_t n_best;                    // tokens to return for each row
    int32_t n_threads;
    int32_t timestamp_begin;           // id of <|0.00|>; ids from there on are timestamps
    float* logits;                     // (n_rows, n_vocab), changed: suppressed tokens become -inf
    const int32_t* const* suppressed;  // (n_sets,) sets of ids
    const int32_t* n_suppressed;       // (n_sets,) their sizes
    const int32_t* suppressed_by;      // (n_rows,) the set of each row
    const int32_t* text_from;          // (n_rows,) ids below are suppressed; 0: text is allowed
    const int32_t* timestamps_from;    // (n_rows,) timestamps below are suppressed
    const int32_t* timestamps_to;      // (n_rows,) timestamps from there on are suppressed
    const uint8_t* timestamp_mass;     // (n_rows,) bool: suppress all text where the timestamps
                                       // together are likelier than the likeliest text token
    int32_t* ids;                      // out: (n_rows, n_best) likeliest first, equal ones by id
    float* logprobs;                   // out: (n_rows, n_best) over the tokens that are left
};

}  // namespace sotto
