// Word times: a running median, and dynamic time warping.
#pragma once

#include "base.h"

namespace sotto {

constexpr int kWidth = 7;

inline void order(Floats& a, Floats& b) {
    const Floats low = a < b ? a : b, high = a < b ? b : a;
    a = low, b = high;
}

// The median of each seven neighbours of a row of `n` > 3 numbers, mirrored at its ends. `padded` holds n + 24.
inline void median_row(const float* x, float* out, int n, float* padded) {
    const int half = kWidth / 2;
    for (int i = 0; i < half; i++) padded[i] = x[half - i], padded[half + n + i] = x[n - 2 - i];
    std::memcpy(padded + half, x, n * 4);
    for (int i = 0; i < n; i += kLanes) {
        // of five, neither the least nor the greatest is the median of seven: drop both, take another, and so on
        Floats v[5] = {load(padded + i), load(padded + i + 1), load(padded + i + 2), load(padded + i + 3), load(padded + i + 4)};
        for (int j = 0; j < 4; j++) order(v[j], v[j + 1]);
        for (int j = 3; j > 1; j--) order(v[j - 1], v[j]);
        order(v[0], v[1]);
        Floats a = v[1], b = v[2], c = v[3], e = load(padded + i + 5);
        order(a, b), order(b, c), order(c, e), order(b, c), order(a, b);
        Floats f = b, g = c, h = load(padded + i + 6);
        order(f, g), order(g, h), order(f, g);
        if (i + kLanes <= n)
            store(out + i, g);
        else
            for (int j = 0; i + j < n; j++) out[i + j] = g[j];
    }
}

// What one head attends to, made comparable: softmax over the first `n` of its scores (n_rows, stride), each position
// brought to mean 0 and deviation 1 over the rows, and smoothed. False where a position does not vary at all.
struct Focus {
    Buffer<float> weights, mean, deviation, padded;

    bool run(const float* qk, int n_rows, int stride, int n, float scale, float* out) {
        const int width = (n + kLanes - 1) / kLanes * kLanes;
        weights.reserve(size_t(n_rows) * width), padded.reserve(n + 24);
        mean.reserve(width), deviation.reserve(width);
        std::memset(mean, 0, width * 4), std::memset(deviation, 0, width * 4);
        for (int row = 0; row < n_rows; row++) {
            float* w = weights + size_t(row) * width;
            for (int i = 0; i < n; i++) w[i] = qk[size_t(row) * stride + i] * scale;
            for (int i = n; i < width; i++) w[i] = -INFINITY;
            Floats peak = load(w), total = {};
            for (int i = kLanes; i < width; i += kLanes) peak = greater(peak, load(w + i));
            const float largest = greatest(peak);
            for (int i = 0; i < width; i += kLanes) {
                const Floats e = exponential(load(w + i) - largest);
                total += e;
                store(w + i, e);
            }
            const float inverse = 1 / sum(total);
            for (int i = 0; i < width; i += kLanes) {
                store(w + i, load(w + i) * inverse);
                store(mean + i, load(mean + i) + load(w + i));
            }
        }
        for (int i = 0; i < width; i++) mean[i] /= n_rows;
        for (int row = 0; row < n_rows; row++)
            for (int i = 0; i < width; i += kLanes) {
                const Floats d = load(weights + size_t(row) * width + i) - load(mean + i);
                store(deviation + i, load(deviation + i) + d * d);
            }
        for (int i = 0; i < n; i++)
            if (!((deviation[i] = std::sqrt(deviation[i] / n_rows)) > 0)) return false;
        for (int row = 0; row < n_rows; row++) {
            float* w = weights + size_t(row) * width;
            for (int i = 0; i < n; i++) w[i] = (w[i] - mean[i]) / deviation[i];
            median_row(w, out + size_t(row) * n, n, padded);
        }
        return true;
    }
};

// The cheapest monotonic path through costs (n, m), from its end; returns its length. Costs are added in float32, and
// ties go left (2), even where left is dearer: the rule of openai-whisper, hence its path.
inline int warp(const double* x, int n, int m, int32_t* rows, int32_t* columns) {
    std::vector<uint8_t> trace(size_t(n + 1) * (m + 1), 2);
    std::vector<float> last(m + 1, INFINITY), now(m + 1);
    last[0] = 0;
    for (int i = 1; i <= n; i++) {
        now[0] = INFINITY;
        uint8_t* steps = trace.data() + size_t(i) * (m + 1);
        for (int j = 1; j <= m; j++) {
            const float diagonal = last[j - 1], up = last[j], left = now[j - 1];
            float best = left;
            if (diagonal < up && diagonal < left)
                best = diagonal, steps[j] = 0;
            else if (up < diagonal && up < left)
                best = up, steps[j] = 1;
            now[j] = float(x[size_t(i - 1) * m + j - 1] + double(best));
        }
        std::swap(last, now);
    }
    int length = 0;
    for (int i = n, j = m; i > 0 || j > 0;) {
        rows[length] = i - 1, columns[length++] = j - 1;
        const int step = i == 0 ? 2 : j == 0 ? 1 : trace[size_t(i) * (m + 1) + j];
        i -= step != 2, j -= step != 1;
    }
    return length;
}

}  // namespace sotto
