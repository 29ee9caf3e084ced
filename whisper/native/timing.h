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

// The cheapest monotonic path through costs (n, m), from its end; returns its length. Costs are added in float32, and
// ties go left (2), even where left is dearer: the rule of openai-whisper, hence its path.
inline int warp(const float* x, int n, int m, int32_t* rows, int32_t* columns) {
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
            now[j] = float(double(x[size_t(i - 1) * m + j - 1]) + double(best));
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
