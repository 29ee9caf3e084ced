// Which tokens may come next, and the likeliest of them. The rules are those of whisper/runner.py, `Rules`.
#pragma once

#include "base.h"

namespace sotto {

// Arrays over rows; the same struct stands in native_runner.py.
struct Choice {
    int32_t n_rows, n_vocab, n_best, n_threads, timestamp_begin;
    float* logits;                   // (n_rows, n_vocab), changed in place
    const int32_t* const* suppressed;  // sets of ids
    const int32_t* n_suppressed;     // their sizes
    const int32_t *suppressed_by, *text_from, *timestamps_from, *timestamps_to;
    const uint8_t* weighs;
    int32_t* ids;                    // (n_rows, n_best)
    float* logprobs;                 // (n_rows, n_best)
};

inline float largest(const float* x, int n) {
    Floats m = all(-INFINITY);
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) m = greater(m, load(x + i));
    float value = greatest(m);
    for (; i < n; i++) value = std::max(value, x[i]);
    return value;
}

// log of the sum of e^x; -inf for nothing but -inf.
inline float log_sum(const float* x, int n, float peak) {
    if (!(peak > -INFINITY)) return -INFINITY;
    Floats total = {};
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) total += exponential(load(x + i) - peak);
    if (i < n) {
        Floats rest = all(-INFINITY);
        for (int j = 0; i + j < n; j++) rest[j] = x[i + j];
        total += exponential(rest - peak);
    }
    return std::log(sum(total)) + peak;
}

inline void forbid(float* x, int from, int to) {
    for (int i = from; i < to; i++) x[i] = -INFINITY;
}

inline void choose_row(const Choice& c, int row) {
    float* x = c.logits + size_t(row) * c.n_vocab;
    const int set = c.suppressed_by[row], begin = c.timestamp_begin;
    for (int i = 0; i < c.n_suppressed[set]; i++) x[c.suppressed[set][i]] = -INFINITY;
    forbid(x, 0, std::min(c.text_from[row], c.n_vocab));
    forbid(x, begin, std::min(c.timestamps_from[row], c.n_vocab));
    forbid(x, std::max(c.timestamps_to[row], begin), c.n_vocab);
    const int n_times = c.n_vocab - begin;
    float peak_text = largest(x, begin), peak_times = largest(x + begin, n_times);
    if (c.weighs[row] && log_sum(x + begin, n_times, peak_times) > peak_text) {
        forbid(x, 0, begin);
        peak_text = -INFINITY;
    }
    const float total = log_sum(x, c.n_vocab, std::max(peak_text, peak_times));
    int32_t* ids = c.ids + size_t(row) * c.n_best;
    float* best = c.logprobs + size_t(row) * c.n_best;
    int found = 0;
    float least = -INFINITY;  // of those found, once there are enough
    auto offer = [&](int id) {
        int place = found < c.n_best ? found++ : c.n_best - 1;
        for (; place > 0 && best[place - 1] < x[id]; place--) best[place] = best[place - 1], ids[place] = ids[place - 1];
        best[place] = x[id], ids[place] = id;
        if (found == c.n_best) least = best[c.n_best - 1];
    };
    int i = 0;
    constexpr int kSome = 8 * kLanes;
    for (; i + kSome <= c.n_vocab; i += kSome) {
        if (found == c.n_best && !(largest(x + i, kSome) > least)) continue;
        for (int j = i; j < i + kSome; j++)
            if (found < c.n_best || x[j] > least) offer(j);
    }
    for (; i < c.n_vocab; i++)
        if (found < c.n_best || x[i] > least) offer(i);
    for (int k = 0; k < c.n_best; k++) best[k] -= total;
}

}  // namespace sotto
