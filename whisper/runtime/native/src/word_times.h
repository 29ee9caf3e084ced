// Word times: cross-attention weights made comparable over heads, a median filter, and dynamic time
// warping (DTW).
//
// Order of summation: the softmax adds up vectors of positions, then the lanes; mean and deviation
// run over tokens from 0 on. DTW adds up in float32, as openai-whisper does.
#pragma once

#include "base.h"

namespace sotto {

constexpr int kMedianWidth = 7;

inline void sort_pair(FloatVec& a, FloatVec& b) {
    const FloatVec low = a < b ? a : b, high = a < b ? b : a;
    a = low, b = high;
}

// The median of 7 numbers, those at p to p + 6, for kLanes neighbours p at once. Inlined by force: a
// call for each vector costs 3 % of the normalization.
__attribute__((always_inline)) inline FloatVec median_of_7(const float* p) {
    // of five, neither the least nor the greatest is the median of seven: drop both, take another,
    // and so on
    FloatVec v[5] = {load(p), load(p + 1), load(p + 2), load(p + 3), load(p + 4)};
    for (int j = 0; j < 4; j++) sort_pair(v[j], v[j + 1]);
    for (int j = 3; j > 1; j--) sort_pair(v[j - 1], v[j]);
    sort_pair(v[0], v[1]);
    FloatVec a = v[1], b = v[2], c = v[3], e = load(p + 5);
    sort_pair(a, b), sort_pair(b, c), sort_pair(c, e), sort_pair(b, c), sort_pair(a, b);
    FloatVec f = b, g = c, h = load(p + 6);
    sort_pair(f, g), sort_pair(g, h), sort_pair(f, g);
    return g;
}

// Median filter of width 7 over `n` > 3 numbers, with reflection at both ends. `padded` holds n +
// 24.
inline void median_filter(const float* x, float* out, int n, float* padded) {
    const int half = kMedianWidth / 2;
    for (int i = 0; i < half; i++) padded[i] = x[half - i], padded[half + n + i] = x[n - 2 - i];
    std::memcpy(padded + half, x, n * 4);
    for (int i = 0; i < n; i += kLanes) {
        const FloatVec median = median_of_7(padded + i);
        if (i + kLanes <= n)
            store(out + i, median);
        else
            for (int j = 0; i + j < n; j++) out[i + j] = median[j];
    }
}

// Cross-attention scores of one head to weights that can be compared with those of other heads:
// softmax over positions, each position normalized over the tokens to mean 0 and deviation 1,
// median filter.
struct AttentionNormalizer {
    Buffer<float> weights;          // (n_tokens, width)
    Buffer<float> mean, deviation;  // (width,), over the tokens
    Buffer<float> padded;

    // `qk` (n_tokens, stride), of which the first `n` positions count, to `out` (n_tokens, n).
    // False where a position does not vary over the tokens at all.
    bool run(const float* qk, int n_tokens, int stride, int n, float scale, float* out) {
        const int width = (n + kLanes - 1) / kLanes * kLanes;
        weights.reserve(size_t(n_tokens) * width), padded.reserve(n + 24);
        mean.reserve(width), deviation.reserve(width);
        std::memset(mean, 0, width * 4), std::memset(deviation, 0, width * 4);
        for (int token = 0; token < n_tokens; token++) {
            float* w = weights + size_t(token) * width;
            softmax(qk + size_t(token) * stride, n, width, scale, w, mean);
        }
        for (int i = 0; i < width; i++) mean[i] /= n_tokens;
        for (int token = 0; token < n_tokens; token++)
            for (int i = 0; i < width; i += kLanes) {
                const FloatVec d = load(weights + size_t(token) * width + i) - load(mean + i);
                store(deviation + i, load(deviation + i) + d * d);
            }
        for (int i = 0; i < n; i++)
            if (!((deviation[i] = std::sqrt(deviation[i] / n_tokens)) > 0)) return false;
        for (int token = 0; token < n_tokens; token++) {
            float* w = weights + size_t(token) * width;
            for (int i = 0; i < n; i++) w[i] = (w[i] - mean[i]) / deviation[i];
            median_filter(w, out + size_t(token) * n, n, padded);
        }
        return true;
    }

  private:
    // One token's weights `w`, `n` and zeros up to `width`; they are added to `sums` (width,).
    static void softmax(const float* qk, int n, int width, float scale, float* w, float* sums) {
        for (int i = 0; i < n; i++) w[i] = qk[i] * scale;
        for (int i = n; i < width; i++) w[i] = -INFINITY;
        FloatVec largest = load(w), total = {};
        for (int i = kLanes; i < width; i += kLanes) largest = maximum(largest, load(w + i));
        const float peak = reduce_max(largest);
        for (int i = 0; i < width; i += kLanes) {
            const FloatVec e = exp(load(w + i) - peak);
            total += e;
            store(w + i, e);
        }
        const float inverse = 1 / reduce_sum(total);
        for (int i = 0; i < width; i += kLanes) {
            store(w + i, load(w + i) * inverse);
            store(sums + i, load(sums + i) + load(w + i));
        }
    }
};

// DTW: the cheapest monotonic path through `costs` (n, m), into `rows` and `columns` (n + m,) from
// its end to its start; returns its length. Costs are added in float32, and ties go left, even
// where left is dearer: the rule of openai-whisper, hence its path.
inline int dtw(const double* costs, int n, int m, int32_t* rows, int32_t* columns) {
    enum Step : uint8_t { kDiagonal, kUp, kLeft };
    std::vector<uint8_t> steps(size_t(n + 1) * (m + 1), kLeft);  // (n + 1, m + 1): that led there
    std::vector<float> above(m + 1, INFINITY), current(m + 1);   // total costs of two rows
    above[0] = 0;
    for (int i = 1; i <= n; i++) {
        current[0] = INFINITY;
        uint8_t* step = steps.data() + size_t(i) * (m + 1);
        for (int j = 1; j <= m; j++) {
            const float diagonal = above[j - 1], up = above[j], left = current[j - 1];
            float best = left;
            if (diagonal < up && diagonal < left)
                best = diagonal, step[j] = kDiagonal;
            else if (up < diagonal && up < left)
                best = up, step[j] = kUp;
            current[j] = float(costs[size_t(i - 1) * m + j - 1] + double(best));
        }
        std::swap(above, current);
    }
    int length = 0;
    for (int i = n, j = m; i > 0 || j > 0;) {
        rows[length] = i - 1, columns[length++] = j - 1;
        const int step = i == 0 ? int(kLeft) : j == 0 ? int(kUp) : steps[size_t(i) * (m + 1) + j];
        if (step != kLeft) i--;
        if (step != kUp) j--;
    }
    return length;
}

}  // namespace sotto
