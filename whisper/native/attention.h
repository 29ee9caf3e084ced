// Attention of up to twelve queries over keys and values that lie packed as the right sides of products.
#pragma once

#include "gemm.h"

namespace sotto {

// Keys and values of one head over `n` positions; `type` is kFloat or kBfloat.
struct Head {
    char* keys;    // (d, n): a column for each position
    char* values;  // (n, d): a column for each dimension

    static size_t key_bytes(int type, int n, int d) { return size_t(n_panels(n)) * (d / per_unit(type)) * kPanelBytes; }
    static size_t value_bytes(int type, int n, int d) { return size_t(n_panels(d)) * value_depth(type, n) * kPanelBytes; }
    static int value_depth(int type, int n) { return (n + per_unit(type) - 1) / per_unit(type); }
};

// Keys and values of all heads of one layer, one behind the other.
struct Memory {
    char* data;
    int type, n, d;

    static size_t bytes(int type, int n, int d, int n_head) {
        return n_head * (Head::key_bytes(type, n, d) + Head::value_bytes(type, n, d));
    }
    Head head(int h) const {
        char* at = data + bytes(type, n, d, h);
        return {at, at + Head::key_bytes(type, n, d)};
    }
    // Put 16 numbers of the key of `position`, from dimension `i` of all heads on, in their place.
    void set_key(int position, int i, Floats x) const {
        const int depth = d / per_unit(type);
        char* at = head(i / d).keys + size_t(position / kPanel) * depth * kPanelBytes + position % kPanel * 4;
        at += size_t(i % d) / per_unit(type) * kPanelBytes;
        if (type == kFloat) {
            for (int j = 0; j < kLanes; j++) std::memcpy(at + j * kPanelBytes, reinterpret_cast<float*>(&x) + j, 4);
        } else {
            bf16 rounded[kLanes];
            store_bf16(rounded, x);
            for (int j = 0; j < kLanes / 2; j++) std::memcpy(at + j * kPanelBytes, rounded + 2 * j, 4);
        }
    }
    void set_value(int position, int i, Floats x) const {
        const int column = i % d, unit = position / per_unit(type);
        char* at = head(i / d).values + size_t(column / kPanel) * Head::value_depth(type, n) * kPanelBytes;
        at += size_t(unit) * kPanelBytes + column % kPanel * 4;
        if (type == kFloat) {
            std::memcpy(at, &x, 64);
        } else {
            bf16 rounded[kLanes];
            store_bf16(rounded, x);
            for (int j = 0; j < kLanes; j++) std::memcpy(at + 4 * j + position % 2 * 2, rounded + j, 2);
        }
    }
};

// What one thread needs for it.
struct Scratch {
    Buffer<float> scores;
    Left weights;
    size_t width = 0;

    void reserve(int type, int n) {
        width = size_t(n_panels(n)) * kPanel;
        scores.reserve(kMaxRows * width);
        weights.reserve(type, kMaxRows, (n + kLanes - 1) / kLanes * kLanes);
    }
};

template <int T>
void attend(
    const int32_t* q, size_t q_stride, int rows, const Memory& memory, int h, Scratch& scratch, float* out,
    size_t out_stride, float* record, size_t record_stride) {
    const int n = memory.n, d = memory.d, padded = (n + kLanes - 1) / kLanes * kLanes;
    const Head head = memory.head(h);
    const int depth = d / per_unit(T);
    for (int panel = 0; panel < n_panels(n); panel++)
        multiply_panel<T>(
            q, q_stride, rows, head.keys + size_t(panel) * depth * kPanelBytes, depth,
            [&](int row, int column, const float* sums) {
                store(scratch.scores + row * scratch.width + panel * kPanel + column, load(sums));
            });
    float inverse[kMaxRows];
    for (int row = 0; row < rows; row++) {
        float* scores = scratch.scores + row * scratch.width;
        if (record) std::memcpy(record + row * record_stride, scores, n * 4);
        for (int i = n; i < padded; i++) scores[i] = -INFINITY;
        Floats largest = load(scores);
        for (int i = kLanes; i < padded; i += kLanes) largest = greater(largest, load(scores + i));
        const float peak = greatest(largest);
        Floats total = {};
        for (int i = 0; i < padded; i += kLanes) {
            const Floats p = exponential(load(scores + i) - peak);
            total += p;
            store(scores + i, p);
        }
        inverse[row] = 1 / sum(total);
        scratch.weights.set(row, scores, padded);
    }
    const Rows weights = scratch.weights.rows();
    for (int panel = 0; panel < n_panels(d); panel++)
        multiply_panel<T>(
            weights.units, weights.stride, rows,
            head.values + size_t(panel) * Head::value_depth(T, n) * kPanelBytes, Head::value_depth(T, n),
            [&](int row, int column, const float* sums) {
                if (panel * kPanel + column < d)
                    store(out + row * out_stride + panel * kPanel + column, load(sums) * inverse[row]);
            });
}

inline void attend(
    const Rows& q, int rows, const Memory& memory, int h, Scratch& scratch, float* out, size_t out_stride,
    float* record = nullptr, size_t record_stride = 0) {
    const int32_t* units = q.units + size_t(h) * memory.d / per_unit(memory.type);
    if (memory.type == kFloat)
        attend<kFloat>(units, q.stride, rows, memory, h, scratch, out, out_stride, record, record_stride);
    else
        attend<kBfloat>(units, q.stride, rows, memory, h, scratch, out, out_stride, record, record_stride);
}

}  // namespace sotto
