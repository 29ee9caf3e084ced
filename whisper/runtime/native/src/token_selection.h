// Token selection: suppresses what may not come next, and finds the likeliest tokens that are left.
//
// Works on one row of logits, (n_vocab,), at a time. Order of summation: the log-sum-exp adds up
// vectors from id 0 on, then the lanes.
#pragma once

#include "abi.h"
#include "base.h"

namespace sotto {

// log of the sum of e^x, with `peak` the largest; -inf where all are -inf.
inline float log_sum_exp(const float* x, int n, float peak) {
    if (!(peak > -INFINITY)) return -INFINITY;
    FloatVec total = {};
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) total += exp(load(x + i) - peak);
    if (i < n) {
        FloatVec rest = broadcast(-INFINITY);
        for (int j = 0; i + j < n; j++) rest[j] = x[i + j];
        total += exp(rest - peak);
    }
    return std::log(reduce_sum(total)) + peak;
}

inline void suppress(float* logits, int from, int to) {
    for (int i = from; i < to; i++) logits[i] = -INFINITY;
}

// Suppress in a row what its rules forbid; returns the log-sum-exp of the rest.
inline float apply_token_rules(const TokenSelection& s, int row, float* logits) {
    const int set = s.suppressed_by[row], begin = s.timestamp_begin;
    for (int i = 0; i < s.n_suppressed[set]; i++) logits[s.suppressed[set][i]] = -INFINITY;
    suppress(logits, 0, std::min(s.text_from[row], s.n_vocab));
    suppress(logits, begin, std::min(s.timestamps_from[row], s.n_vocab));
    suppress(logits, std::max(s.timestamps_to[row], begin), s.n_vocab);
    const int n_timestamps = s.n_vocab - begin;
    float text_peak = max_value(logits, begin);
    const float timestamp_peak = max_value(logits + begin, n_timestamps);
    if (s.timestamp_mass[row]) {
        const float log_mass = log_sum_exp(logits + begin, n_timestamps, timestamp_peak);
        if (log_mass > text_peak) {
            suppress(logits, 0, begin);
            text_peak = -INFINITY;
        }
    }
    return log_sum_exp(logits, s.n_vocab, std::max(text_peak, timestamp_peak));
}

// The `k` largest of `n` numbers, largest first, equal ones by index. Blocks whose largest number
// cannot enter the list are skipped.
inline void top_k(const float* x, int n, int k, int32_t* ids, float* values) {
    int found = 0;
    float least = -INFINITY;  // of those found, once there are k
    auto insert = [&](int id) {
        int place = found < k ? found++ : k - 1;
        for (; place > 0 && values[place - 1] < x[id]; place--)
            values[place] = values[place - 1], ids[place] = ids[place - 1];
        values[place] = x[id], ids[place] = id;
        if (found == k) least = values[k - 1];
    };
    constexpr int kBlock = 8 * kLanes;
    int i = 0;
    for (; i + kBlock <= n; i += kBlock) {
        if (found == k && !(max_value(x + i, kBlock) > least)) continue;
        for (int j = i; j < i + kBlock; j++)
            if (found < k || x[j] > least) insert(j);
    }
    for (; i < n; i++)
        if (found < k || x[i] > least) insert(i);
}

inline void select_tokens(const TokenSelection& s, int row) {
    float* logits = s.logits + size_t(row) * s.n_vocab;
    int32_t* ids = s.ids + size_t(row) * s.n_best;
    float* logprobs = s.logprobs + size_t(row) * s.n_best;
    const float log_total = apply_token_rules(s, row, logits);
    top_k(logits, s.n_vocab, s.n_best, ids, logprobs);
    for (int i = 0; i < s.n_best; i++) logprobs[i] -= log_total;
}

}  // namespace sotto
