// Attention of a few queries over packed keys and values, one head at a time, as in
// flash-attention's two products but with the whole row of scores kept:
//
//     scores (q, n) = q (q, d) * keys (d, n);  out (q, d) = softmax(scores) (q, n) * values (n, d)
//
// for up to kMaxQueries queries, n positions and a head dimension of d. Queries come scaled by
// 1 / sqrt(d).
//
// Layout. Keys and values lie packed as right sides of products (gemm.h): keys as d x n, a column
// for each position; values as n x d, a column for each dimension. All heads of a layer lie behind
// each other (LayerKV), and all layers of a window too (decoder.h).
//
// Order of summation: scores along d; the softmax over vectors of positions from 0 on, then over
// the lanes; the output along positions from 0 on. The number of queries changes nothing.
#pragma once

#include "gemm.h"

namespace sotto {

constexpr int kMaxQueries = kHasTiles ? 2 * kTileRows : 12;  // that attention takes at once

// The padding of a window that is shorter than the model's context of `n_ctx` positions: behind its
// own positions, one for each `stride` of those that follow, which counts `stride` times. A full
// window has none.
struct Padding {
    int n_ctx, stride;

    // Positions altogether of a window with `n_own` of its own, which differs from n_ctx by a
    // multiple of the stride.
    int n_total(int n_own) const { return n_own + (n_ctx - n_own) / stride; }
    int n_own(int n_total) const { return (stride * n_total - n_ctx) / (stride - 1); }
    // The first place in the context that position `i` of a window stands for.
    int place(int i, int n_own) const { return i < n_own ? i : n_own + (i - n_own) * stride; }
    // What is added to the scores of padding: to be there `stride` times.
    float score() const { return std::log(float(stride)); }
};

// Keys and values of one head over `n` positions.
struct HeadKV {
    char* keys;          // (d, n) packed
    char* values;        // (n, d) packed
    float* key_scale;    // (n,), int8 only
    float* value_scale;  // (d,), int8 only

    static size_t key_bytes(int dtype, int n, int d) {
        return size_t(n_panels(n)) * n_groups(dtype, d) * kPanelStep;
    }
    static size_t value_bytes(int dtype, int n, int d) {
        return size_t(n_panels(d)) * value_groups(dtype, n) * kPanelStep;
    }
    // k-groups of the values, which are whole tiles where tiles multiply them.
    static int value_groups(int dtype, int n) {
        const int whole = kHasTiles && dtype == kBfloat16 ? kTileGroups : 1;
        return (n_groups(dtype, n) + whole - 1) / whole * whole;
    }
    static size_t scale_bytes(int dtype, int n) {
        return dtype == kInt8 ? size_t(n_panels(n)) * kPanelWidth * sizeof(float) : 0;
    }
    static size_t bytes(int dtype, int n, int d) {
        return key_bytes(dtype, n, d) + value_bytes(dtype, n, d) + scale_bytes(dtype, n) +
               scale_bytes(dtype, d);
    }
};

// Keys and values of all heads of one layer.
struct LayerKV {
    char* data;
    int dtype, n, d;
    int n_own;            // positions before those of the padding
    float padding_score;  // see Padding

    static size_t bytes(int dtype, int n, int d, int n_head) {
        return n_head * HeadKV::bytes(dtype, n, d);
    }
    HeadKV head(int h) const {
        char* keys = data + h * HeadKV::bytes(dtype, n, d);
        char* values = keys + HeadKV::key_bytes(dtype, n, d);
        float* key_scale = reinterpret_cast<float*>(values + HeadKV::value_bytes(dtype, n, d));
        float* value_scale = key_scale + HeadKV::scale_bytes(dtype, n) / sizeof(float);
        return {keys, values, key_scale, value_scale};
    }
    // Pack the kLanes numbers `x` of the key of `position`; `i` is the first's place among those of
    // all heads, (n_head * d). float32 and bfloat16 only; int8 is packed a head at a time
    // (`quantize_kv`).
    void set_key(int position, int i, FloatVec x) const {
        const int panel = position / kPanelWidth, group = i % d / group_size(dtype);
        char* at = head(i / d).keys + (size_t(panel) * n_groups(dtype, d) + group) * kPanelStep;
        at += position % kPanelWidth * kGroupBytes;
        if (dtype == kFloat32) {
            const float* numbers = reinterpret_cast<float*>(&x);
            for (int j = 0; j < kLanes; j++) std::memcpy(at + j * kPanelStep, numbers + j, 4);
        } else {
            bf16 rounded[kLanes];
            store_bf16(rounded, x);
            for (int j = 0; j < kLanes / 2; j++)
                std::memcpy(at + j * kPanelStep, rounded + 2 * j, 4);
        }
    }
    // The same for the value of `position`.
    void set_value(int position, int i, FloatVec x) const {
        const int panel = i % d / kPanelWidth, group = position / group_size(dtype);
        char* at = head(i / d).values;
        at += (size_t(panel) * HeadKV::value_groups(dtype, n) + group) * kPanelStep;
        at += i % d % kPanelWidth * kGroupBytes;
        if (dtype == kFloat32) {
            std::memcpy(at, &x, sizeof x);
        } else {
            bf16 rounded[kLanes];
            store_bf16(rounded, x);
            for (int j = 0; j < kLanes; j++)
                std::memcpy(at + j * kGroupBytes + position % 2 * 2, rounded + j, 2);
        }
    }
};

// Working memory of one thread.
struct AttentionWorkspace {
    Buffer<float> scores;           // (kMaxQueries, width)
    Activations weights;            // (kMaxQueries, n) softmax weights, not divided by their sum
    Buffer<int32_t> weight_digits;  // int8: (kMaxQueries, 2, width) int8; see `quantize_weights`
    Activations q;                  // int8: (kMaxQueries, d) quantized queries
    Buffer<float> keys, values;     // int8: (n, d) of one head, before they are quantized
    size_t width = 0;               // n rounded up to whole panels

    void reserve(int dtype, int n, int d) {
        width = size_t(n_panels(n)) * kPanelWidth;
        scores.reserve(kMaxQueries * width);
        const int n_padded = HeadKV::value_groups(kBfloat16, n + kLanes) * 2;  // zero behind n
        weights.reserve(std::min(dtype, int(kBfloat16)), kMaxQueries, n_padded);
        q.reserve(kInt8, kMaxQueries, d);
        if (dtype == kInt8) weight_digits.reserve(2 * kMaxQueries * width / 4);
    }
};

// Scores of up to kMaxQueries queries over `n` positions, with a running maximum for the softmax.
struct Scores {
    float* data;
    size_t width;
    int n, n_own;
    float padding_score;
    FloatVec largest[kMaxQueries];

    Scores(AttentionWorkspace& workspace, const LayerKV& kv)
        : data(workspace.scores), width(workspace.width), n(kv.n), n_own(kv.n_own),
          padding_score(kv.padding_score) {
        for (FloatVec& x : largest) x = broadcast(-INFINITY);
    }
    float* of_query(int i) const { return data + i * width; }
    void set(int i, int position, FloatVec x) {
        if (position >= n_own)
            x += padding_score;
        else if (position + kLanes > n_own)
            for (int j = n_own - position; j < kLanes; j++) x[j] += padding_score;
        if (position + kLanes > n)  // behind the last position
            for (int j = std::max(0, n - position); j < kLanes; j++) x[j] = -INFINITY;
        largest[i] = maximum(largest[i], x);
        store(of_query(i) + position, x);
    }
    // Softmax without the division: hands e^(score - maximum) to `out(position, values)`, with
    // zeros behind the last position, and returns their sum.
    template <class Out>
    float softmax_numerators(int i, const Out& out) const {
        const float peak = reduce_max(largest[i]);
        FloatVec total = {};
        for (int p = 0; p < n; p += kLanes) {
            const FloatVec e = exp(load(of_query(i) + p) - peak);
            total += e;
            out(p, e);
        }
        return reduce_sum(total);
    }
};

inline void store_as(float* p, FloatVec x) { store(p, x); }
inline void store_as(bf16* p, FloatVec x) { store_bf16(p, x); }

template <int T>
struct Element;  // the C++ type of a DType
template <>
struct Element<kFloat32> {
    typedef float type;
};
template <>
struct Element<kBfloat16> {
    typedef bf16 type;
};

// Attention of `n_queries` queries over head `h`. `q` is (n_queries, d) k-groups, q_stride apart;
// `out` (n_queries, d) floats, out_stride apart. `qk`, where not null, gets the scores (n_queries,
// n).
template <int T>
void attention(
    const int32_t* q, size_t q_stride, int n_queries, const LayerKV& kv, int h,
    AttentionWorkspace& workspace, float* out, size_t out_stride, float* qk, size_t qk_stride) {
    const int n = kv.n, d = kv.d, key_groups = n_groups(T, d), value_groups = HeadKV::value_groups(T, n);
    const HeadKV head = kv.head(h);
    Scores scores(workspace, kv);
    for (int panel = 0; panel < n_panels(n); panel++)
        multiply_panel<T>(
            q, q_stride, n_queries, head.keys + size_t(panel) * key_groups * kPanelStep, key_groups,
            [&](int query, int column, const float* sums) {
                scores.set(query, panel * kPanelWidth + column, load(sums));
            });
    float inverse[kMaxQueries];
    for (int query = 0; query < n_queries; query++) {
        if (qk) std::memcpy(qk + query * qk_stride, scores.of_query(query), n * 4);
        typedef typename Element<T>::type Weight;
        auto* weights = reinterpret_cast<Weight*>(workspace.weights.row_data(query));
        inverse[query] = 1 / scores.softmax_numerators(
                                 query, [&](int p, FloatVec e) { store_as(weights + p, e); });
        // whole tiles reach further than whole vectors
        for (int p = (n + kLanes - 1) / kLanes * kLanes; p < value_groups * group_size(T); p++)
            weights[p] = 0;
    }
    const ActivationView weights = workspace.weights.view();
    for (int panel = 0; panel < n_panels(d); panel++)
        multiply_panel<T>(
            weights.groups, weights.stride, n_queries,
            head.values + size_t(panel) * value_groups * kPanelStep, value_groups,
            [&](int query, int column, const float* sums) {
                const int i = panel * kPanelWidth + column;
                if (i < d) store(out + query * out_stride + i, load(sums) * inverse[query]);
            });
}

// The same for keys and values in float32 or bfloat16; `q` holds the queries of all heads.
inline void attention(
    const ActivationView& q, int n_queries, const LayerKV& kv, int h, AttentionWorkspace& workspace,
    float* out, size_t out_stride, float* qk = nullptr, size_t qk_stride = 0) {
    const auto attend = kv.dtype == kFloat32 ? attention<kFloat32> : attention<kBfloat16>;
    const int32_t* own = q.groups + size_t(h) * kv.d / group_size(kv.dtype);
    attend(own, q.stride, n_queries, kv, h, workspace, out, out_stride, qk, qk_stride);
}

// ------------------------------------------------------------------------------------------------
// int8 keys and values, for cross-attention: in a full batch it reads more memory than the weights
// ------------------------------------------------------------------------------------------------

constexpr int kInt8HeadDim = kPanelWidth;  // the head dimension that has int8: one panel

inline IntVec quantize_unsigned(FloatVec x) {
    return __builtin_convertvector(round(x), IntVec) + 128;
}

// Quantize the keys `keys` (n, 64), which are changed, with a scale for each position. The mean
// over all positions is subtracted first: it adds a constant to all scores of a query, which the
// softmax cancels, but it would take up much of the range (SageAttention, arXiv:2410.02367).
inline void quantize_keys(const HeadKV& head, int n, float* keys, const float* mean) {
    const int d = kInt8HeadDim, groups = d / 4;
    for (int p = 0; p < n; p++) {
        float* key = keys + p * d;
        FloatVec largest = {};
        for (int i = 0; i < d; i += kLanes) {
            const FloatVec x = load(key + i) - load(mean + i);
            largest = maximum(largest, absolute(x));
            store(key + i, x);
        }
        const float peak = reduce_max(largest), inverse = peak > 0 ? 127 / peak : 0;
        head.key_scale[p] = peak / 127;
        uint8_t bytes[kInt8HeadDim];
        for (int i = 0; i < d; i += kLanes) {
            const IntVec x = quantize_unsigned(load(key + i) * inverse);
            for (int j = 0; j < kLanes; j++) bytes[i + j] = uint8_t(x[j]);
        }
        char* at = head.keys + size_t(p / kPanelWidth) * groups * kPanelStep;
        at += p % kPanelWidth * kGroupBytes;
        for (int group = 0; group < groups; group++)
            std::memcpy(at + group * kPanelStep, bytes + 4 * group, 4);
    }
}

// Quantize the values `values` (n, 64), with a scale for each dimension; `inverse` (64,) is 1 /
// scale.
inline void quantize_values(const HeadKV& head, int n, const float* values, const float* inverse) {
    const int d = kInt8HeadDim;
    for (int p = 0; p < n; p += 4) {
        int32_t* at = reinterpret_cast<int32_t*>(head.values + size_t(p / 4) * kPanelStep);
        for (int i = 0; i < d; i += kLanes) {
            IntVec group = {};
            for (int j = 0; j < 4 && p + j < n; j++) {
                const FloatVec x = load(values + (p + j) * d + i) * load(inverse + i);
                group |= quantize_unsigned(x) << (8 * j);
            }
            *reinterpret_cast<IntVec*>(at + i) = group;
        }
    }
}

// Quantize and pack head `h` from floats (n, 64); the keys are changed.
inline void quantize_kv(const LayerKV& kv, int h, float* keys, const float* values) {
    const HeadKV head = kv.head(h);
    const int n = kv.n, d = kInt8HeadDim;
    float mean[kInt8HeadDim] = {}, peak[kInt8HeadDim] = {}, inverse[kInt8HeadDim];
    for (int p = 0; p < n; p++)
        for (int i = 0; i < d; i++) {
            mean[i] += keys[p * d + i];
            peak[i] = std::max(peak[i], std::fabs(values[p * d + i]));
        }
    for (int i = 0; i < d; i++) {
        mean[i] /= n;
        head.value_scale[i] = peak[i] / 127;
        inverse[i] = peak[i] > 0 ? 127 / peak[i] : 0;
    }
    quantize_keys(head, n, keys, mean);
    quantize_values(head, n, values, inverse);
}

// Scores of quantized queries over int8 keys.
inline void int8_scores(
    const ActivationView& q, int n_queries, const HeadKV& head, Scores& scores) {
    const int groups = kInt8HeadDim / 4;
    for (int panel = 0; panel < n_panels(scores.n); panel++)
        multiply_panel<kInt8>(
            q.groups, q.stride, n_queries, head.keys + size_t(panel) * groups * kPanelStep, groups,
            [&](int query, int column, const float* sums) {
                const int position = panel * kPanelWidth + column;
                const IntVec whole = *reinterpret_cast<const IntVec*>(sums) - 128 * q.sum[query];
                const FloatVec scale = load(head.key_scale + position) * q.scale[query];
                scores.set(query, position, __builtin_convertvector(whole, FloatVec) * scale);
            });
}

// Round the softmax weights of a query, each from 0 to 1, to 14 bits: round(127 * 128 * weight) =
// 128 * high + low, two int8 digits of 7 bits, so that many small weights are not lost beside a
// large one. `sums` gets the sum of each digit over all positions.
inline void quantize_weights(
    const Scores& scores, int query, int8_t* high, int8_t* low, int32_t* sums) {
    IntVec total_high = {}, total_low = {};
    scores.softmax_numerators(query, [&](int p, FloatVec e) {
        const IntVec level = __builtin_convertvector(e * 16256.0f + 0.5f, IntVec);  // 127 * 128
        const IntVec a = level >> 7, b = level & 127;
        total_high += a, total_low += b;
        *reinterpret_cast<Int8Vec*>(high + p) = __builtin_convertvector(a, Int8Vec);
        *reinterpret_cast<Int8Vec*>(low + p) = __builtin_convertvector(b, Int8Vec);
    });
    sums[0] = sums[1] = 0;
    for (int i = 0; i < kLanes; i++) sums[0] += total_high[i], sums[1] += total_low[i];
}

// As `attention`, with float queries `q` (n_queries, 64) and int8 keys and values. Queries and
// output have the same stride. Each query has two rows in the second product, one for each digit of
// its weights.
inline void attention_int8(
    const float* q, size_t stride, int n_queries, const LayerKV& kv, int h,
    AttentionWorkspace& workspace, float* out, float* qk, size_t qk_stride) {
    const int n = kv.n, d = kInt8HeadDim, value_groups = n_groups(kInt8, n);
    const HeadKV head = kv.head(h);
    for (int query = 0; query < n_queries; query++)
        workspace.q.set_row(query, q + query * stride, d);
    Scores scores(workspace, kv);
    int8_scores(workspace.q.view(), n_queries, head, scores);

    int32_t digit_sums[2 * kMaxQueries];
    const size_t digit_stride = workspace.width / 4;
    for (int query = 0; query < n_queries; query++) {
        if (qk) std::memcpy(qk + query * qk_stride, scores.of_query(query), n * 4);
        int32_t* digits = workspace.weight_digits + 2 * query * digit_stride;
        auto* high = reinterpret_cast<int8_t*>(digits);
        auto* low = reinterpret_cast<int8_t*>(digits + digit_stride);
        quantize_weights(scores, query, high, low, digit_sums + 2 * query);
    }

    alignas(64) int32_t mixed[2 * kMaxQueries * kInt8HeadDim];  // (n_queries, 2, 64)
    multiply_panel<kInt8>(
        workspace.weight_digits, digit_stride, 2 * n_queries, head.values, value_groups,
        [&](int row, int column, const float* sums) {
            const IntVec whole = *reinterpret_cast<const IntVec*>(sums) - 128 * digit_sums[row];
            *reinterpret_cast<IntVec*>(mixed + row * d + column) = whole;
        });
    for (int query = 0; query < n_queries; query++) {
        const float inverse = 1 / (128.0f * digit_sums[2 * query] + digit_sums[2 * query + 1]);
        for (int i = 0; i < d; i += kLanes) {
            const IntVec high = *reinterpret_cast<IntVec*>(mixed + 2 * query * d + i);
            const IntVec low = *reinterpret_cast<IntVec*>(mixed + (2 * query + 1) * d + i);
            const FloatVec value = __builtin_convertvector(high, FloatVec) * 128.0f +
                                   __builtin_convertvector(low, FloatVec);
            store(out + query * stride + i, value * load(head.value_scale + i) * inverse);
        }
    }
}

}  // namespace sotto
