// Attention of up to twelve queries over keys and values that lie packed as the right sides of products.
#pragma once

#include "gemm.h"

namespace sotto {

// Keys and values of one head over `n` positions.
struct Head {
    char* keys;          // (d, n): a column for each position
    char* values;        // (n, d): a column for each dimension
    float* key_scale;    // int8 only: what 1 stands for, by position
    float* value_scale;  // and by dimension

    static int value_depth(int type, int n) { return (n + per_unit(type) - 1) / per_unit(type); }
    static size_t key_bytes(int type, int n, int d) { return size_t(n_panels(n)) * (d / per_unit(type)) * kPanelBytes; }
    static size_t value_bytes(int type, int n, int d) { return size_t(n_panels(d)) * value_depth(type, n) * kPanelBytes; }
    static size_t scale_bytes(int type, int n) { return type == kInt8 ? size_t(n_panels(n)) * kPanel * 4 : 0; }
    static size_t bytes(int type, int n, int d) {
        return key_bytes(type, n, d) + value_bytes(type, n, d) + scale_bytes(type, n) + scale_bytes(type, d);
    }
};

// Keys and values of all heads of one layer, one behind the other.
struct Memory {
    char* data;
    int type, n, d;

    static size_t bytes(int type, int n, int d, int n_head) { return n_head * Head::bytes(type, n, d); }
    Head head(int h) const {
        char* keys = data + h * Head::bytes(type, n, d);
        char* values = keys + Head::key_bytes(type, n, d);
        char* scales = values + Head::value_bytes(type, n, d);
        return {keys, values, reinterpret_cast<float*>(scales), reinterpret_cast<float*>(scales + Head::scale_bytes(type, n))};
    }
    // Put a vector of the key of `position`, from dimension `i` of all heads on, in their place.
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
            std::memcpy(at, &x, sizeof x);
        } else {
            bf16 rounded[kLanes];
            store_bf16(rounded, x);
            for (int j = 0; j < kLanes; j++) std::memcpy(at + 4 * j + position % 2 * 2, rounded + j, 2);
        }
    }
};

// What one thread needs for it.
struct Scratch {
    Buffer<float> scores, keys, values;
    Buffer<int32_t> levels;
    Left weights, q;
    size_t width = 0;

    void reserve(int type, int n, int d) {
        width = size_t(n_panels(n)) * kPanel;
        scores.reserve(kMaxRows * width);
        weights.reserve(std::min(type, int(kBfloat)), kMaxRows, (n + kLanes - 1) / kLanes * kLanes);
        q.reserve(kInt8, kMaxRows, d);
        if (type == kInt8) levels.reserve(2 * kMaxRows * width / 4);
    }
};

// Scores of up to twelve queries, and the largest of each, kept up while they are stored.
struct Scores {
    float* data;
    size_t width;
    int n;
    Floats largest[kMaxRows];

    Scores(Scratch& scratch, int n_positions) : data(scratch.scores), width(scratch.width), n(n_positions) {
        for (Floats& x : largest) x = all(-INFINITY);
    }
    float* row(int i) const { return data + i * width; }
    void put(int i, int position, Floats x) {
        if (position + kLanes > n)
            for (int j = std::max(0, n - position); j < kLanes; j++) x[j] = -INFINITY;
        largest[i] = greater(largest[i], x);
        store(row(i) + position, x);
    }
    // Give e^x of each score, with the largest at 1 and zeros behind the last, to `take(position, values)`; their sum.
    template <class Take>
    float soften(int i, const Take& take) const {
        const float peak = greatest(largest[i]);
        Floats total = {};
        for (int p = 0; p < n; p += kLanes) {
            const Floats e = exponential(load(row(i) + p) - peak);
            total += e;
            take(p, e);
        }
        return sum(total);
    }
};

template <int T>
struct Side;  // how numbers stand on the left side of a product
template <>
struct Side<kFloat> {
    typedef float Number;
    static void put(float* at, Floats x) { store(at, x); }
};
template <>
struct Side<kBfloat> {
    typedef bf16 Number;
    static void put(bf16* at, Floats x) { store_bf16(at, x); }
};

template <int T>
void attend(
    const int32_t* q, size_t q_stride, int rows, const Memory& memory, int h, Scratch& scratch, float* out,
    size_t out_stride, float* record, size_t record_stride) {
    const int n = memory.n, d = memory.d;
    const Head head = memory.head(h);
    const int depth = d / per_unit(T);
    Scores scores(scratch, n);
    for (int panel = 0; panel < n_panels(n); panel++)
        multiply_panel<T>(
            q, q_stride, rows, head.keys + size_t(panel) * depth * kPanelBytes, depth,
            [&](int row, int column, const float* sums) { scores.put(row, panel * kPanel + column, load(sums)); });
    float inverse[kMaxRows];
    for (int row = 0; row < rows; row++) {
        if (record) std::memcpy(record + row * record_stride, scores.row(row), n * 4);
        auto* weights = reinterpret_cast<typename Side<T>::Number*>(scratch.weights.row(row));
        inverse[row] = 1 / scores.soften(row, [&](int p, Floats e) { Side<T>::put(weights + p, e); });
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

// ------------------------------------------------------------------------------------------------------------
// Keys and values in int8, for the cross-attention, which otherwise reads more memory than weights in a full batch
// ------------------------------------------------------------------------------------------------------------

constexpr int kInt8Width = 64;  // of the heads that have it: one panel

// Pack a head from floats (n, 64), which are changed. Keys have a scale for each position; their mean over all
// positions is taken away first, which no softmax sees, but which would take up much of the range (arXiv:2410.02367).
inline void pack_int8(const Memory& memory, int h, float* keys, float* values) {
    const Head head = memory.head(h);
    const int n = memory.n, width = kInt8Width, depth = width / 4;
    float mean[kInt8Width] = {}, peak[kInt8Width] = {};
    for (int p = 0; p < n; p++)
        for (int i = 0; i < width; i++) {
            mean[i] += keys[p * width + i];
            peak[i] = std::max(peak[i], std::fabs(values[p * width + i]));
        }
    for (int i = 0; i < width; i++) {
        mean[i] /= n;
        head.value_scale[i] = peak[i] / 127;
        peak[i] = peak[i] > 0 ? 127 / peak[i] : 0;
    }
    const Floats magic = all(12582912.0f);
    auto whole = [&](Floats x) { return __builtin_convertvector((x + magic) - magic, Ints) + 128; };
    for (int p = 0; p < n; p++) {
        float* key = keys + p * width;
        Floats largest = {};
        for (int i = 0; i < width; i += kLanes) {
            const Floats x = load(key + i) - load(mean + i);
            largest = greater(largest, x < 0.0f ? -x : x);
            store(key + i, x);
        }
        const float most = greatest(largest), inverse = most > 0 ? 127 / most : 0;
        head.key_scale[p] = most / 127;
        char* at = head.keys + size_t(p / kPanel) * depth * kPanelBytes + p % kPanel * 4;
        uint8_t bytes[kInt8Width];
        for (int i = 0; i < width; i += kLanes) {
            const Ints x = whole(load(key + i) * inverse);
            for (int j = 0; j < kLanes; j++) bytes[i + j] = uint8_t(x[j]);
        }
        for (int unit = 0; unit < depth; unit++) std::memcpy(at + unit * kPanelBytes, bytes + 4 * unit, 4);
    }
    for (int p = 0; p < n; p += 4) {
        int32_t* at = reinterpret_cast<int32_t*>(head.values + size_t(p / 4) * kPanelBytes);
        for (int i = 0; i < width; i += kLanes) {
            Ints unit = {};
            for (int j = 0; j < 4 && p + j < n; j++)
                unit |= whole(load(values + (p + j) * width + i) * load(peak + i)) << (8 * j);
            *reinterpret_cast<Ints*>(at + i) = unit;
        }
    }
}

// As `attend`, with float queries. The weights are rounded to 14 bits, as two
// rows of 7, so that many small ones are not lost beside a large one.
inline void attend_int8(
    const float* q, size_t stride, int rows, const Memory& memory, int h, Scratch& scratch, float* out, float* record,
    size_t record_stride) {
    const int n = memory.n, d = memory.d, depth = Head::value_depth(kInt8, n);
    const Head head = memory.head(h);
    for (int row = 0; row < rows; row++) scratch.q.set(row, q + row * stride, d);
    const Rows left = scratch.q.rows();
    Scores scores(scratch, n);
    for (int panel = 0; panel < n_panels(n); panel++)
        multiply_panel<kInt8>(
            left.units, left.stride, rows, head.keys + size_t(panel) * (d / 4) * kPanelBytes, d / 4,
            [&](int row, int column, const float* sums) {
                const Ints whole = *reinterpret_cast<const Ints*>(sums) - 128 * left.sum[row];
                const Floats scale = load(head.key_scale + panel * kPanel + column) * left.scale[row];
                scores.put(row, panel * kPanel + column, __builtin_convertvector(whole, Floats) * scale);
            });
    int32_t sums[2 * kMaxRows];  // of the two rows of 7 bits, by query
    const size_t level_stride = scratch.width / 4;
    for (int row = 0; row < rows; row++) {
        if (record) std::memcpy(record + row * record_stride, scores.row(row), n * 4);
        auto* high = reinterpret_cast<int8_t*>(scratch.levels + 2 * row * level_stride);
        auto* low = reinterpret_cast<int8_t*>(scratch.levels + (2 * row + 1) * level_stride);
        Ints total_high = {}, total_low = {};
        scores.soften(row, [&](int i, Floats e) {
            const Ints level = __builtin_convertvector(e * 16256.0f + 0.5f, Ints);  // 127 * 128
            const Ints a = level >> 7, b = level & 127;
            total_high += a, total_low += b;
            *reinterpret_cast<Bytes*>(high + i) = __builtin_convertvector(a, Bytes);
            *reinterpret_cast<Bytes*>(low + i) = __builtin_convertvector(b, Bytes);
        });
        sums[2 * row] = sums[2 * row + 1] = 0;
        for (int i = 0; i < kLanes; i++) sums[2 * row] += total_high[i], sums[2 * row + 1] += total_low[i];
    }
    alignas(64) int32_t mixed[2 * kMaxRows * kInt8Width];
    multiply_panel<kInt8>(
        scratch.levels, level_stride, 2 * rows, head.values, depth, [&](int row, int column, const float* products) {
            *reinterpret_cast<Ints*>(mixed + row * d + column) = *reinterpret_cast<const Ints*>(products) - 128 * sums[row];
        });
    for (int row = 0; row < rows; row++) {
        const float inverse = 1 / (128.0f * sums[2 * row] + sums[2 * row + 1]);
        for (int i = 0; i < d; i += kLanes) {
            const Ints high = *reinterpret_cast<Ints*>(mixed + 2 * row * d + i);
            const Ints low = *reinterpret_cast<Ints*>(mixed + (2 * row + 1) * d + i);
            const Floats value = __builtin_convertvector(high, Floats) * 128.0f + __builtin_convertvector(low, Floats);
            store(out + row * stride + i, value * load(head.value_scale + i) * inverse);
        }
    }
}

}  // namespace sotto
